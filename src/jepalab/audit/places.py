"""Where in somebody's source a call was written."""

from __future__ import annotations

import linecache
import os
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import no_type_check

import torch

from jepalab.audit.report import Place

Line = tuple[CodeType, int]
TORCH, HERE = (str(Path(file).parent) + os.sep for file in (torch.__file__, __file__))
BETWEEN = tuple(HERE + name for name in ("tape.py", "opaque.py"))
CHECKERS = {"jaxtyping", "beartype"}


@no_type_check
def lines(frame: FrameType | None) -> tuple[Line | None, Line | None]:
    """The innermost line outside torch and the audit, and the outermost one that the audit called."""
    inner = outer = None
    while frame is not None:
        owner = owner_of(frame.f_code.co_filename)
        if owner == "audit" and outer is not None:
            break  # the frames beyond belong to whoever called the audit
        if owner == "user":
            outer = (frame.f_code, frame.f_lineno)
            inner = inner or outer
        frame = frame.f_back
    return inner, outer


@cache
def owner_of(file: str) -> str:
    """Whose code a file is: "torch", "audit" or "user". The tape's own frames stand between two of the user's, those of
    checkers of shapes and types around anybody's."""
    if file.startswith((TORCH, "<frozen", "<@")) or file in BETWEEN or CHECKERS & set(Path(file).parts):
        return "torch"
    return "audit" if file.startswith(HERE) and not file.endswith("examples.py") else "user"


@cache
def place(line: Line) -> Place:
    code, number = line
    text = linecache.getline(code.co_filename, number).strip()
    return Place(code.co_filename, number, code.co_name, text)
