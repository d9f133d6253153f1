"""The lesson's content as typed data, read from content.toml and checked for completeness."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from jepalab.web.lesson.choices import CATEGORIES, INSTRUMENTS

FILE = Path(__file__).with_name("content.toml")
SCOPES = {"in": INSTRUMENTS, "out": CATEGORIES}
NUM_QUESTIONS, NUM_CLASSICS, NUM_FIXED = 7, 4, 6
LEAST_POINTS, LEAST_STEPS, LEAST_SCOPES, LEAST_CARDS = 3, 20, 20, 10
MEASURED = re.compile(r"\d[.,]\d|\d\s?%")  # what a measured number looks like
PLACEHOLDER = re.compile(r"\{(results|contrast|audit):([^{}]+)\}")

Made = TypeVar("Made")


@dataclass(frozen=True)
class Source:
    """Where a fact is from. `secondary`: it reports what others said or did."""

    id: str
    cite: str
    what: str
    arxiv: str = ""
    url: str = ""
    secondary: bool = False

    @property
    def address(self) -> str:
        """Where a click leads; empty where we know of no address."""
        return f"https://arxiv.org/abs/{self.arxiv}" if self.arxiv else self.url


@dataclass(frozen=True)
class Evidence:
    """A fact for or against an answer: with sources, or with our own figures. `secondary`: read in a summary."""

    text: str
    sources: tuple[str, ...] = ()
    secondary: bool = False


@dataclass(frozen=True)
class Run:
    """A command that shows the answer on the reader's machine.

    minutes    on two cores; `estimated` where nobody has timed it.
    needs      a command that has to come first.
    shows      what is to be seen; `measured` gives our figures, once there are any.
    """

    command: str
    minutes: float
    shows: str
    measured: str = ""
    needs: str = ""
    estimated: bool = False

    @property
    def takes(self) -> str:
        """The time in words."""
        if self.minutes < 0.7:
            return "some seconds" if self.minutes < 0.3 else "half a minute"
        number, unit = (self.minutes, "minute") if self.minutes < 90 else (self.minutes / 60, "hour")
        told = f"about {number:.0f} {unit}{'' if round(number) == 1 else 's'}"
        return f"{told} by estimate" if self.estimated else told


@dataclass(frozen=True)
class Question:
    """A question to be tried before its answer opens.

    evidence  what the evidence on either side is called, as in ("for the objection", "against it").
    points    what a good answer says.
    """

    id: str
    title: str
    ask: str
    evidence: tuple[str, ...]
    answer: str
    points: tuple[str, ...]
    supporting: tuple[Evidence, ...]
    opposing: tuple[Evidence, ...]
    run: tuple[Run, ...]


@dataclass(frozen=True)
class Step:
    """A training step to be named. `step`: its name among the audit's; the right answer is the audit's."""

    step: str
    title: str
    method: str
    describes: str
    reason: str
    classic: bool = False


@dataclass(frozen=True)
class ScopeItem:
    """A question that a measurement settles ("in", by an instrument) or does not ("out": whose it is instead).

    needs      a command that has to come before `command`; the reason names it.
    """

    id: str
    asks: str
    scope: str
    by: str
    reason: str
    also: tuple[str, ...] = ()
    command: str = ""
    needs: str = ""
    fixed: bool = False


@dataclass(frozen=True)
class Card:
    """A flashcard."""

    topic: str
    front: str
    back: str


@dataclass(frozen=True)
class Content:
    """All that is written by hand. `gathered`: when the facts were."""

    title: str
    lead: str
    gathered: str
    source: tuple[Source, ...] = field(default_factory=tuple)
    question: tuple[Question, ...] = field(default_factory=tuple)
    step: tuple[Step, ...] = field(default_factory=tuple)
    scope: tuple[ScopeItem, ...] = field(default_factory=tuple)
    card: tuple[Card, ...] = field(default_factory=tuple)

    def source_named(self, name: str) -> Source:
        """The source with this id."""
        return next(source for source in self.source if source.id == name)

    def texts(self) -> list[str]:
        """Every text that may hold placeholders."""
        found = []
        for question in self.question:
            found += [question.answer, *(e.text for e in (*question.supporting, *question.opposing))]
            found += [text for run in question.run for text in (run.shows, run.measured)]
        return found

    def commands(self) -> list[str]:
        """Every command line that the lesson names, each once."""
        named = [words for question in self.question for run in question.run for words in (run.command, run.needs)]
        named += [words for item in self.scope for words in (item.command, item.needs)]
        quoted = [code for text in self.texts() for code in re.findall(r"`(jepalab [^`]+)`", text)]
        return list(dict.fromkeys(words for words in [*named, *quoted] if words))


@cache
def read_content(file: Path = FILE) -> Content:
    """The lesson's content. ValueError with the place and the remedy where something is missing or does not fit."""
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file.name} is not TOML: {error}.") from error
    return content_of(raw)


def content_of(raw: Mapping[str, Any]) -> Content:
    """The same of a mapping as TOML gives it."""
    parts: dict[str, Callable[[Any, str], Any]] = {
        "source": lambda each, where: _make(Source, each, where),
        "question": _question,
        "step": lambda each, where: _make(Step, each, where),
        "scope": lambda each, where: _make(ScopeItem, each, where),
        "card": lambda each, where: _make(Card, each, where),
    }
    made = {
        name: tuple(read(each, f"{name} {number}") for number, each in enumerate(raw.get(name, []), 1))
        for name, read in parts.items()
    }
    content = _make(Content, {**raw, **made}, "the lesson")
    check(content)
    return content


