"""Which frames of a video are its clips: so many a second, or one in so many; spread over the whole video."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

# Containers round times, Matroska to milliseconds: a frame that comes this much (seconds) after its time is on time.
LATE = 1e-3


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How clips are cut out of a video.

    num_frames       of a clip.
    stride           frames from one to the next that is kept; 1 where `fps` decides.
    fps              frames a second that are kept, by the frames' timestamps: of each moment the frame that is then on
                     screen, so a slower video shows frames twice. None counts frames.
    clips_per_video  each from the middle of its share of the video. They do not overlap where the video is long enough;
                     a shorter one has overlapping clips, or fewer where some would be the same.
    """

    num_frames: int
    stride: int = 1
    fps: float | None = None
    clips_per_video: int = 1

    def __post_init__(self) -> None:
        if min(self.num_frames, self.stride, self.clips_per_video) < 1:
            raise ValueError(
                "Frames and clips are counted from 1, got "
                f"num_frames={self.num_frames}, stride={self.stride}, clips_per_video={self.clips_per_video}."
            )
        if self.fps is not None and (self.stride != 1 or not 0 < self.fps < np.inf):
            raise ValueError(
                f"Frames are taken by a stride, or at a rate above 0; got stride={self.stride} and fps={self.fps:g}."
            )

    @property
    def settings(self) -> str:
        return f"{self.num_frames} {self.stride} {self.fps} {self.clips_per_video}"

    def clips(self, times: Float[np.ndarray, " n"]) -> Int[np.ndarray, "m t"]:
        """Which frames the clips of a video are made of.

        times  seconds at which its frames are shown, ascending; NaN where nothing tells.

        Raises:
            ValueError: the video is too short for one clip, or has no clock and `fps` asks for one.
        """
        return self._counted(len(times)) if self.fps is None else self._timed(times, self.fps)

    def _counted(self, num: int) -> Int[np.ndarray, "m t"]:
        last = (self.num_frames - 1) * self.stride
        if num <= last:
            raise ValueError(f"too short: it has {num} frames, a clip spans {last + 1}")
        starts = np.floor(self._starts(float(num), float(last + 1))).astype(np.int64).clip(0, num - 1 - last)
        return np.unique(starts)[:, None] + np.arange(self.num_frames) * self.stride

    def _timed(self, times: Float[np.ndarray, " n"], fps: float) -> Int[np.ndarray, "m t"]:
        if not np.isfinite(times).all():
            raise ValueError("has neither timestamps nor a frame rate; take its frames by a stride")
        times = times - times[0]
        last = (self.num_frames - 1) / fps
        if times[-1] + LATE < last:
            raise ValueError(f"too short: it ends after {times[-1]:.2f} s, a clip spans {last:.2f} s")
        starts = self._starts(float(times[-1]) + 1 / fps, last + 1 / fps).clip(0, max(0.0, times[-1] - last))
        # A clip begins with a frame's own time: between two, rounding would decide which frame comes next.
        starts = times[_shown_at(times, starts)]
        found = _shown_at(times, starts[:, None] + np.arange(self.num_frames) / fps)
        return np.unique(found, axis=0)

    def _starts(self, length: float, span: float) -> Float[np.ndarray, " m"]:
        """Where clips of this span begin that lie in the middles of equal shares."""
        return (np.arange(self.clips_per_video) + 0.5) * length / self.clips_per_video - span / 2


def _shown_at(times: Float[np.ndarray, " n"], moments: Float[np.ndarray, "*shape"]) -> Int[np.ndarray, "*shape"]:
    """The frame on screen at each moment."""
    return (np.searchsorted(times, moments + LATE, side="right") - 1).clip(0)
