"""The sections of a report that belong to still pictures; each is left out where nothing was measured for it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from jepalab.compare import figures, profiles
from jepalab.compare.drawing import Axis, names_axis
from jepalab.compare.label_needs import label_table
from jepalab.compare.metrics import GEOMETRY
from jepalab.compare.panels import Row, draw_rows, metric_axis
from jepalab.compare.readings import Arm, Estimate, Readings, listed, number
from jepalab.compare.sheets import Figure, Section, Sheet
from jepalab.compare.stats import spearman

READ_OUTS = ("linear", "knn", "logistic", "linear_sgd", "attentive", "finetuned")
LEVEL_SUMMARIES = ("linear_best_level", "linear_joined_levels")
ROBUST_SUMMARIES = ("robust_mean", "robust_relative_drop")
# What these sections show, so that "Other read-outs" need not show it again.
SHOWN = re.compile(
    r"(.*/)?(linear.*|knn|logistic|attentive|finetuned|finetuned_shot_.*|shots?_.*|robust_.*|transfer_.*|posthoc_.*)"
)
SPANS = "Whiskers span the seeds."


def read_out_sections(readings: Readings, conditions: Sequence[str]) -> list[Section]:
    """The same arms under each read-out, and with few labels."""
    return [
        Section(
            "Does the read-out decide?",
            "The same frozen encoders, read in several ways, and fine-tuned. Where lines cross, the order of the arms "
            "depends on how they are read, and a claim about one read-out is no claim about the others.",
            figures=_each(read_out_figure, readings, conditions),
            folded=_each(_read_out_rows, readings, conditions),
        ),
        Section(
            "How few labels are enough?",
            "Accuracy of the closed-form linear read-out with k labels a class. Every arm gets the same labels.",
            figures=[*_each(shot_figure, readings, conditions), *_each(tuned_shot_figure, readings, conditions)],
            tables=[table for c in conditions if (table := label_table(readings, c))],
        ),
    ]


def deeper_sections(readings: Readings, conditions: Sequence[str]) -> list[Section]:
    """Levels of the network, corrupted pictures, other data, and last weights beside averaged ones."""

    def transfer(readings: Readings, condition: str) -> Figure | None:
        metrics = [metric for metric in readings.metrics_in(condition) if metric.startswith("transfer_")]
        return figures.metric_figure(readings, condition, metrics, title="Other data", only_measured=True)

    return [
        Section(
            "Where in the network the class can be read",
            "The same linear read-out after every block. The end of an encoder is shaped by its pretraining task, and "
            "the best level often lies before it; which level is best is chosen on validation.",
            figures=_each(level_figure, readings, conditions),
        ),
        Section(
            "Under corruption",
            "The linear read-out is fitted on clean pictures and tested on corrupted ones: means of three strengths.",
            figures=_each(corruption_figure, readings, conditions),
        ),
        Section("On other data", "Read-outs of a second data set.", figures=_each(transfer, readings, conditions)),
        Section("Last weights against averaged ones", figures=_each(teacher_figure, readings, conditions)),
    ]


def read_out_figure(readings: Readings, condition: str) -> Figure | None:
    """Each arm's line across the read-outs."""
    metrics = [metric for metric in READ_OUTS if metric in readings.metrics_in(condition)]
    found = profiles.values_of(readings, condition, metrics)
    best = {metric: profiles.best_arm(found, metric) for metric in metrics}
    winners = {metric: pair for metric, pair in best.items() if pair}
    words = [f"{readings.name(metric)}: {arm.name} {value.in_words()}" for metric, (arm, value) in winners.items()]
    names = {arm.name for arm, _ in winners.values()}
    verdict = f"{listed(list(names))} leads under every read-out" if len(names) == 1 else "The leader changes"
    text = f"Highest of the trained arms by {'; '.join(words)}. {verdict}. {_agreement(readings, found, metrics)}"
    text = f"{text} {readings.labels}".rstrip()
    places, axis = profiles.named_axis(readings, metrics)
    title = "Read-outs"
    return profiles.profile_figure(
        readings, condition, places, title=title, x=axis, y="accuracy", caption=f"{text} {SPANS}"
    )


