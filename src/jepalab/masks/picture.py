"""The coverage of a mask sampler as a picture of its own (SVG): two heat maps with their margins, and example masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from jaxtyping import Float
from torch import Tensor

from jepalab.masks.coverage import Coverage
from jepalab.masks.plane import Plane, mark, plane_of
from jepalab.masks.wording import headline, sentences
from jepalab.types import Mask

NUM_COLOURS = 6  # of targets; more of them take the same ones again
STYLE = """
.masks {
  --surface: #ffffff; --sunken: #eceef1; --ink: #16191d; --muted: #5b636e;
  --seen: #0072b2; --c0: #d55e00; --c1: #009e73; --c2: #b5498a; --c3: #b37d00; --c4: #7a52c7; --c5: #6b4a35;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", Arial, sans-serif;
}
@media screen and (prefers-color-scheme: dark) {
  .masks {
    --surface: #121417; --sunken: #262b31; --ink: #e9ebee; --muted: #a0a8b3;
    --seen: #3f9be0; --c0: #f07a2b; --c1: #1fbf92; --c2: #e58cc0; --c3: #f2b63c; --c4: #b39bf0; --c5: #c49a80;
  }
}
.masks .back { fill: var(--surface); }
.masks text { fill: var(--muted); font-size: 11px; font-variant-numeric: tabular-nums; }
.masks .title { fill: var(--ink); font-size: 17px; font-weight: 650; }
.masks .said { font-size: 12.5px; }
.masks .heading { fill: var(--ink); font-size: 13px; font-weight: 600; }
.masks .empty { fill: var(--sunken); }
.masks .seen { fill: var(--seen); }
.masks .never { stroke: var(--muted); stroke-width: 1; fill: none; }
.masks .edge { fill: none; stroke-width: 1.75; stroke-linecap: square; }
""" + "\n".join(
    f".masks .fill{i} {{ fill: var(--c{i}); }} .masks .edge{i} {{ stroke: var(--c{i}); }}" for i in range(NUM_COLOURS)
)
WIDTH, EDGE = 880.0, 24.0  # of the picture, and the room around what is in it
MARGIN = 34.0  # room for the numbers beside and below a heat map
Length = float | int
Size = tuple[Length, Length]


def draw_coverage(coverage: Coverage, *, name: str) -> str:
    """The picture as markup; `name` of the sampler stands in its title."""
    plane = plane_of(coverage.grid)
    title, said = headline(coverage, name), sentences(coverage)
    root = Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "class": "masks", "role": "img"})
    SubElement(root, "title").text = title
    SubElement(root, "desc").text = " ".join(said)
    SubElement(root, "style").text = STYLE
    back = _rectangle(root, "back", (0, 0), (WIDTH, 0))
    _text(root, "title", (EDGE, 36), title)
    y = 58.0
    for line in said:
        _text(root, "said", (EDGE, y), line)
        y += 18
    y = _draw_maps(root, coverage, plane, top=y + 14)
    y = _draw_examples(root, coverage.examples, plane, top=y + 22)
    height = f"{y + EDGE:g}"
    back.set("height", height)
    root.attrib |= {"viewBox": f"0 0 {WIDTH:g} {height}", "width": f"{WIDTH:g}", "height": height}
    return ElementTree.tostring(root, encoding="unicode")


def _draw_maps(root: Element, coverage: Coverage, plane: Plane, *, top: Length) -> float:
    """Both heat maps, side by side where they fit; where the last one ends."""
    half = (WIDTH - 2 * EDGE - 40) / 2
    is_wide = plane.num_columns > 32
    cell = _cell(plane, width=(WIDTH - 2 * EDGE if is_wide else half) - MARGIN, most=36)
    shares = {"seen": coverage.context, "fill0": coverage.target}
    means = [mean(share) for share in shares.values() for mean in (coverage.on_plane, coverage.by_time)]
    most = max(float(mean.max()) for mean in means)
    left = EDGE
    bottom = top
    for (style, share), heading in zip(shares.items(), ("seen as context", "predicted"), strict=True):
        over_time = ", mean over time" if plane.num_times > 1 else ""
        _text(root, "heading", (left, top), f"How often a token is {heading}{over_time}")
        bottom = _draw_map(root, coverage.on_plane(share), style, at=(left, top + 12), cell=cell, most=most)
        if plane.num_times > 1:
            _text(root, "", (left, bottom + 14), "at each time, first to last")
            stripe = (cell[0] * plane.num_columns / plane.num_times, 14.0)
            by_time = coverage.by_time(share).unsqueeze(0)
            bottom = _draw_map(root, by_time, style, at=(left, bottom + 20), cell=stripe, most=most)
        left, top = (EDGE, bottom + 26) if is_wide else (left + half + 40, top)
    _draw_scale(root, tuple(shares), most, at=(EDGE, bottom + 10), has_rows=plane.num_rows > 1)
    if not all(bool(mean.all()) for mean in means):
        _cross(root, (WIDTH - EDGE - 148, bottom + 18), 4)
        _text(root, "", (WIDTH - EDGE - 138, bottom + 22), "never in any sample")
    return bottom + 34


def _draw_map(root: Element, share: Float[Tensor, "h w"], style: str, *, at: Size, cell: Size, most: Length) -> float:
    """One heat map with the means of its rows at the right and of its columns below; where it ends."""
    (left, top), (width, height) = at, cell
    rows = share.tolist()
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            corner = (left + j * width, top + i * height)
            _rectangle(root, "empty", corner, cell, gap=1)
            if value:
                shade = _rectangle(root, style, corner, cell, gap=1)
                shade.set("fill-opacity", f"{value / most:.3f}")
                SubElement(shade, "title").text = f"row {i + 1}, column {j + 1}: {value:.3f}"
            else:
                _cross(root, (corner[0] + width / 2, corner[1] + height / 2), min(cell) / 5)
    right, bottom = left + len(rows[0]) * width, top + len(rows) * height
    if len(rows) > 1:
        for i, mean in _spaced(share.mean(1).tolist(), every=14 / height):
            _text(root, "", (right + 6, top + (i + 0.5) * height + 4), _short(mean))
    for j, mean in _spaced(share.mean(0).tolist(), every=24 / width):
        _text(root, "", (left + (j + 0.5) * width, bottom + 14), _short(mean), anchor="middle")
    return bottom + 18


def _draw_scale(root: Element, styles: Sequence[str], most: Length, *, at: Size, has_rows: bool) -> None:
    """What the shades mean, one row of them for each colour."""
    left, top = at
    for k, style in enumerate(styles):
        for i in range(11):
            corner = (left + 12 * i, top + 8 * k)
            _rectangle(root, "empty", corner, (12, 7))
            _rectangle(root, style, corner, (12, 7)).set("fill-opacity", f"{i / 10:.1f}")
    beside = (
        "beside and below the maps: means of rows and columns" if has_rows else "below the maps: the same in numbers"
    )
    _text(root, "", (left + 140, top + 12), f"share of the samples, from 0 to {_short(most)}; {beside}")


def _draw_examples(root: Element, masks: Mask, plane: Plane, *, top: Length) -> float:
    """The masks beside one another, with a key above; where the last one ends.

    At the first time of a clip, and at the last one too where a mask is not the same at all times.
    """
    num_blocks, num_masks = masks.target.shape[1], len(masks.context)
    changes = plane.num_times > 1 and not _is_the_same_at_all_times(masks, plane)
    where = " at the first time" if changes else ", the same at all times" if plane.num_times > 1 else ""
    _text(root, "heading", (EDGE, top), f"{num_masks} of the masks{where}")
    x = EDGE + (290 if where else 130)
    names = [f"target {i + 1}" for i in range(num_blocks)] if num_blocks > 1 else ["target"]
    targets = [(f"fill{i}", name) for i, name in enumerate(names[:NUM_COLOURS])]
    for style, label in [("seen", "context"), *targets, ("empty", "neither")]:
        _rectangle(root, style, (x, top - 10), (12, 12))
        _text(root, "", (x + 17, top), label)
        x += 32 + 6.5 * len(label)
    bottom = _draw_masks(root, masks, plane, time=0, top=top + 14)
    if changes:
        _text(root, "heading", (EDGE, bottom + 26), "The same masks at the last time")
        bottom = _draw_masks(root, masks, plane, time=plane.num_times - 1, top=bottom + 40)
    return bottom


def _draw_masks(root: Element, masks: Mask, plane: Plane, *, time: int, top: Length) -> float:
    """The masks at one time; where the last one ends."""
    per_row = 1 if plane.num_columns > 32 else 6
    room = (WIDTH - 2 * EDGE - 18 * (per_row - 1)) / per_row
    cell = _cell(plane, width=room, most=24)
    high = plane.num_rows * cell[1] + 12
    for i, (context, targets) in enumerate(zip(masks.context.tolist(), masks.target.tolist(), strict=True)):
        at = (EDGE + i % per_row * (room + 18), top + i // per_row * high)
        seen, hidden = _at_time(context, plane, time), [_at_time(block, plane, time) for block in targets]
        _draw_mask(root, seen, hidden, plane, at=at, cell=cell)
    return top + -(-len(masks.context) // per_row) * high - 12


def _at_time(tokens: list[int], plane: Plane, time: int) -> set[int]:
    """The places of those tokens that are of one time."""
    return {token % plane.num_places for token in tokens if token // plane.num_places == time}


def _is_the_same_at_all_times(masks: Mask, plane: Plane) -> bool:
    every = [mark(tokens, plane.num_tokens) for tokens in (masks.context, *masks.target.unbind(1))]
    by_time = [tokens.unflatten(1, (plane.num_times, -1)) for tokens in every]
    return all(bool((tokens == tokens[:, :1]).all()) for tokens in by_time)


def _draw_mask(root: Element, seen: set[int], targets: list[set[int]], plane: Plane, *, at: Size, cell: Size) -> None:
    """One sample's mask at one time: the places that are seen, and those of each target."""
    (left, top), (width, height) = at, cell

    def corner(place: int) -> Size:
        return left + place % plane.num_columns * width, top + place // plane.num_columns * height

    for place in range(plane.num_places):
        _rectangle(root, "seen" if place in seen else "empty", corner(place), cell, gap=0.75)
    for i, places in enumerate(targets):
        for place in sorted(places):
            _rectangle(root, f"fill{i % NUM_COLOURS}", corner(place), cell, gap=0.75).set("fill-opacity", "0.45")
        path = "".join(_edges(places, plane, corner, cell))
        SubElement(root, "path", {"class": f"edge edge{i % NUM_COLOURS}", "d": path})


