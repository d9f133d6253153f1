"""Charts as inline SVG, built as an element tree: well formed and escaped by construction, without any dependency.

Colours are CSS classes of the page, so that one picture serves light, dark and print. Lengths are CSS pixels, and y
grows downwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

SMALL, LETTER = 11, 0.61  # font size, and the width of a wide sans-serif's average letter as a share of it
LINE = 15.0  # from one line of labels to the next
Length = float | int
Point = tuple[Length, Length]
OUTLINES: dict[str, tuple[Point, ...]] = {
    "square": ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    "triangle": ((0, -1.2), (1.15, 0.85), (-1.15, 0.85)),
    "wedge": ((0, 1.2), (1.15, -0.85), (-1.15, -0.85)),
    "cross": (
        *((-1.1, -0.4), (-0.4, -0.4), (-0.4, -1.1), (0.4, -1.1), (0.4, -0.4), (1.1, -0.4)),
        *((1.1, 0.4), (0.4, 0.4), (0.4, 1.1), (-0.4, 1.1), (-0.4, 0.4), (-1.1, 0.4)),
    ),
    "diamond": ((0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)),
    "up": ((0, -0.6), (1.3, 1.4), (-1.3, 1.4)),
    "down": ((0, 0.6), (1.3, -1.4), (-1.3, -1.4)),
    "left": ((-0.6, 0), (1.4, 1.3), (1.4, -1.3)),
    "right": ((0.6, 0), (-1.4, 1.3), (-1.4, -1.3)),
}


@dataclass(frozen=True)
class Look:
    """How one thing appears in every figure: a CSS class that sets its colour, and a marker."""

    colour: str
    shape: str = "circle"
    is_hollow: bool = False


@dataclass(frozen=True)
class Axis:
    """What a direction means: from `low` to `high`, with labelled ticks; `is_log` for ratios, of positive values."""

    label: str
    low: Length
    high: Length
    ticks: tuple[tuple[Length, str], ...]
    has_zero: bool = True
    is_log: bool = False

    def contains(self, value: Length) -> bool:
        return self.low <= value <= self.high

    def share(self, value: Length) -> float:
        """Where a value lies between the ends, in [0, 1]; one beyond an end lies at that end."""
        inside = min(max(value, self.low), self.high)
        if self.is_log:
            return math.log(inside / self.low) / math.log(self.high / self.low)
        return (inside - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Margins:
    """Room around the plotting area."""

    left: Length = 46
    right: Length = 14
    top: Length = 10
    bottom: Length = 40


def text_width(text: str, size: Length = SMALL) -> float:
    """An upper estimate of how wide a text is set."""
    return len(text) * size * LETTER


def shorten(text: str, num_letters: int = 16) -> str:
    """The text, cut where it is longer than a label may be."""
    return text if len(text) <= num_letters else text[: num_letters - 1] + "…"


def steps_between(low: Length, high: Length, *, most: int = 6) -> list[float]:
    """At most `most` + 1 round numbers between low and high, a step of 1, 2 or 5 times a power of ten apart."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    steps = [share * power for share in (1, 2, 5, 10)]
    place = next(i for i, step in enumerate(steps) if (high - low) / step <= most)
    # A step that is nearly as long as the axis may have no multiple on it; the next finer one then has few.
    return _multiples(steps[place], low, high) or _multiples(steps[max(0, place - 1)], low, high)


def _multiples(step: float, low: Length, high: Length) -> list[float]:
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def number_axis(label: str, low: Length, high: Length, *, most: int = 6) -> Axis:
    """An axis with round ticks; where all values are equal it opens a little around them."""
    if not low < high:
        low, high = low - 0.5, high + 0.5
    ticks = steps_between(low, high, most=most)
    return Axis(label, low, high, tuple((tick, f"{tick:.6g}".replace("-", "−")) for tick in ticks))


def names_axis(label: str, names: Sequence[str]) -> Axis:
    """One place for each name, the first at 0."""
    return Axis(label, -0.5, len(names) - 0.5, tuple((float(i), name) for i, name in enumerate(names)), False)


