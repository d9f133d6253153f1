"""The nouns of jepalab, each defined once: what a batch is, what an objective is, what a loss term compares.

Axis letters, used in every annotation of the library:

    b batch   t time   n tokens   k kept tokens   g target blocks   m tokens of a block   d embedding width
    p numbers of a patch   l levels of a network
    c channels   h w picture height, width (h is also the horizon of a rollout)   a action   f factor width
    e environments planned at once   s candidates of each
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class Space(StrEnum):
    """Where a loss term compares its two sides. `audit` uses the same words."""

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


@dataclass(frozen=True)
class Batch:
    """What every dataset yields. Time is always axis 1; a still image has t = 1.

    x        [b t c h w] pictures and clips, [b t c] series.
    views    further views of the same content, shaped like x.
    action   [b t-1 a]; action[:, i] leads from x[:, i] to x[:, i + 1].
    proprio  [b t q] what an agent feels of itself (a velocity, joint angles) beside what it sees.
    factors  what is known about each frame, [b t f] (floats) or [b t] (class indices). Instruments read
             them, objectives never do; `Supervised` alone declares the ones it reads.
    """

    x: Float[Tensor, "b t *obs"]
    views: tuple[Float[Tensor, "b t *obs"], ...] = ()
    action: Float[Tensor, "b s a"] | None = None
    proprio: Float[Tensor, "b t q"] | None = None
    factors: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.x.shape[0]

    def map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with `function` applied to every tensor in it."""
        return replace(
            self,
            x=function(self.x),
            views=tuple(function(view) for view in self.views),
            action=None if self.action is None else function(self.action),
            proprio=None if self.proprio is None else function(self.proprio),
            factors={name: function(value) for name, value in self.factors.items()},
        )


@dataclass(frozen=True)
class Mask:
    """Which tokens the encoder sees, and which are to be predicted from them.

    context  [b k] tokens of each sample that are seen, ascending; the same number for every sample.
    target   [b g m] g blocks of tokens, each predicted on its own.
    present  [b g m], False where a block has fewer than m tokens and the entry only fills up; None if all are full.
    """

    context: Int[Tensor, "b k"]
    target: Int[Tensor, "b g m"]
    present: Bool[Tensor, "b g m"] | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> Mask:
        """The mask with `function` applied to every tensor in it."""
        present = None if self.present is None else function(self.present)
        return Mask(function(self.context), function(self.target), present)


@runtime_checkable
class MaskSampler(Protocol):
    """Draws a mask for each of `num_samples` samples, each on its own: no sample's mask depends on another's."""

    @property
    def grid(self) -> tuple[int, ...]: ...

    def __call__(self, num_samples: int, generator: torch.Generator) -> Mask: ...


@runtime_checkable
class Stream(Protocol):
    """Training data as a pure function of the step, so that any run can resume anywhere, exactly."""

    @property
    def clips_per_batch(self) -> int: ...

    @property
    def frames_per_batch(self) -> int: ...

    def batch(self, step: int) -> Batch: ...

    def held_out(self, split: Literal["train", "validation", "test"], num_clips: int) -> Batch:
        """Clips of a split that share no image, motion or nuisance with another split's, for instruments."""
        ...


@runtime_checkable
class MovableStream(Protocol):
    """A stream that can make its batches on a device, so that pictures travel as bytes and are augmented there."""

    def on(self, device: torch.device) -> Stream: ...


@runtime_checkable
class ViewedStream(Protocol):
    """A stream whose generator can show one state under many nuisances."""

    def views(
        self, split: Literal["train", "validation", "test"], num_states: int, num_views: int
    ) -> Float[Tensor, "n q c h w"]: ...


class Encoder(nn.Module, ABC):
    """Raw observations in, one embedding a token out. Normalisation of x lives inside.

    A frame encoder yields one token for each frame (n = t); a patch encoder yields one for each patch.
    num_frames_seen  frames that go into one embedding of a frame encoder; the first ones of a clip have fewer.
    """

    dim: int
    num_frames_seen: ClassVar[int] = 1

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "b t *obs"], keep: Int[Tensor, "b k"] | None = None, causal: bool = False
    ) -> Float[Tensor, "b n d"]:
        """Embeds x. `keep` encodes those tokens only (n = k); `causal` lets a token see earlier ones only."""

    def arguments(self) -> dict[str, Any]:
        """What its constructor was given, as plain JSON: with the weights it makes this encoder again.

        ValueError for an encoder that plain values cannot make, such as an adapter around another network.
        """
        raise ValueError(
            f"{type(self).__name__} does not say what its constructor was given, so it cannot be made again from a "
            "file; write its method `arguments`, or keep its state_dict."
        )