def _edges(places: set[int], plane: Plane, corner: Callable[[int], Size], cell: Size) -> list[str]:
    """The outline of a set of places: each side of a place beyond which the set does not go on."""
    sides = []
    width, height = cell
    for place in sorted(places):
        (x, y), column = corner(place), place % plane.num_columns
        if place - plane.num_columns not in places:
            sides.append(f"M{x:.1f} {y:.1f}h{width:.1f}")
        if place + plane.num_columns not in places:
            sides.append(f"M{x:.1f} {y + height:.1f}h{width:.1f}")
        if column == 0 or place - 1 not in places:
            sides.append(f"M{x:.1f} {y:.1f}v{height:.1f}")
        if column == plane.num_columns - 1 or place + 1 not in places:
            sides.append(f"M{x + width:.1f} {y:.1f}v{height:.1f}")
    return sides


def _cell(plane: Plane, *, width: Length, most: Length) -> Size:
    """The size of a place: square, but for a series, whose one row is a stripe of some height."""
    side = min(most, width / plane.num_columns, 480 / plane.num_rows)
    return (side, side) if plane.num_rows > 1 else (side, most)


def _spaced(values: list[float], *, every: Length) -> list[tuple[int, float]]:
    """As many of the values, with their places, as can be labelled."""
    step = max(1, -int(-every // 1))
    return list(enumerate(values))[::step]


def _short(share: Length) -> str:
    return f"{share:.2f}".removeprefix("0")


def _cross(root: Element, middle: Size, reach: Length) -> None:
    (x, y), both = middle, 2 * reach
    lines = f"M{x - reach:.1f} {y - reach:.1f}l{both:.1f} {both:.1f}m{-both:.1f} 0l{both:.1f} {-both:.1f}"
    SubElement(root, "path", {"class": "never", "d": lines})


def _rectangle(root: Element, style: str, corner: Size, size: Size, *, gap: Length = 0) -> Element:
    (x, y), (width, height) = corner, size
    box = {"x": x, "y": y, "width": max(width - gap, 0), "height": max(height - gap, 0)}
    return SubElement(root, "rect", {"class": style} | {name: f"{value:.2f}" for name, value in box.items()})


def _text(root: Element, style: str, at: Size, text: str, *, anchor: str = "start") -> None:
    place = {"x": f"{at[0]:.1f}", "y": f"{at[1]:.1f}", "text-anchor": anchor}
    SubElement(root, "text", ({"class": style} if style else {}) | place).text = text
