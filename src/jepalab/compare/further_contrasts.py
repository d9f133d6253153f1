"""Further contrasts: a lead or a metric that is larger under one condition than under another, a metric above or below
a number, a cost that is many times another's."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass

from .contrasts import CellResult
from .judgement import Judgement, decide

Place = tuple[str, str]  # an arm and a condition
Values = Mapping[Place, float]  # what one seed scored at each place


@dataclass(frozen=True)
class _OverPlaces(ABC):
    """A claim about one number a seed, made of a metric at several places; it counts the seeds that have them all."""

    name: str
    _: KW_ONLY
    metric: str
    condition: str
    because: str
    source: str

    @property
    @abstractmethod
    def places(self) -> set[Place]:
        """The arms and conditions whose metric is read."""

    def _judge(
        self,
        values: list[float],
        *,
        claim: str,
        better: str,
        than: str,
        condition: str = "",
        note: str = "",
        least: float = 0.0,
    ) -> Judgement:
        """Held if these values, one a seed, lie above `least`."""
        blank = Judgement(
            name=self.name,
            kind="better",
            claim=claim,
            better=better,
            than=than,
            metric=self.metric,
            condition=condition or self.condition,
            because=self.because,
            source=self.source,
            note=note,
        )
        return decide(blank, values, claimed=(least, math.inf))

    def _by_seed(self, cells: Sequence[CellResult]) -> tuple[Sequence[Values], int]:
        """What each seed scored, of those that have a finite number at every place; and how many seeds there are."""
        found: dict[int, dict[Place, float]] = {}
        for cell in cells:
            place = cell["arm"], cell["condition"]
            if place in self.places:
                value = cell["metrics"].get(self.metric, math.nan) if cell["status"] == "done" else math.nan
                found.setdefault(cell["seed"], {})[place] = value
        whole = [
            each for each in found.values() if len(each) == len(self.places) and all(map(math.isfinite, each.values()))
        ]
        return whole, len(found)


@dataclass(frozen=True, kw_only=True)
class Widens(_OverPlaces):
    """Claims that `better` - `than` in `metric` is larger under `condition` than under `milder`.

    The value of a seed is the difference of the two differences; held and refuted as in `Better`.
    """

    better: str
    than: str
    milder: str

    def __post_init__(self) -> None:
        if self.better == self.than or self.condition == self.milder:
            raise ValueError(f"{self.name}: wanted two different arms and two different conditions, got {self}")

    @property
    def places(self) -> set[Place]:
        return {(arm, place) for arm in (self.better, self.than) for place in (self.condition, self.milder)}

    def judge(self, cells: Sequence[CellResult]) -> Judgement:
        """By the seeds that both arms have under both conditions."""
        found, num = self._by_seed(cells)
        missing = num - len(found)

        def lead(values: Values, condition: str) -> float:
            return values[self.better, condition] - values[self.than, condition]

        return self._judge(
            [lead(values, self.condition) - lead(values, self.milder) for values in found],
            claim=(
                f"{self.better}'s lead over {self.than} on {self.metric} is larger under {self.condition} than under "
                f"{self.milder}"
            ),
            better=self.better,
            than=self.than,
            condition=f"{self.condition} against {self.milder}",
            note=f"{missing} of {num} seeds lack one of the four cells" if missing else "",
        )


@dataclass(frozen=True, kw_only=True)
class Rises(_OverPlaces):
    """Claims that an arm's `metric` is larger under `condition` than under `other`.

    The value of a seed is the difference; held and refuted as in `Better`.
    """

    arm: str
    other: str

    def __post_init__(self) -> None:
        if self.condition == self.other:
            raise ValueError(f"{self.name}: wanted two different conditions, got {self.other!r} twice")

    @property
    def places(self) -> set[Place]:
        return {(self.arm, self.condition), (self.arm, self.other)}

    def judge(self, cells: Sequence[CellResult]) -> Judgement:
        """By the seeds that the arm has under both conditions."""
        found, num = self._by_seed(cells)
        missing = num - len(found)
        return self._judge(
            [values[self.arm, self.condition] - values[self.arm, self.other] for values in found],
            claim=f"{self.metric} of {self.arm} is larger under {self.condition} than under {self.other}",
            better=self.arm,
            than=self.other,
            condition=f"{self.condition} against {self.other}",
            note=f"{missing} of {num} seeds lack one of the two cells" if missing else "",
        )


@dataclass(frozen=True, kw_only=True)
class ManyTimes(_OverPlaces):
    """Claims that `metric` of `more`, such as its seconds, is more than `times` that of `than`.

    The value of a seed is the ratio; held and refuted as in `Better`, whose threshold is `times`.
    """

    more: str
    than: str
    times: float

    def __post_init__(self) -> None:
        if self.more == self.than or self.times <= 0:
            raise ValueError(f"{self.name}: wanted two different arms and times above 0, got {self}")

    @property
    def places(self) -> set[Place]:
        return {(self.more, self.condition), (self.than, self.condition)}

    def judge(self, cells: Sequence[CellResult]) -> Judgement:
        """By the seeds that both arms have; a metric that is not above 0 has no ratio."""
        found, num = self._by_seed(cells)
        more, than = (self.more, self.condition), (self.than, self.condition)
        ratios = [values[more] / values[than] for values in found if values[than] > 0]
        missing = num - len(ratios)
        return self._judge(
            ratios,
            claim=f"{self.metric} of {self.more} is more than {self.times:g} times {self.than}'s ({self.condition})",
            better=self.more,
            than=self.than,
            note="; ".join(["the difference is a ratio", *([f"{missing} of {num} pairs missing"] if missing else [])]),
            least=self.times,
        )


@dataclass(frozen=True, kw_only=True)
class _AgainstANumber(_OverPlaces):
    arm: str
    threshold: float

    @property
    def places(self) -> set[Place]:
        return {(self.arm, self.condition)}

    def _compare(self, cells: Sequence[CellResult], *, word: str, sign: int) -> Judgement:
        """By how much the arm's metric is above (sign 1) or below (-1) the threshold, by every seed of the arm."""
        found, num = self._by_seed(cells)
        missing = num - len(found)
        return self._judge(
            [sign * (values[self.arm, self.condition] - self.threshold) for values in found],
            claim=f"{self.metric} of {self.arm} ({self.condition}) {word} {self.threshold:g}",
            better=self.arm,
            than=f"{self.threshold:g}",
            note=f"{missing} of {num} seeds missing" if missing else "",
        )


@dataclass(frozen=True, kw_only=True)
class Exceeds(_AgainstANumber):
    """Claims that an arm's `metric`, such as what it loses by a change, is larger than `threshold`.

    Held and refuted as in `Better`.
    """

    threshold: float = 0.0

    def judge(self, cells: Sequence[CellResult]) -> Judgement:
        return self._compare(cells, word="exceeds", sign=1)


@dataclass(frozen=True, kw_only=True)
class StaysBelow(_AgainstANumber):
    """Claims that an arm's `metric` is smaller than `threshold`: the contrary of `Exceeds`.

    The value of a seed is what it lacks; held and refuted as in `Better`.
    """

    def judge(self, cells: Sequence[CellResult]) -> Judgement:
        return self._compare(cells, word="stays below", sign=-1)
