"""The step's computation as one SVG that needs nothing beside it, for light, dark and print."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from jepalab.audit.layout import Curve, Extent, Layout, Point, lay_out
from jepalab.audit.report import Arrow, Box, Drawing
from jepalab.audit.shapes import (
    draw_line,
    draw_shape,
    draw_stop,
    draw_words,
    lines_of,
    point_on,
    printable,
    size_of,
    text_width,
)

MARGIN = 20.0
MOST_WIDTH = 1180.0  # a wider picture runs downwards if it is narrower then
KEY_LINE, SWATCH = 24.0, 34.0
KEY, SHARE = 11.5, 11.5  # font sizes, as in the style sheet
KEYS = {
    "online": "trained",
    "ema": "slow copy (EMA)",
    "frozen": "frozen",
    "mixed": "partly frozen",
    "input": "input",
    "noise": "noise",
    "comparison": "comparison",
    "statistic": "statistic, no target",
}
Dot = tuple[float, float, float]  # x, y and radius
NOTHING = "No computation was traced."
STYLE = Path(__file__).with_name("picture.css").read_text(encoding="utf-8")


def draw(drawing: Drawing) -> str:
    """The picture as SVG markup. Equal drawings give equal markup.

    Raises:
        ValueError: an arrow names a box that is not there, or two boxes share a key.
    """
    words = [lines_of(box.kind, printable(box.label), printable(box.detail)) for box in drawing.boxes]
    sizes = [size_of(box.kind, lines) for box, lines in zip(drawing.boxes, words, strict=True)]
    layout = _fitting(drawing, sizes)
    keys = _key_places(drawing, max(layout.width, 620.0))
    width = max(layout.width, max((x + size for x, _, size, *_ in keys), default=200.0)) + 2 * MARGIN
    top = MARGIN + 12.0  # room for loops and snowflakes
    height = top + layout.height + MARGIN + max((y for _, y, *_ in keys), default=0.0) + KEY_LINE + MARGIN / 2
    name = f"stripes-{zlib.crc32(repr((drawing.boxes, drawing.arrows)).encode()):08x}"
    root = _root(drawing, width, height, name)
    shift = (MARGIN + (width - 2 * MARGIN - layout.width) / 2, top)
    moved = SubElement(root, "g", {"transform": f"translate({shift[0]:.1f} {shift[1]:.1f})"})
    boxes = {box.key: box for box in drawing.boxes}
    for arrow, route in zip(drawing.arrows, layout.routes, strict=True):
        _draw_arrow(moved, arrow, route, boxes)
    for box, extent, lines in zip(drawing.boxes, layout.boxes, words, strict=True):
        _draw_box(moved, box, extent, lines, name)
    _draw_shares(moved, drawing.arrows, layout)
    if not drawing.boxes:
        SubElement(root, "text", {"class": "detail", "x": f"{width / 2:.1f}", "y": f"{top:.1f}"}).text = NOTHING
    below = SubElement(root, "g", {"transform": f"translate({MARGIN:.1f} {top + layout.height + MARGIN:.1f})"})
    for x, y, _, kind, text in keys:
        _draw_key(below, (x, y + KEY_LINE / 2), kind, text, name)
    return ElementTree.tostring(root, encoding="unicode")


def _fitting(drawing: Drawing, sizes: Sequence[tuple[float, float]]) -> Layout:
    """From left to right where that fits the page; else whichever direction is narrower."""
    across = lay_out(drawing, sizes, flows_down=False)
    if across.width + 2 * MARGIN <= MOST_WIDTH:
        return across
    return min(across, lay_out(drawing, sizes, flows_down=True), key=lambda layout: layout.width)


def _root(drawing: Drawing, width: float, height: float, stripes: str) -> Element:
    names = {box.key: printable(box.label) for box in drawing.boxes}
    flows = "; ".join(f"{names[arrow.source]} to {names[arrow.target]}" for arrow in drawing.arrows)
    box = {"viewBox": f"0 0 {width:.0f} {height:.0f}", "width": f"{width:.0f}", "height": f"{height:.0f}"}
    facts = {"xmlns": "http://www.w3.org/2000/svg", "class": "audit-picture", "role": "img"}
    root = Element("svg", facts | box)
    SubElement(root, "title").text = "What the step computes, from its inputs to its loss"
    SubElement(root, "desc").text = flows or NOTHING
    SubElement(root, "style").text = STYLE
    facts = {"id": stripes, "width": "8", "height": "8", "patternUnits": "userSpaceOnUse"}
    pattern = SubElement(SubElement(root, "defs"), "pattern", facts | {"patternTransform": "rotate(45)"})
    SubElement(pattern, "line", {"class": "stripe", "x1": "0", "y1": "0", "x2": "0", "y2": "8"})
    SubElement(root, "rect", {"class": "back", "width": f"{width:.0f}", "height": f"{height:.0f}"})
    return root


def _draw_box(parent: Element, box: Box, extent: Extent, lines: Sequence[str], stripes: str) -> None:
    group = SubElement(parent, "g", {"class": printable(f"box {box.kind}")})
    SubElement(group, "title").text = ": ".join(map(printable, filter(None, (box.label, box.detail))))
    draw_shape(group, box.kind, extent, stripes)
    draw_words(group, box.kind, extent, lines)


def _draw_arrow(parent: Element, arrow: Arrow, route: Sequence[Curve], boxes: Mapping[str, Box]) -> None:
    share, is_stopped = _share(arrow), _is_stopped(arrow, boxes)
    group = SubElement(parent, "g", {"class": "arrow driving" if share else "arrow"})
    remark = ": no gradient flows back" if is_stopped else f": {_percent(share)} of the gradient" if share else ""
    ends = [printable(boxes[key].label) for key in (arrow.source, arrow.target)]
    SubElement(group, "title").text = " to ".join(ends) + remark
    draw_line(group, route, _thickness(arrow))
    if is_stopped:
        # On the first piece with room for it; a very short one leads out of a narrow box.
        draw_stop(group, next((curve for curve in route if math.dist(curve[0], curve[3]) > 24), route[-1]), 0.45)


def _is_stopped(arrow: Arrow, boxes: Mapping[str, Box]) -> bool:
    """Whether a gradient would have flowed and was stopped: data takes none anyway."""
    return arrow.stopped and boxes[arrow.source].kind not in ("input", "noise", "constant")


def _draw_shares(parent: Element, arrows: Sequence[Arrow], layout: Layout) -> None:
    """A share beside each arrow that has one, where it covers no box, no other share and no line."""
    boxes, lines = list(layout.boxes), _dots(arrows, layout)
    for arrow, route in zip(arrows, layout.routes, strict=True):
        if arrow.share is None or math.isnan(arrow.share):
            continue
        text = _percent(arrow.share)
        choices = [place for curve in route[:-4:-1] for place in _beside(curve, text, _thickness(arrow))]
        near = _within(lines, choices)
        place = min(choices, key=lambda choice, near=near: _covered(choice, boxes, near))
        boxes.append(place)
        SubElement(parent, "text", {"class": "share", "x": f"{place.x:.1f}", "y": f"{place.y + 4:.1f}"}).text = text


def _dots(arrows: Sequence[Arrow], layout: Layout) -> list[Dot]:
    """The lines as strings of dots."""
    dots = []
    for arrow, route in zip(arrows, layout.routes, strict=True):
        radius = _thickness(arrow) / 2 + 1
        dots += [(*point_on(curve, k / 20), radius) for curve in route for k in range(21)]
    return dots


def _within(dots: Sequence[Dot], places: Sequence[Extent]) -> list[Dot]:
    """Those dots that any of these places could cover."""
    left, right = min(p.x - p.width for p in places), max(p.x + p.width for p in places)
    top, bottom = min(p.y - p.height for p in places), max(p.y + p.height for p in places)
    return [dot for dot in dots if left < dot[0] < right and top < dot[1] < bottom]


def _beside(curve: Curve, text: str, thickness: float) -> list[Extent]:
    """Places for a text along a curve, near and a little further, on all sides of it."""
    width, height = text_width(text, SHARE, is_bold=True) + 4, 12.0
    places = []
    for distance in (3.0, 8.0):
        up, aside = distance + (thickness + height) / 2, distance + (thickness + width) / 2
        shifts = ((0.0, -up), (0.0, up), (aside, 0.0), (-aside, 0.0), (aside * 0.7, -up), (-aside * 0.7, up))
        points = [point_on(curve, t) for t in (0.4, 0.5, 0.6, 0.3, 0.7, 0.2, 0.8)]
        places += [Extent(x + dx, y + dy, width, height) for x, y in points for dx, dy in shifts]
    return places


def _covered(place: Extent, boxes: Sequence[Extent], dots: Sequence[Dot]) -> float:
    """How much a text would hide, about in square pixels; boxes count more than lines."""
    wide, high = place.width / 2, place.height / 2
    num_hidden = sum(abs(x - place.x) < wide + r and abs(y - place.y) < high + r for x, y, r in dots)
    return 4.0 * sum(_overlap(place, box) for box in boxes) + 15.0 * num_hidden


def _key_places(drawing: Drawing, room: float) -> list[tuple[float, float, float, str, str]]:
    """x, y, width, kind and text of each sign that is explained below the picture: only those that occur."""
    boxes = {box.key: box for box in drawing.boxes}
    kinds = {box.kind for box in drawing.boxes}
    entries = [(kind, text) for kind, text in KEYS.items() if kind in kinds]
    if any(_is_stopped(arrow, boxes) for arrow in drawing.arrows):
        entries.append(("stop", "no gradient flows back (stop-gradient)"))
    if any(_share(arrow) for arrow in drawing.arrows):
        entries.append(("share", "share of the encoder's gradient"))
    places, x, y = [], 0.0, 0.0
    for kind, text in entries:
        width = SWATCH + 8 + text_width(text, KEY)
        if x and x + width > room:
            x, y = 0.0, y + KEY_LINE
        places.append((x, y, width, kind, text))
        x += width + 10
    return places


def _draw_key(parent: Element, at: Point, kind: str, text: str, stripes: str) -> None:
    group = SubElement(parent, "g", {"class": kind if kind in KEYS else f"arrow {'driving' * (kind == 'share')}"})
    x, y = at
    line: Curve = ((x, y), (x + 12, y), (x + 20, y), (x + SWATCH, y))
    if kind in KEYS:
        draw_shape(group, kind, Extent(x + SWATCH / 2, y, SWATCH - 4, 15.0), stripes)
    else:
        draw_line(group, [line], 4.0 if kind == "share" else 1.5)
    if kind == "stop":
        draw_stop(group, line, 0.4)
    SubElement(parent, "text", {"class": "key", "x": f"{x + SWATCH + 6:.1f}", "y": f"{y + 4:.1f}"}).text = text


def _share(arrow: Arrow) -> float:
    return 0.0 if arrow.share is None or math.isnan(arrow.share) else min(max(arrow.share, 0.0), 1.0)


def _thickness(arrow: Arrow) -> float:
    return 1.5 + 5 * _share(arrow)


def _percent(share: float) -> str:
    return "<1 %" if 0 < share < 0.005 else f"{100 * share:.0f} %"


def _overlap(one: Extent, other: Extent) -> float:
    wide = (one.width + other.width) / 2 - abs(one.x - other.x)
    high = (one.height + other.height) / 2 - abs(one.y - other.y)
    return max(0.0, wide) * max(0.0, high)
