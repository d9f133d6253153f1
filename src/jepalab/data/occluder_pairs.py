"""Matched clips for violation of expectation, in the manner of IntPhys (Riochet et al. 2018, arXiv 1803.07616).

They come in quartets: two courses, each with the ending that physics gives it and with the other's. Over a quartet the
two possible and the two impossible clips then have the same frames and the same changes from one to the next, under any
nuisance; only which ending follows which beginning differs. The swap is made while all that it concerns is hidden. In
"solidity" and "gravity" a wall or the floor tells which ending is possible; there, what moves is the same, frame by
frame. A pair, one clip possible and one not, also has the same sum of squared changes as long as nothing is added.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from jepalab.data.occluder_draws import LAST, MARGINS, Draws
from jepalab.data.occluder_scenes import (
    BACKGROUND,
    CONTRAST,
    NUM_TEXTURES,
    SHAPES,
    SIZE,
    SOLID,
    Scenes,
    area,
    bounce,
    drop,
)

CONCEPTS = ("permanence", "continuity", "solidity", "shape", "gravity")
LEGAL = ("background", "look", "flicker")


class Quartets(NamedTuple):
    """n quartets, two pairs in each: `plain` follows its history, `changed` is the same up to the swap.

    lawful    what physics foretells; `plain`, but without a flicker of the light.
    inertial  what a clip becomes if everything moves on at constant velocity, through walls and without weight.
    """

    plain: Float[Tensor, "n 2 t h w"]
    changed: Float[Tensor, "n 2 t h w"]
    lawful: Float[Tensor, "n 2 t h w"]
    inertial: Float[Tensor, "n 2 t h w"]


def quartets(what: str, draws: Draws, gravity: float) -> Quartets:
    """Quartets of a concept out of CONCEPTS or of a legal change out of LEGAL, or of "blink"."""
    return _gravity(draws, gravity) if what == "gravity" else MADE[what](draws)


def _behind_a_bar(draws: Draws) -> tuple[Scenes, Bool[Tensor, " m"], Int[Tensor, " m"]]:
    """A shape that passes behind a bar at rest: scenes, which of them fit, and when the bar hides it."""
    radius = draws.ints(3, 4)
    half = radius + draws.ints(1, 3)
    room = half + 2 * radius + 1  # for the bar's half and a whole shape beside it
    middle = draws.ints(room, LAST - room)
    margin, speed = draws.one_of(*MARGINS), draws.ints(2, 3)
    moment = draws.late()
    row = draws.ints(margin + radius, LAST - margin - radius)
    column = bounce(middle, speed, radius, LAST - radius, draws.time(moment))
    clear = (half + radius + 1)[:, None]
    before, after = draws.time(moment) < 0, draws.time(moment) > 0
    apart = column - middle[:, None]
    fits = (((apart <= -clear) & before).sum(1) >= 2) & (((apart >= clear) & after).sum(1) >= 2)
    fits &= apart[:, -1] >= clear[:, 0]
    scenes = replace(
        draws.scenes(),
        centre=torch.stack([column, row[:, None].expand_as(column)], -1)[:, None],
        kind=draws.ints(0, len(SHAPES) - 1)[:, None],
        radius=radius[:, None],
        tone=draws.one_of(0.0, 1.0)[:, None],
        present=torch.ones(draws.num_candidates, 1, dtype=torch.bool),
        bar=middle[:, None].expand_as(column),
        bar_half=half,
        bar_margin=margin,
        bar_tone=draws.one_of(0.25, 0.75),
    )
    return scenes, fits, moment


def _continuity(draws: Draws) -> Quartets:
    """It leaves the bar in another lane than it went in."""
    one, fits, moment = _behind_a_bar(draws)
    row, nearest = one.centre[:, 0, 0, 1], one.bar_margin + one.radius[:, 0]
    lanes_apart = draws.ints(nearest, LAST - nearest) - row
    fits &= lanes_apart.abs() > 2 * one.radius[:, 0]
    other = replace(one, centre=one.centre + lanes_apart[:, None, None, None] * torch.tensor([0, 1]))
    return _swap(draws, fits, "continuity", moment, one, other)


def _shape(draws: Draws) -> Quartets:
    """Another shape comes out than went in, of the same height."""
    one, fits, moment = _behind_a_bar(draws)
    other = replace(one, kind=draws.ints(0, len(SHAPES) - 1)[:, None])
    fits &= (one.kind != other.kind)[:, 0]
    return _swap(draws, fits, "shape", moment, one, other)


def _look(draws: Draws) -> Quartets:
    """White goes in, black comes out: the lighting may do that. The background lies midway."""
    one, fits, moment = _behind_a_bar(draws)
    other = replace(one, tone=1 - one.tone)
    return _swap(draws, fits, "look", moment, one, other)


def _passing_bar(draws: Draws) -> tuple[Scenes, Bool[Tensor, " m"], Int[Tensor, " m"]]:
    """A bar that passes a column at rest: scenes, which of them fit, and when it lies over that column."""
    middle, half, radius = draws.ints(4, LAST - 4), draws.ints(5, 7), draws.ints(3, 4)
    margin, speed = draws.one_of(*MARGINS), draws.ints(2, 3)
    moment = draws.late()
    row = draws.ints(margin + radius, LAST - margin - radius)
    clear = half + radius + 1
    fits = (speed * (moment - 2) >= clear) & (speed * (draws.num_frames - 2 - moment) >= clear)
    scenes = replace(
        draws.scenes(),
        centre=torch.stack([middle, row], -1)[:, None, None].expand(-1, 1, draws.num_frames, 2),
        kind=draws.ints(0, len(SHAPES) - 1)[:, None],
        radius=radius[:, None],
        bar=middle[:, None] + speed[:, None] * draws.time(moment),
        bar_half=half,
        bar_margin=margin,
        bar_tone=draws.one_of(0.25, 0.75),
    )
    return scenes, fits, moment


def _permanence(draws: Draws) -> Quartets:
    """A bar passes over a shape at rest, or over none; behind it, one may vanish, or come from nowhere.

    The bar's grey lies midway between shape and background, so it costs the same to uncover either.
    """
    one, fits, moment = _passing_bar(draws)
    tone = draws.one_of(0.0, 1.0)[:, None]
    one = replace(one, present=torch.ones_like(one.present), tone=tone, bar_tone=(tone[:, 0] + BACKGROUND) / 2)
    return _swap(draws, fits, "permanence", moment, one, replace(one, present=~one.present))


def _background(draws: Draws) -> Quartets:
    """A bar passes over a strip of the background, whose texture is another one afterwards."""
    one, fits, moment = _passing_bar(draws)
    texture, strip_texture = draws.ints(1, NUM_TEXTURES - 1), draws.ints(1, NUM_TEXTURES - 1)
    strip, half = one.centre[:, 0, 0, 0], draws.ints(2, 4)
    one = replace(one, texture=texture, strip_texture=texture, strip=strip, strip_half=half)
    one = replace(one, bar_margin=torch.zeros_like(half))  # the strip reaches from top to bottom
    other = replace(one, strip_texture=strip_texture)
    return _swap(draws, fits & (texture != strip_texture), "background", moment, one, other)


def _solidity(draws: Draws) -> Quartets:
    """Behind the bar it is thrown back where no wall is, or goes on where one is: the wall shows above and below.

    The bar's middle is where the shape is when it meets the wall, so both endings mirror one another.
    """
    middle, half, radius = draws.ints(12, 19), draws.ints(5, 7), draws.ints(3, 4)
    speed, moment, margin = draws.ints(2, 3), draws.late(), MARGINS[1]
    row = draws.ints(margin + radius, LAST - margin - radius)
    time, later = draws.time(moment), draws.num_frames - 1 - moment
    back = bounce(middle, speed, radius, middle, time)
    on = torch.where(time > 0, middle[:, None] + speed[:, None] * time, back)
    reach = torch.minimum(middle - radius, LAST - radius - middle)
    fits = (half >= radius + SOLID) & (speed * later <= reach) & (speed * moment < 2 * (middle - radius))
    fits &= ((middle[:, None] - back >= (half + radius + 1)[:, None]) & (time < 0)).sum(1) >= 3
    fits &= speed * (later - 1) > half
    wall = middle + radius + 1
    thrown_back = replace(
        draws.scenes(),
        centre=torch.stack([back, row[:, None].expand_as(back)], -1)[:, None],
        kind=draws.ints(0, len(SHAPES) - 1)[:, None],
        radius=radius[:, None],
        tone=draws.one_of(0.0, 1.0)[:, None],
        present=torch.ones(draws.num_candidates, 1, dtype=torch.bool),
        bar=middle[:, None].expand_as(back),
        bar_half=half,
        bar_margin=torch.full_like(half, margin),
        bar_tone=draws.one_of(0.25, 0.75),
        wall=wall,
        solid_tone=draws.one_of(0.125, 0.875),
    )
    through = replace(thrown_back, centre=torch.stack([on, row[:, None].expand_as(on)], -1)[:, None])
    free = replace(through, wall=draws.scenes().wall)
    turned = replace(thrown_back, wall=draws.scenes().wall)
    _, scenes = draws.choose(fits, "solidity", thrown_back, free, through, turned)
    clips = [each.draw() for each in scenes]
    plain = _two(clips[0], clips[1])
    return Quartets(plain, _two(clips[2], clips[3]), plain, _two(clips[2], clips[1]))


def _gravity(draws: Draws, gravity: float) -> Quartets:
    """From where it stands still in the air, it falls away from the floor. The floor is below, or above."""
    apex, moment, radius = draws.ints(8, LAST - 8), draws.late() - 1, draws.ints(3, 4)
    time = draws.time(moment)
    column = draws.ints(3, LAST - 3)[:, None] + draws.ints(1, 2)[:, None] * time
    fallen, after = drop(time, gravity), time > 0
    deepest = fallen.amax(1)
    fits = (apex - deepest >= SOLID + radius) & (apex + deepest <= LAST - SOLID - radius)
    fits &= (column.amin(1) >= radius) & (column.amax(1) <= LAST - radius)
    fits &= (fallen[:, -1] >= 5) & (fallen[:, 0] >= 2)
    one = replace(
        draws.scenes(),
        kind=draws.ints(0, len(SHAPES) - 1)[:, None],
        radius=radius[:, None],
        tone=draws.one_of(0.0, 1.0)[:, None],
        present=torch.ones(draws.num_candidates, 1, dtype=torch.bool),
        solid_tone=draws.one_of(0.125, 0.875),
    )

    def course(floor: int, fallen: Tensor) -> Scenes:
        centre = torch.stack([column, apex[:, None] + floor * fallen], -1)[:, None]
        return replace(one, centre=centre, floor=torch.full_like(apex, floor))

    endings = fallen, torch.where(after, -fallen, fallen), torch.where(after, 0, fallen)
    courses = [course(floor, ending) for ending in endings for floor in (1, -1)]
    _, scenes = draws.choose(fits, "gravity", *courses)
    clips = [each.draw() for each in scenes]
    return Quartets(*(_two(clips[i], clips[i + 1]) for i in (0, 2, 0, 4)))


def _flickers_and_blinks(draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
    """A shape and a bar at rest, black and white [n 2 t h w]; the same when the light flickers; and when it blinks.

    For one frame the top of the picture is lighter (or darker), on four times as many pixels as the shape has and by
    half its contrast; or the shape is gone. Both change the picture as much.
    """
    middle, half, radius = draws.ints(4, LAST - 4), draws.ints(5, 7), draws.ints(3, 4)
    bar, moment, present = draws.ints(0, LAST), draws.late(), torch.ones(draws.num_candidates, 1, dtype=torch.bool)
    one = replace(
        draws.scenes(),
        centre=torch.stack([middle, draws.ints(4, LAST - 4)], -1)[:, None, None].expand(-1, 1, draws.num_frames, 2),
        kind=draws.ints(0, len(SHAPES) - 1)[:, None],
        radius=radius[:, None],
        present=present,
        bar=bar[:, None].expand(-1, draws.num_frames),
        bar_half=half,
        bar_margin=draws.one_of(*MARGINS),
        bar_tone=draws.one_of(0.25, 0.75),
    )
    scenes = one, replace(one, tone=1 - one.tone), replace(one, present=~present)
    index, (black, white, bare) = draws.choose((bar - middle).abs() > half + radius, "flicker", *scenes)
    still = _two(black.draw(), white.draw())
    now = (draws.time(moment)[index] == 0)[:, None, :, None, None]
    num_lit = 4 * area(black.kind[:, 0], black.radius[:, 0])[:, None, None, None, None]
    light = 2 * CONTRAST * (torch.arange(SIZE**2).unflatten(0, (SIZE, SIZE)) < num_lit)
    flicker = still + now * light * torch.tensor([1, -1])[:, None, None, None]
    return still, flicker, torch.where(now, bare.draw()[:, None], still)


def _flicker(draws: Draws) -> Quartets:
    """A legal change in plain view."""
    still, flicker, _ = _flickers_and_blinks(draws)
    return Quartets(still, flicker, still, still)


def _blink(draws: Draws) -> Quartets:
    """In plain view the shape is gone for a frame, which cannot be, against a flicker of the light, which can."""
    still, flicker, blink = _flickers_and_blinks(draws)
    return Quartets(flicker, blink, still, still)


def _swap(
    draws: Draws, fits: Bool[Tensor, " m"], what: str, moment: Int[Tensor, " m"], one: Scenes, other: Scenes
) -> Quartets:
    """Two courses whose pictures are equal at the moment, and the same two with their endings swapped."""
    index, scenes = draws.choose(fits, what, one, other)
    a, b = (each.draw() for each in scenes)
    moment, rows = moment[index], torch.arange(len(index))
    assert torch.equal(a[rows, moment], b[rows, moment]), "what is swapped must be hidden then"
    later = (draws.time(moment) >= 0)[:, :, None, None]
    plain = _two(a, b)
    return Quartets(plain, _two(torch.where(later, b, a), torch.where(later, a, b)), plain, plain)


def _two(a: Float[Tensor, "n t h w"], b: Float[Tensor, "n t h w"]) -> Float[Tensor, "n 2 t h w"]:
    return torch.stack([a, b], 1)


MADE: dict[str, Callable[[Draws], Quartets]] = {
    "permanence": _permanence,
    "continuity": _continuity,
    "solidity": _solidity,
    "shape": _shape,
    "background": _background,
    "look": _look,
    "flicker": _flicker,
    "blink": _blink,
}