def shot_figure(readings: Readings, condition: str) -> Figure | None:
    """Accuracy against labels a class, on a logarithmic axis."""
    shots = _numbered(readings, condition, r"shot_(\d+)")
    if len(shots) < 2:
        return None
    found = profiles.values_of(readings, condition, list(shots))
    words = []
    for metric in (min(shots, key=shots.__getitem__), max(shots, key=shots.__getitem__)):
        if best := profiles.best_arm(found, metric):
            words.append(f"with {shots[metric]:g} {best[0].name} is highest at {best[1].in_words()}")
    numbers = sorted(shots.values())
    axis = Axis(
        "labels a class", numbers[0] / 1.1, numbers[-1] * 1.1, tuple((k, f"{k:g}") for k in numbers), False, True
    )
    caption = f"Among trained arms, {'; '.join(words)}. {SPANS}"
    beside = [m for m in readings.metrics_in(condition) if m == "shots_auc" or m.startswith("labels_ratio_")]
    panels = [figures.metric_panel(readings, condition, metric, only_measured=True) for metric in beside]
    return profiles.profile_figure(
        readings, condition, shots, title="Label efficiency", x=axis, y="accuracy", caption=caption, more_panels=panels
    )


def tuned_shot_figure(readings: Readings, condition: str) -> Figure | None:
    """Accuracy of the fine-tuned encoder against labels a class, on a logarithmic axis."""
    shots = _numbered(readings, condition, r"finetuned_shot_(\d+)")
    if len(shots) < 2:
        return None
    found = profiles.values_of(readings, condition, list(shots))
    fewest = min(shots, key=shots.__getitem__)
    words = f"With {shots[fewest]:g} labels a class {best[0].name} is highest at {best[1].in_words()}. " if (
        best := profiles.best_arm(found, fewest)
    ) else ""  # fmt: skip
    caption = (
        f"{words}The encoder is trained on, from the same labels for every arm; the line of an untrained encoder is "
        f"supervised learning from scratch. {SPANS}"
    )
    numbers = sorted(shots.values())
    axis = Axis(
        "labels a class", numbers[0] / 1.1, numbers[-1] * 1.1, tuple((k, f"{k:g}") for k in numbers), False, True
    )
    figure = profiles.profile_figure(
        readings, condition, shots, title="Fine-tuned with few labels", x=axis, y="accuracy", caption=caption
    )
    return figure and replace(figure, title=f"fine-tuned, {condition}")


def level_figure(readings: Readings, condition: str) -> Figure | None:
    """Accuracy after each block."""
    levels = _numbered(readings, condition, r"linear_level_(\d+)")
    if len(levels) < 2:
        return None
    depth = int(max(levels.values()))
    words = []
    for arm, values in profiles.values_of(readings, condition, list(levels)).items():
        best, last = max(values, key=lambda metric: values[metric].mean), f"linear_level_{depth}"
        if not arm.is_reference and last in values and best != last:
            gain = values[best].mean - values[last].mean
            words.append(f"{arm.name} at level {levels[best]:g} (+{number(gain, 3)})")
    text = f"Higher before the end than at it: {listed(words)}" if words else "No trained arm is better before the end"
    caption = f"{text}; this best is the highest on test and so a little flattering. {SPANS}"
    axis = Axis("block", 0.8, depth + 0.2, tuple((float(k), str(k)) for k in range(1, depth + 1)), False)
    measured = [metric for metric in LEVEL_SUMMARIES if metric in readings.metrics_in(condition)]
    panels = [figures.metric_panel(readings, condition, metric, only_measured=True) for metric in measured]
    return profiles.profile_figure(
        readings, condition, levels, title="Levels", x=axis, y="linear accuracy", caption=caption, more_panels=panels
    )


def corruption_figure(readings: Readings, condition: str) -> Figure | None:
    """Accuracy on clean pictures and under each corruption."""
    measured = readings.metrics_in(condition)
    metrics = [metric for metric in measured if metric.startswith("robust_") and metric != "robust_validation"]
    kinds = [metric for metric in metrics if metric not in ROBUST_SUMMARIES]
    kinds.sort(key=lambda metric: metric != "robust_clean")
    names = [metric.removeprefix("robust_") for metric in kinds]
    places, axis = {metric: float(i) for i, metric in enumerate(kinds)}, names_axis("", names)
    words = figures.ranking(readings, condition, "robust_mean")
    if "robust_relative_drop" in measured:
        drops = profiles.values_of(readings, condition, ["robust_relative_drop"])
        drops = {arm: v["robust_relative_drop"] for arm, v in drops.items() if not arm.is_reference}
        if drops:
            least = min(drops, key=lambda arm: drops[arm].mean)
            words += f" {least.name} loses the smallest share of what it can above chance: {drops[least].in_words()}."
    summaries = [figures.metric_panel(readings, condition, metric) for metric in ROBUST_SUMMARIES if metric in measured]
    return profiles.profile_figure(
        readings,
        condition,
        places,
        title="Corruptions",
        x=axis,
        y="accuracy",
        caption=f"{words} {SPANS}",
        more_panels=summaries,
    )


