"""What every arm on clips shares: the footage, tubelets, and V-JEPA's masks."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jepalab.backbones.masked_denoiser import MaskedDenoiser
from jepalab.compare.cells import Judging
from jepalab.data.atari import atari_clips
from jepalab.data.augmentation import Augmentation, Crop
from jepalab.data.clips import Clips, open_clips
from jepalab.data.images import Images, open_images
from jepalab.data.motions import motion_clips
from jepalab.data.nuisance import Nuisance
from jepalab.data.sample_stream import SampleStream
from jepalab.instruments.label_efficiency import label_efficiency
from jepalab.instruments.layers import layer_sweep
from jepalab.instruments.likelihood import BITS, bits_per_dimension
from jepalab.instruments.recognition import recognition
from jepalab.instruments.sample_geometry import sample_geometry
from jepalab.masks.blocks import Blocks
from jepalab.masks.causal import DrawnPast
from jepalab.masks.random import RandomTubes
from jepalab.masks.tubes import Tubes
from jepalab.progress import count_items
from jepalab.recipes.idle_flags import refuse_idle_flags
from jepalab.recipes.image_bench import subjects_where_labelled
from jepalab.recipes.patch_bench import Network, PatchBench, Schedule
from jepalab.recipes.remembered import once_here
from jepalab.types import MaskSampler

CLIP_NETWORK = Network(patch=4, width=128, depth=4, num_heads=4, head_width=64, head_depth=2)
ClipSampler = Literal["multi-block", "causal-multi-block", "blocks", "random", "causal"]


@dataclass(frozen=True)
class Footage:
    """Where the clips come from.

    Args:
        data: a folder of video files or of folders of frames (class sub-folders or none), or clips in a .npy file;
            without it, the benchmark of motion classes.
        labels: a CSV of file,label; otherwise labels come from sub-folders. A third column called group, subject or
            the like says whom or what a video shows: no group is in two splits.
        label_column: of that CSV, where it is not called label, class, target or the like.
        group_column: of that CSV, where it is not called group, subject, person or the like.
        game: in place of data, an Atari game, such as pong, that chance plays: clips are labelled by the action (needs
            jepalab[atari]).
        size: frames are cut square and resized to this many pixels.
        num_frames: how many frames a clip has.
        stride: frames of the video from one frame of a clip to the next.
        fps: frames a second of a clip, in place of the stride.
        clips_per_video: cut out of each video, evenly spread.
        flip: share of training clips that are mirrored; 0 where left and right are different things.
        objects: pictures that move in the motion classes, as `jepalab compare images` takes them; without them,
            handwritten digits.
        backgrounds: pictures that lie behind the moving ones; without them, those of objects.
        strength: of a nuisance over the motion classes, which adds values in [0, strength]; 0 for none.
        persistence: of the nuisance: 0 is new at every frame, 1 fixed for the clip.
        coherence: of the nuisance: each pixel on its own, 7 x 7 cells, or one grating.
        share: of the frame's area that the nuisance covers.
        drift: of the background of the motion classes, in frame widths.
        cache: where decoded clips are kept; decoding happens once.
    """

    # What is not in the repr does not tell settings apart: a comparison goes on where its data was moved to.
    data: Path | None = field(default=None, repr=False)
    labels: Path | None = field(default=None, repr=False)
    label_column: str | None = field(default=None, repr=False)
    group_column: str | None = field(default=None, repr=False)
    game: str = field(default="", repr=False)
    size: int = 32
    num_frames: int = 8
    stride: int = 2
    fps: float | None = None
    clips_per_video: int = 1
    flip: float = 0.0
    objects: Path | None = field(default=None, repr=False)
    backgrounds: Path | None = field(default=None, repr=False)
    strength: float = 0.0
    persistence: float = 0.0
    coherence: Literal["pixel", "patch", "texture"] = field(default="patch", repr=False)
    share: float = field(default=1.0, repr=False)
    drift: float = 0.0
    cache: Path | None = field(default=None, repr=False)
    digest: Annotated[str, tyro.conf.Suppress] = ""

    def open(self) -> Clips:
        """The decoded or drawn clips, memory-mapped; making them shows its progress."""
        clips = _open(replace(self, digest="", flip=0.0))
        if self.digest and clips.digest != self.digest:
            raise ValueError(
                f"{self.data or self.game or 'The benchmark'} holds other clips (digest {clips.digest[:12]}) than "
                f"those this began with ({self.digest[:12]}). Start anew in another folder (--out)."
            )
        return clips

    def named(self) -> Footage:
        """The same, known by their content: settings on other clips are other settings."""
        return replace(self, digest=self.open().digest)


DRAWN = ("objects", "backgrounds", "strength", "persistence", "coherence", "share", "drift")
CUT = ("labels", "label_column", "group_column", "fps", "clips_per_video")


@once_here
def _open(footage: Footage) -> Clips:
    if footage.game:
        return _play(footage)
    if footage.data is None:
        return _draw_motions(footage)
    refuse_idle_flags(footage, DRAWN, because="with --data your videos are read, and no motions are drawn")
    if footage.fps is not None:
        refuse_idle_flags(footage, ("stride",), because="--fps says which frames are taken")
    with count_items(f"decoding {footage.data}") as progress:
        return open_clips(
            footage.data,
            num_frames=footage.num_frames,
            size=footage.size,
            stride=footage.stride if footage.fps is None else 1,
            fps=footage.fps,
            clips_per_video=footage.clips_per_video,
            labels=footage.labels,
            label_column=footage.label_column,
            group_column=footage.group_column,
            cache=footage.cache,
            progress=progress,
        )


def _play(footage: Footage) -> Clips:
    if footage.data is not None:
        raise ValueError(f"Clips of {footage.game} are played here: give no data with a game.")
    refuse_idle_flags(footage, CUT, because=f"clips of {footage.game} are played and labelled here")
    refuse_idle_flags(footage, DRAWN, because=f"with --game {footage.game} is played, and no motions are drawn")
    with count_items(f"playing {footage.game}") as progress:
        return atari_clips(
            footage.game,
            num_frames=footage.num_frames,
            size=footage.size,
            stride=footage.stride,
            cache=footage.cache,
            progress=progress,
        )


def _draw_motions(footage: Footage) -> Clips:
    refuse_idle_flags(footage, (*CUT, "stride"), because="without --data, motion classes are drawn at their own pace")
    if footage.strength == 0:
        dials = ("persistence", "coherence", "share")
        refuse_idle_flags(footage, dials, because="without --strength there is no nuisance")
    images, behind = (_pictures(footage, place) for place in (footage.objects, footage.backgrounds))
    nuisance = Nuisance(
        strength=footage.strength, persistence=footage.persistence, coherence=footage.coherence, share=footage.share
    )
    with count_items("drawing motions") as progress:
        return motion_clips(
            images,
            backgrounds=behind,
            nuisance=nuisance,
            drift=footage.drift,
            num_frames=footage.num_frames,
            size=footage.size,
            cache=footage.cache,
            progress=progress,
        )


def _pictures(footage: Footage, place: Path | None) -> Images | None:
    if place is None:
        return None
    with count_items(f"decoding {place}") as progress:
        return open_images(place, size=footage.size, cache=footage.cache, progress=progress)


CLIP_JUDGING = Judging(
    instruments=(recognition, layer_sweep, label_efficiency, sample_geometry),
    of_the_first=(bits_per_dimension,),
    subjects=subjects_where_labelled,
    chief=("linear", "logistic", "knn", "linear_best_level", "shot_10", "shots_auc", "rankme", "rankme_centred", BITS),
)


@dataclass(frozen=True)
class ClipBench(PatchBench):
    """What every arm of a seed shares.

    Args:
        network: the encoder and the budget of the heads.
        schedule: how long and how fast.
        seed: of the order of samples and of the weights.
        footage: where the clips come from.
        tubelet: frames of a patch.
    """

    network: Network = field(default_factory=lambda: CLIP_NETWORK)
    schedule: Schedule = field(default_factory=lambda: Schedule(batch_size=64))
    footage: Footage = field(default_factory=Footage)
    tubelet: int = 2

    @property
    def patch(self) -> tuple[int, ...]:
        return self.tubelet, self.network.patch, self.network.patch

    @property
    def grid(self) -> tuple[int, ...]:
        frames, side, patch = self.footage.num_frames, self.footage.size, self.network.patch
        if frames % self.tubelet or frames // self.tubelet < 2 or side % patch or side // patch < 4:
            raise ValueError(
                f"Clips of {frames} frames of {side} pixels cannot be cut into at least 2 x 4 x 4 patches of "
                f"{self.tubelet} frames x {patch} x {patch} pixels; choose a tubelet that divides {frames}, at most "
                f"{frames // 2}, and a patch that divides {side}, at most {side // 4}."
            )
        return frames // self.tubelet, side // patch, side // patch

    def samples(self) -> Clips:
        return self.footage.open()

    def stream(self, *, num_views: int = 1, augmentation: Augmentation | None = None) -> SampleStream:
        crop = Crop(scale=(self.schedule.crop, 1.0), flip=self.footage.flip)
        return SampleStream(
            self.samples(),
            batch_size=self.schedule.batch_size,
            seed=self.seed,
            num_views=num_views,
            augmentation=augmentation or crop,
        )

    def samplers(self, name: ClipSampler, *, hidden: float = 0.75) -> tuple[MaskSampler, ...]:
        """V-JEPA's two kinds of tubes, the same in the first half of the clip with all that follows to be predicted,
        I-JEPA's blocks as tubes, random tubes, or all of the first frames as context of the rest: how many is drawn for
        each batch, so that encoders learn on nearly whole clips, as they are read.

        hidden  share of the places that random tubes hide.
        """
        if name == "multi-block":
            return Tubes.short_range(self.grid), Tubes.long_range(self.grid)
        if name == "causal-multi-block":
            half = self.grid[0] // 2
            both = Tubes.short_range(self.grid), Tubes.long_range(self.grid)
            return tuple(replace(tubes, num_seen_times=half) for tubes in both)
        if name == "blocks":
            return (Blocks(self.grid),)
        if name == "random":
            return (RandomTubes(self.grid, share=hidden),)
        return (DrawnPast(self.grid),)

    def masked_denoiser(self, patch_dim: int) -> MaskedDenoiser:
        """A head that denoises hidden patches, with about as many parameters as the predictor."""
        n = self.network

        def of_width(width: int) -> MaskedDenoiser:
            return MaskedDenoiser(
                n.width, patch_dim, grid=self.grid, width=width, depth=n.head_depth, num_heads=n.num_heads
            )

        return self._head(of_width, step=self.head_step)
