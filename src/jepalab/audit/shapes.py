"""What a box and a line of the picture look like: what is trained, a slow copy or frozen differs in colour and form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement

from jepalab.audit.layout import Curve, Extent, Point

SLANT = 9.0  # how far the sides of a hexagon reach out
PAD = 14.0  # between a box and its text, left and right
HEAD = 7.0
LABEL, DETAIL = 12.0, 10.5  # font sizes, as in the style sheet
NARROW, BROAD = frozenset("iljtfrI.,:;|'!()[] "), frozenset("mwMW@%")
LIGHT = ("operation", "constant")  # their labels are not bold
TERMS = ("comparison", "statistic")
STRIPED = ("frozen", "mixed")
MOST_WIDTH, MOST_OF_TERM, LEAST_WIDTH = 196.0, 240.0, 84.0
ONE_LINE, FURTHER_LINE = 30.0, 15.0


def printable(text: str) -> str:
    """Without control characters, which no XML may hold."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def text_width(text: str, size: float, *, is_bold: bool = False) -> float:
    """An upper estimate of how wide a text is set, for a wide sans-serif."""
    letters = (
        0.42 if c in NARROW else 1.0 if c in BROAD or not c.isascii() else 0.72 if c.isupper() else 0.63 for c in text
    )
    return size * (sum(letters) + 0.06 * len(text) * is_bold)


def shorten(text: str, room: float, size: float, *, is_bold: bool = False) -> str:
    """As much of a text as there is room for. A dotted name keeps both its ends, a phrase its start."""
    kept, cut = len(text), text
    while kept > 1 and text_width(cut, size, is_bold=is_bold) > room:
        kept -= 1
        tail = 0 if " " in text else kept // 2
        cut = text[: kept - tail].rstrip(" .") + "…" + text[len(text) - tail :].lstrip(".")
    return cut


def lines_of(kind: str, label: str, detail: str) -> list[str]:
    """The label, and the detail in one line or, where it is a list too long for one, in two."""
    room = _most_width(kind) - 2 * _padding(kind)
    first, comma, rest = detail.rpartition(", ")
    is_long = bool(comma) and text_width(detail, DETAIL) > room
    return [label, first, rest] if is_long else [label, detail] if detail else [label]


def size_of(kind: str, lines: Sequence[str]) -> tuple[float, float]:
    """The (width, height) a box needs, within limits."""
    widths = [text_width(line, DETAIL if i else LABEL, is_bold=_is_bold(kind, i)) for i, line in enumerate(lines)]
    wanted = max(widths) + 2 * _padding(kind)
    return min(max(wanted, LEAST_WIDTH), _most_width(kind)), ONE_LINE + FURTHER_LINE * (len(lines) - 1)


