"""What an audit says: a verdict, the terms behind it, findings and confirmations, as plain data.

Everything here is data without tensors: it can be printed (`text`), drawn (`picture`, `page`) and stored (`to_json`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Space(StrEnum):
    """Where a term compares its two sides; the words of `jepalab.types.Space`, which this package must not import."""

    INPUT = "input"
    FIXED_FEATURE = "fixed-feature"
    TOKEN = "token"
    NOISE = "noise"
    VELOCITY = "velocity"
    FROZEN_EMBEDDING = "frozen-embedding"
    EMA_EMBEDDING = "ema-embedding"
    OWN_EMBEDDING = "own-embedding"
    LABEL = "label"
    ACTION = "action"
    REWARD = "reward"
    STATISTIC = "statistic"


class Process(StrEnum):
    """How a term compares."""

    REGRESS = "regress"
    DENOISE = "denoise"
    CLASSIFY_TOKEN = "classify-token"
    CONTRAST = "contrast"
    MATCH_STATISTIC = "match-statistic"


class TargetLearning(StrEnum):
    """How the network that makes the target learns, if a network makes it."""

    NONE = "none"
    FROZEN = "frozen"
    EMA = "ema"
    JOINT = "joint"


class Family(StrEnum):
    """What kind of learning a term is; the step's verdict is made of the families that drive its encoder."""

    GENERATIVE = "generative"
    JEPA = "JEPA-style"
    INVARIANCE = "invariance"
    CONTRASTIVE = "contrastive"
    DISTILLATION = "distillation"
    SUPERVISED = "supervised"
    REGULARISER = "regulariser"
    UNSUPPORTED = "unsupported"


class ParameterClass(StrEnum):
    """What the audit saw a parameter do over two steps."""

    ONLINE = "online"  # received a gradient and was moved by the optimizer
    EMA = "ema"  # no gradient, yet moved towards an online parameter
    FROZEN = "frozen"  # no gradient, not moved
    IDLE = "idle"  # would take a gradient and got none from any term
    DRIFTING = "drifting"  # no gradient, moved by some other rule


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


@dataclass(frozen=True)
class Place:
    """A line of source."""

    file: str
    line: int
    function: str
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    roots     the inputs whose content it holds ("x", "view2", "noise"), sorted.
    stage     deepest kind of network its content passed: raw, fixed (a hand-made transform), frozen, ema or online;
              "none" where it holds no input at all.
    entry     what the first trained parameter on its way read: raw, fixed, frozen, ema; "none" if there is none.
    gradient  whether a gradient flows back through this side.
    discrete  whether it is an index, a code or a one-hot vector.
    """

    roots: tuple[str, ...]
    stage: str
    entry: str
    gradient: bool
    discrete: bool


@dataclass(frozen=True)
class Term:
    """One comparison (or, with no target, one statistic) in the loss.

    name             what the step itself calls it, else the operation.
    op, place        the operation and its line; `called_from` is the line of the step that led there, if another.
    space            the space of both sides: what is predicted and what it is held against.
    novelty          share of the input the target depends on that the prediction has not seen: 1 for a pure
                     prediction, 0 for auto-encoding and invariance; None where the target depends on no input.
    share            of the gradient that reaches the encoder, averaged over the steps; `early`, `late`: in the first
                     and the last third of them.
    label            in the words of the label table, for example "EMBEDDING-PREDICTION (EMA)".
    ambiguous        what else this could be called, and which fields tell the readings apart.
    anti_collapse    what keeps this term from the constant solution, where both sides are learned.
    """

    name: str
    op: str
    place: Place
    called_from: Place | None
    prediction: Side
    target: Side | None
    space: Space | None
    process: Process
    target_learning: TargetLearning
    stop_gradient: bool
    novelty: float | None
    share: float
    early: float
    late: float
    family: Family
    label: str
    ambiguous: str = ""
    anti_collapse: tuple[str, ...] = ()


@dataclass(frozen=True)
class Average:
    """A slowly moving copy: new = momentum x old + (1 - momentum) x trained, fitted by least squares.

    residual  root mean square of what the fit leaves, over that of the move.
    order     "after" or "before" the optimizer's step, "never" for a copy that does not move.
    """

    copy: str
    source: str
    momentum: float
    residual: float
    order: str


@dataclass(frozen=True)
class Finding:
    """Something a reader should know about the step. `kind` is a short fixed word, `weight` is "error", "warning" or
    "note"."""

    kind: str
    weight: str
    message: str
    place: Place | None = None


@dataclass(frozen=True)
class Confirmation:
    """What a black-box test says of what the trace said. `agrees` is None where the test could not tell."""

    test: str
    term: str
    agrees: bool | None
    message: str


@dataclass(frozen=True)
class Box:
    """A part of the drawn computation: an input, a network, an operation or a comparison.

    kind  "input", "noise", "constant", "online", "ema", "frozen", "mixed" (networks), "operation", "comparison",
          "statistic" or "loss".
    """

    key: str
    label: str
    kind: str
    detail: str = ""


@dataclass(frozen=True)
class Arrow:
    """Content flowing between two boxes. `stopped`: no gradient flows back. `share`: of the encoder's gradient."""

    source: str
    target: str
    stopped: bool = False
    share: float | None = None


@dataclass(frozen=True)
class Drawing:
    """The step's computation, small enough to look at."""

    boxes: tuple[Box, ...] = ()
    arrows: tuple[Arrow, ...] = ()


@dataclass(frozen=True)
class Audit:
    """The answer to: what does this loss compare, and what drives the encoder?

    verdict      one phrase: "generative", "JEPA-style", "mixed (generative 60 %, JEPA-style 40 %)", "unsupported" ...
    mixture      share of each family in the encoder's gradient, statistics left out; sums to one.
    why          two sentences for a student.
    parameters   number of scalar parameters in each class that was observed.
    unexplained  part of the encoder's gradient that no term accounts for (relative norm); near zero when all is right.
    encoder      what the shares refer to.
    """

    verdict: str
    mixture: Mapping[str, float]
    why: str
    terms: tuple[Term, ...]
    averages: tuple[Average, ...] = ()
    findings: tuple[Finding, ...] = ()
    confirmations: tuple[Confirmation, ...] = ()
    parameters: Mapping[str, int] = field(default_factory=dict)
    encoder: str = ""
    num_steps: int = 0
    unexplained: float = 0.0
    drawing: Drawing = Drawing()
    title: str = ""

    question: str = "What does this loss reward, and is that what you want learned?"

    def to_json(self) -> dict[str, Any]:
        """The audit as JSON can hold it."""
        return asdict(self)

    def __str__(self) -> str:
        from jepalab.audit.text import in_words

        return in_words(self)
