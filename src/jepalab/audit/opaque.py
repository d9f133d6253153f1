"""Custom autograd functions, seen from outside: nobody can look into their backward."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch.autograd.function import Function

from jepalab.audit.tape import Recorder, tensors_in


class Opaque(AbstractContextManager):
    """Custom autograd functions become one opaque call each; what a reentrant checkpoint wraps is run openly."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def __enter__(self) -> None:
        recorder, self.original = self.recorder, Function.__dict__["apply"]
        plain = self.original.__func__

        def apply(cls: type[Function], *args: Any, **kwargs: Any) -> Any:
            if not recorder.active:
                return plain(cls, *args, **kwargs)
            if cls.__name__ == "CheckpointFunction":
                return args[0](*args[2:])
            with torch._C.DisableTorchFunction():
                given = [(slot, recorder.node_of(tensor)) for slot, tensor in tensors_in(args, kwargs)]
            with recorder.pause():
                result = plain(cls, *args, **kwargs)
            with torch._C.DisableTorchFunction():
                if cls.__name__ == "BackwardHookFunction":  # torch's own, around a module with a backward hook
                    recorder.write("broadcast_tensors", given, result)
                else:
                    recorder.write(cls.__name__, given, result, opaque=True)
            return result

        type.__setattr__(Function, "apply", classmethod(apply))

    def __exit__(self, *_: object) -> None:
        type.__setattr__(Function, "apply", self.original)