def _question(raw: Mapping[str, Any], where: str) -> Question:
    nested = {"supporting": Evidence, "opposing": Evidence, "run": Run}
    made = {
        name: tuple(_make(kind, each, f"{where}, {name}") for each in raw.get(name, []))
        for name, kind in nested.items()
    }
    return _make(Question, {**raw, **made}, where)


def _make(kind: Callable[..., Made], raw: Mapping[str, Any], where: str) -> Made:
    """A dataclass of these entries; every entry is known, of its type, and not empty."""
    wanted = {each.name: each for each in fields(kind)}  # pyrefly: ignore[bad-argument-type]
    if unknown := sorted(raw.keys() - wanted.keys()):
        raise ValueError(f"Content, {where}: {unknown[0]!r} is not known; known are {', '.join(wanted)}.")
    made: dict[str, Any] = {}
    for name, each in wanted.items():
        has_default = each.default is not MISSING or each.default_factory is not MISSING
        if name not in raw and has_default:
            continue
        value = raw.get(name, "")
        value = tuple(value) if isinstance(value, list) else value
        value = float(value) if each.type == "float" and isinstance(value, int) else value
        expected = {"str": str, "bool": bool, "float": float}.get(str(each.type), tuple)
        if not isinstance(value, expected) or (value in ("", ()) and not has_default):
            raise ValueError(f"Content, {where}: wanted {name} as {each.type}, got {str(value)[:60]!r}.")
        made[name] = value
    return kind(**made)


# Completeness --------------------------------------------------------------------------------------------------------


def check(content: Content) -> None:
    """ValueError where the lesson lacks something that it promises."""
    wanted = (
        (len(content.question) == NUM_QUESTIONS, f"{NUM_QUESTIONS} questions", len(content.question)),
        (sum(s.classic for s in content.step) == NUM_CLASSICS, f"{NUM_CLASSICS} classic steps", "another number"),
        (len(content.step) >= LEAST_STEPS, f"at least {LEAST_STEPS} steps", len(content.step)),
        (sum(s.fixed for s in content.scope) == NUM_FIXED, f"{NUM_FIXED} fixed scope items", "another number"),
        (len(content.scope) >= LEAST_SCOPES, f"at least {LEAST_SCOPES} scope items", len(content.scope)),
        (len(content.card) >= LEAST_CARDS, f"at least {LEAST_CARDS} cards", len(content.card)),
    )
    for holds, what, got in wanted:
        _hold(holds, f"wanted {what}, got {got}")
    _hold_unique([source.id for source in content.source], "source")
    _hold_unique([question.id for question in content.question], "question")
    _hold_unique([step.step for step in content.step], "step")
    _hold_unique([item.id for item in content.scope], "scope item")
    _hold_unique([card.front for card in content.card], "card")
    for question in content.question:
        _check_question(question, {source.id for source in content.source})
    cited = {name for q in content.question for e in (*q.supporting, *q.opposing) for name in e.sources}
    cited.add("lecun-2022")  # the position paper stands behind the whole page
    for source in content.source:
        _hold(source.id in cited, f"source {source.id} is cited nowhere; cite it or take it out")
        _hold(bool(source.address) or source.secondary, f"source {source.id}: wanted arxiv or url")
        _hold(not source.url or source.url.startswith("https://"), f"source {source.id}: wanted an https address")
    for item in content.scope:
        _check_scope(item)


def _check_question(question: Question, known: Collection[str]) -> None:
    where = f"question {question.id}"
    _hold(len(question.evidence) == 2, f"{where}: wanted two headings in evidence, for and against")
    _hold(len(question.points) >= LEAST_POINTS, f"{where}: wanted at least {LEAST_POINTS} points")
    for evidence in (*question.supporting, *question.opposing):
        unknown = [name for name in evidence.sources if name not in known]
        _hold(not unknown, f"{where}: there is no source {', '.join(unknown)}")
        if not evidence.sources:
            _hold_no_typed_figure(evidence.text, f"{where}: evidence without a source")
    for run in question.run:
        _hold(run.minutes > 0, f"{where}: wanted the minutes that {run.command} takes")
        _hold_no_typed_figure(run.shows + run.measured, f"{where}: what {run.command} shows")


def _hold_no_typed_figure(text: str, where: str) -> None:
    typed = MEASURED.search(re.sub(r"`[^`]*`", "", PLACEHOLDER.sub("", text)))
    _hold(not typed, f"{where} has a number that was typed by hand: {text[:80]!r}. Use a placeholder")


def _check_scope(item: ScopeItem) -> None:
    where = f"scope item {item.id}"
    _hold(item.scope in SCOPES, f"{where}: wanted scope in or out, got {item.scope!r}")
    for name in (item.by, *item.also):
        _hold(name in SCOPES[item.scope], f"{where}: {name!r} is none of {', '.join(SCOPES[item.scope])}")
    _hold(bool(item.command) == (item.scope == "in"), f"{where}: a command answers what is in scope, and only that")
    _hold(item.needs in item.reason, f"{where}: its reason has to say that {item.needs} comes first")


def _hold_unique(names: Sequence[str], what: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    _hold(not twice, f"{what} {', '.join(twice)} is there twice")


def _hold(holds: bool, otherwise: str) -> None:
    if not holds:
        raise ValueError(f"The lesson's content is not complete: {otherwise}.")
