"""Runs opened again for a look inside: the objective as it was trained, with the weights that lie in its folder."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jepalab.run import Run
from jepalab.web.opening_runs import open_below, weights_of

MOST_OPENED = 6
_OPENED: OrderedDict[tuple[str, int], Opened] = OrderedDict()


@dataclass(frozen=True, eq=False)
class Opened:
    """A run with its weights, in evaluation mode and without gradients.

    name  below the root.
    make  makes the same run once more, as it was before its first step.
    """

    name: str
    run: Run
    make: Callable[[], Run]


def open_run(root: Path, name: str) -> Opened:
    """The run that the page calls `name`, opened anew only where its weights have changed since the last call.

    Raises:
        ValueError: there is no such run, it has no weights yet, or it cannot be made again here; says why.
    """
    key = weights_of(root, name).key
    if key not in _OPENED:
        _OPENED[key] = Opened(name, *open_below(root, name))
        while len(_OPENED) > MOST_OPENED:
            _OPENED.popitem(last=False)
    _OPENED.move_to_end(key)
    return _OPENED[key]
