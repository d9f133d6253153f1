"""Protocols that are asked for while the program runs: what a module holds must not decide."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from typing import Protocol

import jepalab
import jepalab.types

HELD_BY_MODULES = re.compile("Tensor|Module|Encoder|Predictor|Decoder|Unroll|object")


def asked(kind: type) -> set[str]:
    """The members of a protocol that an nn.Module would hold as a part or a buffer.

    From Python 3.12 on, isinstance no longer finds those: the module hands them out through __getattr__.
    """
    return {name for name, said in inspect.get_annotations(kind).items() if HELD_BY_MODULES.search(str(said))}


def test_no_protocol_asks_a_module_for_what_it_holds() -> None:
    protocols = {}
    for module in pkgutil.walk_packages(jepalab.__path__, "jepalab."):
        if not module.name.endswith("__main__"):
            for name, kind in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                if getattr(kind, "_is_runtime_protocol", False) and kind.__module__ == module.name:
                    protocols[f"{module.name}.{name}"] = asked(kind)
    assert len(protocols) > 20, "they are found"
    assert {name: held for name, held in protocols.items() if held} == {}


def test_such_a_protocol_would_be_found() -> None:
    class Forward(Protocol):
        predictor: jepalab.types.Encoder
        size: int

    assert asked(Forward) == {"predictor"}
