"""The audit's label table: training steps as public code would write them, each with its right answer.

One file, one family of steps. A file in this folder is found by itself; its name ends in `examples.py`. Networks are
small and data made up, so that a step is built in a moment on one CPU core.
"""

from __future__ import annotations

import importlib
import pkgutil

import torch

from jepalab.audit.examine import audit
from jepalab.audit.report import Audit
from jepalab.audit.steps.case import Case, Expect, Row

__all__ = ["Case", "Expect", "Row", "audit_case", "find_cases"]

SUFFIX = "examples"  # the audit reads a file of its own package as a user's if its name ends so, and names its lines


def find_cases() -> tuple[Case, ...]:
    """Every row of the files in this folder, by number; those of one number by the file's name, then as written."""
    found = []
    for module in pkgutil.iter_modules(__path__):
        name = f"{__name__}.{module.name}"
        cases = [c for c in vars(importlib.import_module(name)).values() if isinstance(c, Case)]
        own = [case for case in cases if case.make.__module__ == name]
        assert not own or name.endswith(SUFFIX), f"steps/{module.name}.py holds steps: call it ..._{SUFFIX}.py"
        found += own
    return tuple(sorted(found, key=lambda case: case.number))


def audit_case(case: Case, *, steps: int = 3, confirm: bool = False) -> Audit:
    """The case's step under the audit; the same each time, and the caller's random numbers are left alone.

    steps    over how many training steps the shares are averaged.
    confirm  also run the black-box tests.
    """
    with torch.random.fork_rng(devices=[]):
        row = case.build_here()
        return audit(
            row.step,
            row.inputs,
            parameters=row.parameters,
            encoder=row.encoder,
            optimizer=row.optimizer,
            after_step=row.after_step,
            steps=steps,
            confirm=confirm,
            title=case.name,
        )
