"""What acting takes: imagined steps, calls of a model, FLOPs, and what each search found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from torch.utils.flop_counter import FlopCounterMode

from jepalab.planners.planner import Planned

Done = TypeVar("Done")


@dataclass
class Effort:
    """What acting took: imagined steps, calls of a model, what each search found, and at which step it was made.

    flops  of looking and searching, as torch counts them: matrix products and convolutions, forwards and backwards.
    """

    imagined_steps: int = 0
    model_calls: int = 0
    flops: float = 0.0
    searches: list[Planned] = field(default_factory=list)
    searched_at: list[int] = field(default_factory=list)


class Meter:
    """Counts the FLOPs of calls that are alike from the `num`-th on, so that no later one need be measured."""

    def __init__(self, effort: Effort, *, num: int) -> None:
        self.effort, self.left, self.last = effort, num, 0.0

    def __call__(self, call: Callable[[], Done]) -> Done:
        if self.left == 0:
            self.effort.flops += self.last
            return call()
        self.left -= 1
        with FlopCounterMode(display=False) as counter:
            done = call()
        self.last = float(counter.get_total_flops())
        self.effort.flops += self.last
        return done