class PatchEncoder(Encoder, ABC):
    """An encoder of patches that can encode some of them, and say what it thinks after each of its blocks.

    grid, patch_dim  patches along each axis, and numbers of one patch.
    """

    grid: tuple[int, ...]
    patch_dim: int

    @abstractmethod
    def patches(self, x: Float[Tensor, "b t *obs"]) -> Float[Tensor, "b n p"]:
        """Normalised patches: what the network reads, and what a pixel objective predicts."""

    @abstractmethod
    def levels(
        self, x: Float[Tensor, "b t *obs"], keep: Int[Tensor, "b k"] | None = None
    ) -> list[Float[Tensor, "b n d"]]:
        """What `forward` would return after each block; the last is what it does return."""


class Loss(NamedTuple):
    """The scalar to minimise and the unweighted terms it is made of."""

    total: Float[Tensor, ""]
    terms: dict[str, Float[Tensor, ""]]


class Objective(nn.Module, ABC):
    """Turns a batch into named scalar terms, and says of each term what it compares.

    A subclass writes `compares`, `terms` and `tiny`, and sets `encoder` and `weights`; nothing else is needed.
    """

    compares: ClassVar[Mapping[str, Space]]
    reads_factors: frozenset[str] = frozenset()
    encoder: Encoder
    weights: dict[str, float]

    def __init__(self) -> None:
        super().__init__()
        self.average: Encoder | None = None

    @abstractmethod
    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """The unweighted terms of the loss on this batch."""

    def after_step(self, progress: float) -> None:
        """Called after each optimizer step; progress runs from 0 to 1. EMA teachers and the like move here."""

    def probed_encoders(self) -> dict[str, Encoder]:
        """The encoders a user could take home, by name; the first is the one reported by default."""
        return {"student": self.encoder} | ({} if self.average is None else {"average": self.average})

    def keep_average(self) -> None:
        """From here on `average` is a copy of the encoder, whose weights `fit` moves.

        Nothing is kept where nothing learns, or where a teacher is such an average already.
        """
        if self.compares and "teacher" not in self.probed_encoders():
            self.average = copy.deepcopy(self.encoder).requires_grad_(False)

    @classmethod
    @abstractmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        """The smallest instance and a batch it accepts, for tests and for the audit."""

    def forward(self, batch: Batch) -> Loss:
        """The weighted sum of the terms. Never overridden."""
        terms = self.terms(batch)
        assert terms.keys() == self.weights.keys(), f"terms {sorted(terms)} but weights {sorted(self.weights)}"
        total = torch.stack([self.weights[name] * value for name, value in terms.items()]).sum()
        return Loss(total, terms)


@runtime_checkable
class WorldModel(Protocol):
    """Encodes observations and imagines what actions do to the embedding. JEPA and generative models alike.

    `rollout` goes on from a history z [b t d], between whose frames the actions `past` [b t-1 a] were taken, under
    s candidates of h further actions each, and gives the h embeddings that would follow under each of them.
    """

    def encode(
        self, x: Float[Tensor, "b t *obs"], proprio: Float[Tensor, "b t q"] | None = None
    ) -> Float[Tensor, "b t d"]: ...

    def rollout(
        self, z: Float[Tensor, "b t d"], past: Float[Tensor, "b p a"], action: Float[Tensor, "b s h a"]
    ) -> Float[Tensor, "b s h d"]: ...


@runtime_checkable
class TaughtWorldModel(WorldModel, Protocol):
    """A world model whose `rollout` answers in another space than that of `encode`: in its teacher's."""

    def encode_target(self, x: Float[Tensor, "b t *obs"]) -> Float[Tensor, "b t d"]:
        """What `rollout` is to foretell of these observations."""
        ...


@dataclass(frozen=True)
class Features:
    """Embeddings extracted once and read by every instrument, beside the batch they come from.

    z  [b n d] float32 on the CPU; n = t for a frame encoder.
    """

    z: Float[Tensor, "b n d"]
    batch: Batch


@dataclass(frozen=True)
class Subject:
    """What an instrument judges: a trained objective, and one of its encoders' features on three disjoint splits.

    views    [n q d] embeddings of n states under q nuisances each, where the data can show them.
    encoder  whose features these are; None for the one that is reported first.
    """

    objective: Objective
    train: Features
    validation: Features
    test: Features
    views: Float[Tensor, "n q d"] | None = None
    encoder: Encoder | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the encoder that is reported first."""
        return self.encoder in (None, next(iter(self.objective.probed_encoders().values())))


Instrument = Callable[[Subject], dict[str, float]]