class Chart:
    """One plotting area with its axes; marks are drawn over it in the order of the calls.

    title, description  the text alternative of the picture.
    heading             what stands above the area, where anything does.
    names_down          the y axis runs downwards, as a list of names does.
    """

    def __init__(
        self,
        title: str,
        description: str,
        *,
        x: Axis,
        y: Axis,
        size: tuple[Length, Length],
        margins: Margins,
        heading: str = "",
        names_down: bool = False,
    ) -> None:
        self.x, self.y, self.size, self.margins = x, y, size, margins
        self.left, self.right = float(margins.left), float(size[0] - margins.right)
        self.top, self.bottom = float(margins.top), float(size[1] - margins.bottom)
        self._down = names_down
        width, height = (f"{length:g}" for length in size)
        box = {"viewBox": f"0 0 {width} {height}", "width": width, "height": height}
        self.root = Element("svg", box | {"role": "img", "aria-label": f"{title}. {description}"})
        SubElement(self.root, "title").text = title
        SubElement(self.root, "desc").text = description
        self._draw_axes()
        if heading:
            self.text(heading, (self.left, self.top - 12), "heading")

    def at_x(self, value: Length) -> float:
        return self.left + self.x.share(value) * (self.right - self.left)

    def at_y(self, value: Length) -> float:
        share = self.y.share(value) if self._down else 1 - self.y.share(value)
        return self.top + share * (self.bottom - self.top)

    def line(self, points: Sequence[Point], look: Look) -> None:
        """A line through data points; a hollow look is dashed."""
        style = "line dashed" if look.is_hollow else "line"
        self._add("polyline", f"{style} {look.colour}", points=_joined([self._place(point) for point in points]))

    def band(self, points: Sequence[tuple[Length, Length, Length]], look: Look) -> None:
        """The area between low and high, for each (x, low, high)."""
        around = [(x, high) for x, _, high in points] + [(x, low) for x, low, _ in reversed(points)]
        self._add("polygon", f"band {look.colour}", points=_joined([self._place(point) for point in around]))

    def whisker_x(self, y: Length, low: Length, high: Length, look: Look) -> None:
        """An interval along x. An end beyond the axis gets no cap: it goes on."""
        start, end = self._place((low, y)), self._place((high, y))
        self._segment(start, end, f"whisker {look.colour}")
        for value, (px, py) in ((low, start), (high, end)):
            if self.x.contains(value):
                self._segment((px, py - 3), (px, py + 3), f"whisker {look.colour}")

    def whisker_y(self, x: Length, low: Length, high: Length, look: Look) -> None:
        """An interval along y, as `whisker_x`."""
        start, end = self._place((x, low)), self._place((x, high))
        self._segment(start, end, f"whisker {look.colour}")
        for value, (px, py) in ((low, start), (high, end)):
            if self.y.contains(value):
                self._segment((px - 3, py), (px + 3, py), f"whisker {look.colour}")

    def rule_x(self, value: Length, style: str) -> None:
        """A line across the whole area at one x."""
        self._segment((self.at_x(value), self.top), (self.at_x(value), self.bottom), style)

    def rule_y(self, value: Length, style: str) -> None:
        """A line across the whole area at one y."""
        self._segment((self.left, self.at_y(value)), (self.right, self.at_y(value)), style)

    def dot(self, point: Point, look: Look, *, title: str = "", radius: Length = 5, is_faint: bool = False) -> None:
        """A marker with an optional tooltip. One beyond the axes lies at the edge, as an arrow that points there."""
        if not self.y.contains(point[1]):
            look = replace(look, shape="down" if (point[1] < self.y.low) != self._down else "up")
        if not self.x.contains(point[0]):
            look = replace(look, shape="left" if point[0] < self.x.low else "right")
        style = "seed" if is_faint else "mark"
        draw_marker(self.root, look, at=self._place(point), radius=radius, title=title, style=style)

    def text(self, text: str, at: Point, style: str, *, anchor: str = "start") -> None:
        """A text at pixels of the picture: its left end, middle or right end on the baseline."""
        self._add("text", style, x=f"{at[0]:.1f}", y=f"{at[1]:.1f}", **{"text-anchor": anchor}).text = text

    def leader(self, points: Sequence[Point], look: Look) -> None:
        """A thin line in pixels of the picture, from a mark to its label."""
        self._add("polyline", f"leader {look.colour}", points=_joined(points))

    def markup(self) -> str:
        return ElementTree.tostring(self.root, encoding="unicode")

    def _draw_axes(self) -> None:
        for value, label in self.x.ticks:
            if not self._down or label:
                self.rule_x(value, "grid")
            self.text(label, (self.at_x(value), self.bottom + 16), "tick", anchor="middle")
        for value, label in self.y.ticks:
            self.rule_y(value, "grid")
            self.text(shorten(label, 64), (self.left - 8, self.at_y(value) + 4), "tick", anchor="end")
        for axis, rule in ((self.x, self.rule_x), (self.y, self.rule_y)):
            if axis.has_zero and axis.low < 0 < axis.high:
                rule(0, "zero")
        self.text(self.x.label, ((self.left + self.right) / 2, self.size[1] - 6), "axis", anchor="middle")
        if self.y.label:
            middle = (self.top + self.bottom) / 2
            turned = self._add("text", "axis", transform=f"translate(11 {middle:.1f}) rotate(-90)")
            turned.set("text-anchor", "middle")
            turned.text = self.y.label

    def _place(self, point: Point) -> Point:
        return self.at_x(point[0]), self.at_y(point[1])

    def _segment(self, start: Point, end: Point, style: str) -> None:
        (x1, y1), (x2, y2) = start, end
        self._add("line", style, x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}")

    def _add(self, tag: str, style: str, **attributes: str) -> Element:
        return SubElement(self.root, tag, {"class": style} | attributes)


def draw_marker(
    parent: Element, look: Look, *, at: Point, radius: Length = 5, title: str = "", style: str = "mark"
) -> None:
    """One marker of this look, in pixels of the picture."""
    style = f"{style} {look.colour} hollow" if look.is_hollow else f"{style} {look.colour}"
    if look.shape == "circle":
        attributes = {"cx": f"{at[0]:.1f}", "cy": f"{at[1]:.1f}", "r": f"{radius:g}"}
        marker = SubElement(parent, "circle", attributes | {"class": style})
    else:
        corners = [(at[0] + dx * radius, at[1] + dy * radius) for dx, dy in OUTLINES[look.shape]]
        marker = SubElement(parent, "polygon", {"class": style, "points": _joined(corners)})
    if title:
        SubElement(marker, "title").text = title


def draw_key(look: Look) -> str:
    """One marker alone, to stand before a name in the text."""
    root = Element("svg", {"viewBox": "0 0 16 16", "width": "16", "height": "16", "aria-hidden": "true"})
    draw_marker(root, look, at=(8, 8), radius=5.5)
    return ElementTree.tostring(root, encoding="unicode")


def _joined(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
