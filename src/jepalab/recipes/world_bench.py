"""What every world model shares: where it learns, the recorded walks, the first weights, the schedule."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cache, cached_property
from math import prod
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor

from jepalab.backbones.causal_predictor import CausalPredictor
from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.decoder import PixelDecoder
from jepalab.backbones.felt import Standardised
from jepalab.backbones.inverse import InverseHead
from jepalab.backbones.predictor import GRUDynamics, MarkovPredictor, ResidualDynamics
from jepalab.backbones.reward import RewardHead
from jepalab.backbones.unrolling import FromEvery, Unroll
from jepalab.data.trajectories import Split, TrajectoryStream
from jepalab.dist import Precision, seeded
from jepalab.envs.scenes import LayoutName, LightName, TelevisionName, make_two_rooms
from jepalab.envs.two_rooms import RoomState, TwoRooms
from jepalab.envs.two_rooms_walks import random_walks
from jepalab.envs.walks import Trajectories, replay
from jepalab.recipes.stored_world import Stored, World
from jepalab.run import Run
from jepalab.types import Batch, Objective

DynamicsName = Literal["residual", "gru", "causal"]
NUM_ACTIONS = 2
HELD_OUT = 1_000  # trajectories of the validation and of the test split, each
MEASURED = 256 * 2 * 65**2  # pixels of a frame, times clips, from which their mean and deviation are told


@dataclass(frozen=True)
class Walks:
    """Recorded walks in Two Rooms, drawn when they are read: positions are stored, pictures are not."""

    rooms: TwoRooms
    walked: Trajectories[RoomState]

    def num_windows(self, num_frames: int) -> int:
        return len(self.walked) * max(0, self.walked.position.shape[1] - num_frames + 1)

    def read(self, windows: Int[Tensor, " b"], num_frames: int) -> Batch:
        """Windows numbered trajectory by trajectory; the factors are the environment's, frame by frame."""
        return self.show(windows, num_frames, self.states(windows, num_frames))

    def show(self, windows: Int[Tensor, " b"], num_frames: int, shown: RoomState) -> Batch:
        """What `read` gives, of those windows' `states`."""
        rows, first = self._place(windows, num_frames)
        shape = (len(windows), num_frames)
        place = first[:, None] + torch.arange(num_frames - 1)
        return Batch(
            x=self.rooms.render(shown).unflatten(0, shape),
            action=self.walked.action[rows].take_along_dim(place[..., None], 1),
            factors={name: value.unflatten(0, shape) for name, value in self.rooms.factors(shown).items()},
        )

    def states(self, windows: Int[Tensor, " b"], num_frames: int) -> RoomState:
        """The states at the frames of those windows, window by window."""
        rows, first = self._place(windows, num_frames)
        start, which = self.walked.start[rows], rows
        if start.screen is None:
            states = self._without_screens
        else:  # as large as pictures, so that they are not kept
            action = self.walked.action[rows, : int(first.max()) + num_frames - 1]
            states, which = _by_name(replay(self.rooms, start, action)), torch.arange(len(rows))
        place = first[:, None] + torch.arange(num_frames)
        return start.with_tensors({name: each[which[:, None], place].flatten(0, 1) for name, each in states.items()})

    @cached_property
    def _without_screens(self) -> dict[str, Tensor]:
        """Every state of every walk, replayed once."""
        return _by_name(replay(self.rooms, self.walked.start, self.walked.action))

    def _place(self, windows: Int[Tensor, " b"], num_frames: int) -> tuple[Int[Tensor, " b"], Int[Tensor, " b"]]:
        """In which trajectory each window lies, and at which of its frames it begins."""
        per = self.walked.position.shape[1] - num_frames + 1
        return windows // per, windows % per


def _by_name(states: list[RoomState]) -> dict[str, Tensor]:
    """Each tensor of the states, [walks, times, ...]."""
    flat = [state.tensors() for state in states]
    return {name: torch.stack([each[name] for each in flat], 1) for name in flat[0]}


@dataclass(frozen=True)
class Rooms:
    """Two Rooms and the walks that are recorded in it.

    Args:
        layout: "fixed" (a door 13 pixels wide), "narrow-door" (9, as in the papers), "random-door" (drawn for each
            episode) or "random-wall" (wall and door are); "random-wall-narrow-door" has one of 9 pixels.
        television: what the television shows: "none", "noise" (new at every frame), "video" (each frame goes on from
            the last), "episode" (one picture an episode) or "dataset" (one picture for all).
        screen_share: of the picture that the television covers.
        light: "none", "idle" (there are two doors and a light that means nothing) or "door" (it decides which of two
            doors is open); "idle-switch" and "door-switch" are changed by stepping onto them, too.
        flip: probability that the light changes when it may.
        hold: steps from one time that the light may change to the next.
        num_walks: recorded trajectories of 17 frames to train on.
    """

    layout: LayoutName = "fixed"
    television: TelevisionName = "none"
    screen_share: float = 0.1
    light: LightName = "none"
    flip: float = 0.0
    hold: int = 1
    num_walks: int = 20_000

    def env(self) -> TwoRooms:
        return make_two_rooms(
            layout=self.layout,
            television=self.television,
            screen_share=self.screen_share,
            light=self.light,
            flip=self.flip,
            hold=self.hold,
        )

    def picture_shape(self) -> tuple[int, int, int]:
        return self.env().picture_shape

    def num_actions(self) -> int:
        return NUM_ACTIONS

    def felt(self) -> Standardised | None:
        """Nothing: a picture shows all there is."""
        return None

    def walks(self, split: Split, seed: int) -> Walks:
        """The recorded walks of a split, a pure function of the seed; splits share no walk."""
        return _walks(self, split, seed)


