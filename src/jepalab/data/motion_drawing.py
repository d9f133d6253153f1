"""Pictures that move over pictures: soft discs, turned and scaled, on a frame whose opposite sides meet."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from jepalab.data.augmentation import resized_crops
from jepalab.data.motion_paths import Tracks

EDGE = 1.5  # pixels over which a disc fades into what is behind it


def draw_objects(
    behind: Float[Tensor, "m c t h w"], pictures: Float[Tensor, "m 2 c s s"], tracks: Tracks
) -> Float[Tensor, "m c t h w"]:
    """Each clip's two discs in front of what is behind, the second over the first, sampled bilinearly.

    A disc is the circle inside a square picture; pictures are best about as large as discs, since a disc much smaller
    than its picture would flicker.
    """
    frames, size = behind, behind.shape[-1]
    pixels = (torch.arange(size) + 0.5) / size
    position, angle, diameter = (values.float() for values in (tracks.position, tracks.angle, tracks.diameter))
    for k in range(2):
        # From the centre, along the shorter way around the frame.
        x, y = ((pixels - centre.unsqueeze(-1) + 0.5) % 1 - 0.5 for centre in position[:, :, k].unbind(-1))
        radius = diameter[:, :, k, None, None] / 2
        cos, sin = angle[:, :, k, None, None].cos() / radius, angle[:, :, k, None, None].sin() / radius
        x, y = x.unsqueeze(2), y.unsqueeze(3)
        place = torch.stack([cos * x + sin * y, cos * y - sin * x], -1)
        # Time and height are one axis here, so that no picture is copied for each frame.
        disc = F.grid_sample(pictures[:, k], place.flatten(1, 2), padding_mode="border", align_corners=False)
        covers = ((radius - place.norm(dim=-1) * radius) * (size / EDGE) + 0.5).clamp_(0, 1)
        frames = frames.lerp(disc.view_as(frames), covers.unsqueeze(1).expand_as(frames))
    return frames


def draw_backgrounds(
    pictures: Float[Tensor, "m c s s"], uniforms: Float[Tensor, "m 4"], *, num_frames: int, size: int, drift: float
) -> Float[Tensor, "m c t h w"]:
    """The window of each picture that a drifting camera sees; the whole picture where `drift` is 0.

    drift  the farthest that the camera goes along an axis in a clip, in frame widths; it goes straight, at constant
           speed, and never leaves the picture.
    """
    velocity = drift * (2 * uniforms[:, :2] - 1)
    start = uniforms[:, 2:] * (drift - velocity.abs()) + (-velocity).clamp_min(0)
    times = torch.linspace(0, 1, num_frames) if drift else torch.zeros(1)
    corner = start.unsqueeze(1) + velocity.unsqueeze(1) * times[:, None]
    window = pictures.shape[-1] / (1 + drift)
    boxes = torch.cat([corner * window, torch.full_like(corner, window)], -1).flatten(0, 1).float()
    mirrored = torch.zeros(len(boxes), dtype=torch.bool)
    seen = resized_crops(pictures.repeat_interleave(len(times), 0), boxes, mirrored, size=size)
    return seen.unflatten(0, (-1, len(times))).transpose(1, 2).expand(-1, -1, num_frames, -1, -1)


def shrink_to_discs(pictures: Float[Tensor, "m 2 c s s"], *, size: int) -> Float[Tensor, "m 2 c d d"]:
    """Pictures at half the frame's width, the middle of the discs' diameters, without aliasing."""
    flat, side = pictures.flatten(0, 1), math.ceil(size / 2)
    boxes = torch.tensor([0.0, 0.0, *pictures.shape[-2:]]).expand(len(flat), 4)
    mirrored = torch.zeros(len(flat), dtype=torch.bool)
    return resized_crops(flat, boxes, mirrored, size=side).unflatten(0, (-1, 2))
