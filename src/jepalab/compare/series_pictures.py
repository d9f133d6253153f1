"""Windows of series in a report: what is hidden of them, what is predicted in its place, and what a probe confuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from jepalab.compare.cells import Cell, picture_folder, slug
from jepalab.compare.drawing import Axis, Chart, Look, Margins, number_axis, shorten
from jepalab.compare.kept import Arrays, condition_figure, kept_arrays
from jepalab.compare.panels import TWO_THIRDS
from jepalab.compare.readings import Arm, Readings
from jepalab.compare.sheets import Entry, Figure, Section, Sheet, Table
from jepalab.data.sample_stream import SampleStream
from jepalab.instruments.series_pictures import draw_series
from jepalab.run import Run

SUFFIX = ".series.npz"
TRUTH = Look("grey")
HEIGHT = 150


def draw_series_cell(cell: Cell, run: Run, pictures: Path, *, seed: int, encoder: str = "") -> None:
    """Writes the windows of one arm as arrays into `pictures`, for one seed, as the encoder of that name sees them."""
    if run.seed == seed and isinstance(run.stream, SampleStream):
        file = picture_folder(pictures, cell.condition) / f"{slug(cell.arm)}{SUFFIX}"
        drawn = draw_series(run.objective, run.stream, encoder=encoder)
        np.savez_compressed(file, **drawn)  # pyrefly: ignore[bad-argument-type]


def series_sections(folder: Path, readings: Readings) -> list[Section]:
    """What was kept below `folder`/pictures, for each condition."""
    kept = kept_arrays(folder, readings, SUFFIX)
    return [
        Section(
            "What is hidden of a window, and what is predicted",
            "A test window, a panel a channel: grey the truth, in colour what an arm predicts where it predicts "
            "numbers. Shaded: hidden from the encoder, as masks are drawn in training. A model of the next step "
            "answers for each patch from all before it.",
            figures=[f for c, arms in kept.items() if (f := _window_figure(readings, c, arms))],
        ),
        Section(
            "What the probe confuses",
            "Test windows by their class (rows) and by what ridge regression on frozen features calls them (columns).",
            tables=[t for c, arms in kept.items() for arm, arrays in arms.items() if (t := _confusion(c, arm, arrays))],
        ),
    ]


def _window_figure(readings: Readings, condition: str, arms: Mapping[Arm, Arrays]) -> Figure | None:
    panels, words = [], []
    rows: list[Sequence[Entry]] = []
    for arm, kept in arms.items():
        if "context" not in kept and "predicted" not in kept:
            continue
        panels += [_channel(arm, kept, channel) for channel in range(len(kept["channels"]))]
        if "predicted" in kept:
            error = float(((kept["predicted"] - kept["windows"]) ** 2).mean())
            words.append(f"{arm.name} {error:.4g}")
            rows += [
                [arm.name, k, t, str(name), float(kept["windows"][k, t, c]), float(kept["predicted"][k, t, c])]
                for k in range(len(kept["windows"]))
                for t in range(kept["windows"].shape[1])
                for c, name in enumerate(kept["channels"])
            ]
    caption = (
        f"Mean squared error over these windows, in units of the data: {'; '.join(words)}."
        if words
        else "No arm here predicts numbers."
    )
    columns = ["arm", "window", "row", "channel", "truth", "predicted"]
    return condition_figure(readings, condition, panels, caption, "windows", columns, rows)


def _channel(arm: Arm, kept: Arrays, channel: int) -> str:
    """The first window's channel: the truth, the prediction, and what is hidden."""
    truth, name = kept["windows"][0, :, channel].astype(float), str(kept["channels"][channel])
    drawn = kept["predicted"][0, :, channel].astype(float) if "predicted" in kept else None
    every = truth if drawn is None else np.concatenate([truth, drawn])
    low, high, num = float(every.min()), float(every.max()), len(truth)
    step = max(1, num // 8)
    chart = Chart(
        f"{arm.name}, {name}",
        "truth, prediction and what is hidden" if drawn is not None else "what is hidden of the window",
        x=Axis("row of the window", 0, num - 1, tuple((float(i), str(i + 1)) for i in range(0, num, step))),
        y=number_axis(shorten(name), low, high, most=3),
        size=(TWO_THIRDS, HEIGHT),
        margins=Margins(left=60, top=26),
        heading=f"{arm.name}, {name}",
    )
    for start, end in hidden_rows(kept, num):
        chart.band([(start, chart.y.low, chart.y.high), (end, chart.y.low, chart.y.high)], TRUTH)
    chart.line(list(enumerate(truth.tolist())), TRUTH)
    if drawn is not None:
        chart.line(list(enumerate(drawn.tolist())), arm.look)
    return chart.markup()


def hidden_rows(kept: Arrays, num_rows: int) -> list[tuple[float, float]]:
    """Where the first window is hidden, as (first row, last row) of each run of hidden patches."""
    if "context" not in kept:
        return []
    hidden = ~kept["context"][0]
    per_patch = num_rows // len(hidden)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], hidden, [False]]).astype(int)))
    return [
        (float(start * per_patch), float(min(end * per_patch, num_rows - 1)))
        for start, end in zip(edges[::2], edges[1::2], strict=True)
    ]


def _confusion(condition: str, arm: Arm, kept: Arrays) -> Table | None:
    if "confusion" not in kept:
        return None
    counts, names = kept["confusion"], [str(name) for name in kept["names"]]
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    printed = [
        [name, *(f"{share:.0%}" if share else "" for share in row)] for name, row in zip(names, shares, strict=True)
    ]
    rows = [[arm.name, name, *map(int, row)] for name, row in zip(names, counts, strict=True)]
    sheet = Sheet(f"confusion {arm.name} {condition}", ["arm", "class", *names], rows)
    note = f"Of {int(counts.sum())} test windows; the numbers behind the shares are in the CSV."
    return Table(f"{arm.name}: {arm.label}", ["class", *map(shorten, names)], printed, sheet, note=note)