def teacher_figure(readings: Readings, condition: str) -> Figure | None:
    """The primary metric of the last weights and of averaged ones, pair by pair; None where there are no averages."""
    pairs: list[tuple[Arm, Estimate, Estimate]] = []
    for arm in readings.arms_in(condition):
        last, *averages = (readings.estimate(condition, arm, f"{who}/{readings.primary}") for who in WHO)
        averaged = next(filter(None, averages), None)
        if last and averaged:
            pairs.append((arm, last, averaged))
    if not pairs:
        return None
    name = readings.name(readings.primary)
    rows = [Row(f"{arm.name} {what}", arm.look, v) for arm, *both in pairs for what, v in zip(WHAT, both, strict=True)]
    gains = [f"{arm.name} {_signed(averaged.mean - last.mean)}" for arm, last, averaged in pairs]
    caption = (
        f"{name[:1].upper()}{name[1:]} of averaged weights, as I-JEPA's teacher has them, less that of the last ones: "
        f"{listed(gains)}. Everywhere else in this report stands, run by run, whichever is better on validation. Large "
        "marks are means over seeds, pale dots single seeds."
    )
    found = [value for _, *both in pairs for value in both if isinstance(value, Estimate)]
    panel = draw_rows(
        rows,
        title=f"Last and averaged weights, {condition}",
        description=caption,
        x=metric_axis(name, found),
        width=528,
    )
    metrics = [readings.primary, *(f"{who}/{readings.primary}" for who in WHO)]
    sheet = Sheet(
        f"last and averaged weights {condition}",
        figures.metric_columns(readings),
        figures.estimate_rows(readings, condition, metrics),
    )
    return Figure(condition, [panel], caption, sheet, subtitle=readings.conditions[condition])


WHO = ("student", "teacher", "average")
WHAT = ("last weights", "averaged")


def geometry_figure(readings: Readings, condition: str) -> Figure | None:
    """What else is known of the shape of the embeddings, in rows."""
    metrics = [metric for metric in GEOMETRY if not metric.startswith("rankme")]
    rows = figures.metric_figure(readings, condition, metrics, title="Geometry", only_measured=True)
    return rows and replace(rows, title="more on the geometry", subtitle=condition)


def _read_out_rows(readings: Readings, condition: str) -> Figure | None:
    metrics = [metric for metric in READ_OUTS if metric != readings.primary]
    rows = figures.metric_figure(readings, condition, metrics, title="Each read-out", only_measured=True)
    return rows and replace(rows, title="each read-out in rows", subtitle=condition)


def _agreement(readings: Readings, found: profiles.Values, metrics: Sequence[str]) -> str:
    """How alike the first read-out orders the trained arms as each of the others does."""
    words = []
    for other in metrics[1:]:
        both = [
            (values[metrics[0]].mean, values[other].mean)
            for arm, values in found.items()
            if not arm.is_reference and metrics[0] in values and other in values
        ]
        if len(both) > 2:
            first, second = zip(*both, strict=True)
            words.append(f"{readings.name(other)} {number(spearman(list(first), list(second)))}")
    return f"Rank correlation of the trained arms with {readings.name(metrics[0])}: {listed(words)}." if words else ""


def _numbered(readings: Readings, condition: str, pattern: str) -> dict[str, float]:
    """The metrics of this pattern with their numbers, ascending."""
    found = {metric: float(m[1]) for metric in readings.metrics_in(condition) if (m := re.fullmatch(pattern, metric))}
    return dict(sorted(found.items(), key=lambda pair: pair[1]))


def _signed(value: float) -> str:
    return f"{'+' if value >= 0 else ''}{number(value, 3)}"


def _each(
    draw: Callable[[Readings, str], Figure | None], readings: Readings, conditions: Sequence[str]
) -> list[Figure]:
    return [figure for condition in conditions if (figure := draw(readings, condition))]