@cache
def _walks(world: Rooms, split: Split, seed: int) -> Walks:
    key = f"walks {split} {seed}".encode()
    generator = torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(key).digest()[:7], "big"))
    env = world.env()
    return Walks(env, random_walks(env, world.num_walks if split == "train" else HELD_OUT, generator))


@dataclass(frozen=True)
class WorldTraining:
    """How long and how fast; the same fields for every arm.

    Args:
        steps: optimizer steps of the run.
        batch_size: windows in a step.
        num_frames: that a window has.
        ahead: steps that a model looks ahead in training, from every frame.
        history: frames up to there that dynamics with memory read first; no plan gives a model more, see `Planning`.
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW, on matrices only.
        precision: of matrix products; "auto" is bf16 where the device multiplies it, else fp32.
    """

    steps: int = 2_000
    batch_size: int = 64
    num_frames: int = 13
    ahead: int = 8
    history: int = 1
    lr: float = 2e-3
    weight_decay: float = 1e-5
    precision: Precision = "auto"


@dataclass(frozen=True)
class WorldNetwork:
    """The networks of every arm.

    Args:
        dim: width of the embedding.
        widths: channels after each layer of the encoder, on cells of 4 x 4 pixels that each but the first halves.
        dynamics: "residual" (a perceptron), "gru" (a cell whose memory is the embedding) or "causal" (a transformer).
        dynamics_width: of the residual perceptron and of the transformer.
    """

    dim: int = 64
    widths: tuple[int, ...] = (64, 64, 64)
    dynamics: DynamicsName = "residual"
    dynamics_width: int = 256


@dataclass(frozen=True)
class WorldBench:
    """What every arm of a seed shares: the recorded walks, the encoder's first weights, the training settings.

    Args:
        world: the rooms and the walks, where no episodes are given.
        stored: episodes to learn from in their place.
        network: of every arm.
        training: how long and how fast.
        seed: of the walks and of the weights.
    """

    world: Rooms = field(default_factory=Rooms)
    stored: Stored = field(default_factory=Stored)
    network: WorldNetwork = field(default_factory=WorldNetwork)
    training: WorldTraining = field(default_factory=WorldTraining)
    seed: int = 0

    @property
    def source(self) -> World:
        """Where every arm learns."""
        return self.world if self.stored.data is None else self.stored

    def stream(self) -> TrajectoryStream:
        splits: tuple[Split, ...] = ("train", "validation", "test")
        recorded = {split: self.source.walks(split, self.seed) for split in splits}
        t = self.training
        return TrajectoryStream(recorded, num_frames=t.num_frames, clips_per_batch=t.batch_size, seed=self.seed)

    def encoder(self, another: int = 0) -> ConvEncoder:
        """The same first weights for every arm of this seed, normalised by this world's pixels; or another's."""
        mean, std = self._statistics()
        channels, size, _ = self.source.picture_shape()
        with seeded(self.seed + 1_000 * another):
            return ConvEncoder(
                size, channels=channels, dim=self.network.dim, cell=4, widths=self.network.widths, mean=mean, std=std
            )

    def scale(self) -> list[float]:
        """The standard deviation of each channel: the units in which pixels are compared."""
        return self._statistics()[1]

    def felt(self) -> Standardised | None:
        """What stands beside the embedding, where the model is given what the agent feels."""
        return self.source.felt()

    def predictor(self, *, felt: Standardised | None = None) -> MarkovPredictor | CausalPredictor:
        """The dynamics of every arm; ValueError for an arm that does not feel where it would be given more."""
        if felt is None and self.stored.proprio:
            raise ValueError("This recipe's model only sees, it does not feel; leave out --proprio.")
        dim, width = self.network.dim + (felt.dim if felt else 0), self.network.dynamics_width
        num_actions = self.source.num_actions()
        with seeded(self.seed + 1):
            if self.network.dynamics == "gru":
                return GRUDynamics(dim, num_actions=num_actions)
            if self.network.dynamics == "causal":
                return CausalPredictor(dim, num_actions=num_actions, width=width, depth=3, num_heads=4)
            return ResidualDynamics(dim, num_actions=num_actions, width=width)

    def decoder(self, width: int = 16) -> PixelDecoder:
        channels, size, _ = self.source.picture_shape()
        with seeded(self.seed + 2):
            return PixelDecoder(self.network.dim, size=size, channels=channels, width=width)

    def inverse(self) -> InverseHead:
        with seeded(self.seed + 3):
            return InverseHead(self.network.dim, num_actions=self.source.num_actions(), width=256)

    def reward(self) -> RewardHead:
        with seeded(self.seed + 4):
            return RewardHead(self.network.dim)

    def unroll(self) -> Unroll:
        return FromEvery(self.training.ahead, history=self.training.history)

    def run(self, objective: Objective) -> Run:
        t = self.training
        return Run(
            objective=objective,
            stream=self.stream(),
            steps=t.steps,
            lr=t.lr,
            weight_decay=t.weight_decay,
            warmup=0.1,
            precision=t.precision,
            seed=self.seed,
        )

    def _statistics(self) -> tuple[list[float], list[float]]:
        """Mean and deviation of each channel; of large pictures fewer are looked at."""
        return self.stream().statistics(max(16, min(256, MEASURED // prod(self.source.picture_shape()))))
