"""Imports torchvision beside a CPU build of torch, where PyPI's wheel misses the operators of its compiled half."""

from __future__ import annotations

import importlib
import sys

import torch

_DECLARED: list[torch.library.Library] = []  # a declaration lasts as long as its library


def import_torchvision() -> None:
    """Declares the two operators that the import asks for where they are missing. No peer's step calls them."""
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _DECLARED.append(library)
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        importlib.import_module("torchvision")