def draw_shape(parent: Element, kind: str, at: Extent, stripes: str) -> None:
    """The outline of a box; `stripes` is the id of the pattern for what is frozen."""
    left, top = at.x - at.width / 2, at.y - at.height / 2
    place = {"x": f"{left:.1f}", "y": f"{top:.1f}", "width": f"{at.width:.1f}", "height": f"{at.height:.1f}"}
    if kind in TERMS:
        slant = min(SLANT, at.width / 4)
        corners = [(left, at.y), (left + slant, top), (left + at.width - slant, top)]
        corners += [(2 * at.x - x, 2 * at.y - y) for x, y in corners]
        SubElement(parent, "polygon", {"class": "shape", "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)})
        return
    radius = {"input": 0.0, "noise": 0.0, "constant": 0.0, "loss": at.height / 2}.get(kind, 7.0)
    SubElement(parent, "rect", {"class": "shape", "rx": f"{radius:g}", **place})
    if kind in STRIPED:
        SubElement(parent, "rect", {"fill": f"url(#{stripes})", "rx": f"{radius:g}", **place})
        _draw_snowflake(parent, (left + at.width - 3, top + 3), radius=min(8.5, at.height / 3))


def _draw_snowflake(parent: Element, at: Point, *, radius: float) -> None:
    """A disc with three strokes through its middle, each with a barb at both ends."""
    x, y = at
    SubElement(parent, "circle", {"class": "disc", "cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": f"{radius:.1f}"})
    arms = []
    for dx, dy in ((0.0, 0.65), (0.563, 0.325), (0.563, -0.325), (0.0, -0.65), (-0.563, -0.325), (-0.563, 0.325)):
        tip = (x + dx * radius, y + dy * radius)
        arms.append(f"M{x:.2f} {y:.2f}L{tip[0]:.2f} {tip[1]:.2f}")
        # Barbs start two thirds out and lean 60 degrees to either side.
        for cosine, sine in ((0.5, 0.866), (0.5, -0.866)):
            bx, by = dx * cosine - dy * sine, dx * sine + dy * cosine
            root = (x + 0.6 * dx * radius, y + 0.6 * dy * radius)
            arms.append(f"M{root[0]:.2f} {root[1]:.2f}l{0.4 * bx * radius:.2f} {0.4 * by * radius:.2f}")
    SubElement(parent, "path", {"class": "mark", "d": "".join(arms)})


def draw_words(parent: Element, kind: str, at: Extent, lines: Sequence[str]) -> None:
    """Label and details in the middle of a box, cut where they are longer than it."""
    room = at.width - 2 * _padding(kind) + 0.1
    first = at.y + 4 - FURTHER_LINE / 2 * (len(lines) - 1)
    for number, line in enumerate(lines):
        text = shorten(line, room, DETAIL if number else LABEL, is_bold=_is_bold(kind, number))
        place = {"x": f"{at.x:.1f}", "y": f"{first + FURTHER_LINE * number:.1f}"}
        SubElement(parent, "text", {"class": "detail" if number else "label", **place}).text = text


def draw_line(parent: Element, curves: Sequence[Curve], width: float) -> None:
    """A smooth line with a head that ends where the last curve ends."""
    *_, control, tip = curves[-1]
    length = HEAD + width
    back = _towards(tip, control, length)
    curves = _without_end(curves, length - 0.5)
    path = f"M{_pair(curves[0][0])}" + "".join(f"C{_pair(b)} {_pair(c)} {_pair(d)}" for _, b, c, d in curves)
    SubElement(parent, "path", {"class": "line", "d": path, "style": f"stroke-width:{width:.2f}px"})
    dx, dy = (tip[0] - back[0]) / length, (tip[1] - back[1]) / length
    half = 2.5 + 0.8 * width
    corners = [tip, (back[0] - dy * half, back[1] + dx * half), (back[0] + dy * half, back[1] - dx * half)]
    SubElement(parent, "polygon", {"class": "head", "points": " ".join(_pair(corner) for corner in corners)})


def draw_stop(parent: Element, curve: Curve, share: float) -> None:
    """A double bar across a line: content passes here, a gradient does not."""
    (x, y), (dx, dy) = point_on(curve, share), _direction(curve, share)
    bars = []
    for shift in (-2.75, 2.75):
        mx, my = x + dx * shift, y + dy * shift
        bars.append(((mx - dy * 7, my + dx * 7), (mx + dy * 7, my - dx * 7)))
    gap = {"class": "gap", "x1": f"{x - dx * 4:.1f}", "y1": f"{y - dy * 4:.1f}"}
    SubElement(parent, "line", gap | {"x2": f"{x + dx * 4:.1f}", "y2": f"{y + dy * 4:.1f}"})
    for (x1, y1), (x2, y2) in bars:
        place = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
        SubElement(parent, "line", {"class": "stop", **place})


def point_on(curve: Curve, t: float) -> Point:
    """The point of a cubic Bezier curve at t in [0, 1]."""
    weights = ((1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3)
    x = sum(weight * point[0] for weight, point in zip(weights, curve, strict=True))
    y = sum(weight * point[1] for weight, point in zip(weights, curve, strict=True))
    return x, y


def _without_end(curves: Sequence[Curve], length: float) -> list[Curve]:
    """The curves less the last `length` of them, where the head of the arrow lies; they arrive in its direction."""
    kept = list(curves)
    *_, control, tip = kept[-1]
    while len(kept) > 1 and (last := math.dist(kept[-1][0], kept[-1][3])) <= length:
        length -= last
        kept.pop()
    dx, dy = _unit(control[0] - tip[0], control[1] - tip[1])
    a, b, c, d = kept[-1]
    kept[-1] = a, b, (c[0] + dx * length, c[1] + dy * length), (d[0] + dx * length, d[1] + dy * length)
    return kept


def _direction(curve: Curve, t: float) -> Point:
    before, after = point_on(curve, max(0.0, t - 0.02)), point_on(curve, min(1.0, t + 0.02))
    return _unit(after[0] - before[0], after[1] - before[1])


def _unit(dx: float, dy: float) -> Point:
    length = (dx * dx + dy * dy) ** 0.5 or 1.0
    return dx / length, dy / length


def _towards(start: Point, goal: Point, distance: float) -> Point:
    dx, dy = _unit(goal[0] - start[0], goal[1] - start[1])
    return start[0] + dx * distance, start[1] + dy * distance


def _padding(kind: str) -> float:
    return PAD + SLANT / 2 if kind in TERMS else PAD


def _most_width(kind: str) -> float:
    return MOST_OF_TERM if kind in TERMS else MOST_WIDTH


def _is_bold(kind: str, number: int) -> bool:
    return number == 0 and kind not in LIGHT


def _pair(point: Point) -> str:
    return f"{point[0]:.1f},{point[1]:.1f}"
