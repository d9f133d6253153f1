"""The report of a comparison: one HTML file that needs no network, no script and nothing beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from jepalab.compare import clip_pictures, curves, figures, image_pictures, image_sections, pictures, tables
from jepalab.compare.courses import Course, course_figures
from jepalab.compare.drawing import draw_key
from jepalab.compare.metrics import GEOMETRY
from jepalab.compare.milestones import milestone_table, thresholds
from jepalab.compare.readings import FAMILIES, Readings, family_of, listed, read_results
from jepalab.compare.series_pictures import series_sections
from jepalab.compare.sheets import Figure, Section, slug
from jepalab.compare.surprise_pictures import surprise_section
from jepalab.compare.world_diagnostics import diagnostics_section
from jepalab.compare.world_episodes import episodes_section
from jepalab.compare.world_pictures import world_sections
from jepalab.records import write_atomically

AGAINST_NUISANCE = (
    "State against nuisance",
    "How well what matters, and the nuisance in front of it, can be read linearly from frozen embeddings. "
    "State R²: position and velocity, read together from two consecutive embeddings. An encoder that keeps "
    "what matters and nothing else lies at the upper left.",
)
OTHER_READ_OUTS = (
    "Position from one embedding, velocity from two, the class, selectivity (state read, less nuisance read), "
    "and the position read from embeddings that were imagined, not seen."
)


def write_report(folder: Path) -> Path:
    """Reads `folder`/results.json, and pictures where there are any, and writes `folder`/report.html.

    What is missing is said: failed cells, seeds that did not run, estimates without an interval.

    Raises:
        ValueError: results.json is missing or malformed.
    """
    results = read_results(folder)
    readings = Readings(results)
    verdicts = [contrast["verdict"] for contrast in results["contrasts"] if contrast["is_primary"]]
    sections = [s for s in _sections(results, readings, folder) if s.figures or s.folded or s.tables]
    template = _environment().get_template("report.html.jinja")
    page = template.render(
        results=results,
        readings=readings,
        untried=[name for name in readings.conditions if not readings.arms_in(name)],
        keys={arm.name: draw_key(arm.look) for arm in readings.arms},
        families=_families(readings),
        notes=results.get("notes", []),
        headline=results["answer"].partition(":"),
        counts=[(tables.SYMBOLS[v], verdicts.count(v), v, slug(v)) for v in ("held", "refuted", "not shown")],
        equal=what_was_equal(readings),
        sections=sections,
        every_number=tables.every_number(readings),
        origin=_origin(results, readings),
    )
    path = folder / "report.html"
    write_atomically(path, page.encode())
    return path


def what_was_equal(readings: Readings) -> str:
    """What every trained arm had in common, and what it did not, as the cells recorded it."""
    computes = [cell["compute"] for cell in readings.cells if "compute" in cell]
    trained = [compute for compute in computes if compute["steps"]]
    numbers = listed([str(seed) for seed in readings.seeds])
    seeds = f"the same {len(readings.seeds)} seeds ({numbers})" if len(readings.seeds) > 1 else f"1 seed ({numbers})"
    if not trained:
        return f"Planned for every arm: {seeds}. No training has ended yet."
    held, unequal = [seeds], []
    sizes = {compute["parameters"]["encoder"] for compute in trained}
    for values, noun in (({c["steps"] for c in trained}, "{} steps"), (sizes, "an encoder of {} parameters")):
        low, high = (f"{end(values):,}" for end in (min, max))
        if low == high:
            held.append(noun.format(low))
        else:
            unequal.append(noun.format(f"{low} to {high}"))
    text = f"Held equal for every trained arm: {listed(held)}."
    return f"{text} Not equal: {listed(unequal)}." if unequal else text


def _sections(results: Mapping[str, Any], readings: Readings, folder: Path) -> list[Section]:
    conditions = list(readings.conditions)
    tried = [condition for condition in conditions if readings.arms_in(condition)]
    courses = [Course(**each) for each in results.get("courses", ())]
    sweep = [condition for condition in tried if any(condition in course.minor for course in courses)]
    main = [condition for condition in tried if condition not in sweep]

    def each(draw: Callable[[str], Figure | None], among: Sequence[str] = tried) -> list[Figure]:
        return [figure for condition in among if (figure := draw(condition))]

    have_classes = bool(readings.noun)
    has_goals = have_classes or bool(readings.goals)

    def training(condition: str) -> Figure | None:
        goals = list(thresholds(readings, condition).values()) if has_goals else []
        return curves.training_figure(readings, condition, threshold=goals[-1] if goals else None)

    forest = figures.contrast_figure(results["contrasts"])
    contrasts = tables.contrast_table(results["contrasts"])
    tuning, failures = tables.tuning_table(results.get("settings", {})), tables.failure_table(readings)
    return [
        Section("Failed cells", tables=[failures] if failures else []),
        Section(
            "The data",
            figures=each(lambda c: pictures.data_figure(folder, c, subtitle=readings.conditions[c]), conditions),
            style="pairs",
        ),
        Section(
            *(AGAINST_NUISANCE if "nuisance_r2" in readings.names else (_capital(readings.name(readings.primary)),)),
            figures=each(lambda c: figures.primary_figure(readings, c)),
            style="pairs",
        ),
        *(image_sections.read_out_sections(readings, tried) if have_classes else []),
        Section(
            "Other read-outs",
            OTHER_READ_OUTS if "nuisance_r2" in readings.names else "",
            figures=each(lambda c: _read_outs(readings, c), main),
            folded=each(lambda c: _read_outs(readings, c), sweep),
        ),
        Section(
            "What it cost",
            "The same readings while training, against three prices.",
            figures=each(lambda c: training(c), main),
            folded=each(lambda c: training(c), sweep),
            tables=[table for c in main if has_goals and (table := milestone_table(readings, c))],
        ),
        *(image_sections.deeper_sections(readings, tried) if have_classes else []),
        *(Section(course.name, figures=course_figures(readings, course)) for course in courses),
        Section(
            "What the predictions look like",
            figures=each(lambda c: pictures.prediction_figure(folder, c, readings.arms), conditions),
        ),
        *image_pictures.picture_sections(folder, readings),
        *clip_pictures.clip_sections(folder, readings),
        *series_sections(folder, readings),
        surprise_section(folder, readings),
        *world_sections(folder, readings),
        episodes_section(results, readings),
        diagnostics_section(readings, tried),
        Section(
            "Rank is a diagnosis, never a score",
            "RankMe says how many directions an embedding uses, not what they are good for.",
            figures=each(lambda c: figures.rank_figure(readings, c), main),
            folded=[
                *each(lambda c: figures.rank_figure(readings, c), sweep),
                *(each(lambda c: image_sections.geometry_figure(readings, c), main) if have_classes else []),
            ],
        ),
        Section(
            "What was declared, and what held",
            "Each claim stands in the plan with its reason and its source, and was judged after the last run.",
            figures=[forest] if forest else [],
            tables=[contrasts] if contrasts else [],
        ),
        Section("All chief metrics", tables=[tables.metric_table(readings, condition) for condition in tried]),
        Section("Compute", tables=[tables.compute_table(results["compute"])] if results.get("compute") else []),
        Section("Tuning", tables=[tuning] if tuning else []),
    ]


def _read_outs(readings: Readings, condition: str) -> Figure | None:
    panels, words = curves.rollout_panel(readings, condition)
    metrics = [
        metric
        for metric in readings.names
        if metric not in (readings.primary, "nuisance_r2", *GEOMETRY)
        and not metric.startswith("rollout_")
        and not image_sections.SHOWN.fullmatch(metric)
    ]
    return figures.metric_figure(readings, condition, metrics, more_panels=panels, words=words)


def _families(readings: Readings) -> str:
    """What the markers mean, for the families that are here."""
    found = {family_of(arm.name) for arm in readings.arms if not arm.is_reference}
    words = [text for family, text in FAMILIES.items() if family in found]
    references = ["grey diamonds are floors and the ceiling"] * any(arm.is_reference for arm in readings.arms)
    return ", ".join([*words, *references])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _origin(results: Mapping[str, Any], readings: Readings) -> list[tuple[str, str]]:
    """Command, versions, machine and commit, as far as they were recorded."""
    versions = results.get("versions", {})
    packages = ", ".join(f"{name} {version}" for name, version in versions.get("packages", {}).items())
    python = f"Python {versions['python']}" if "python" in versions else ""
    return [
        ("Command", results.get("command", "not recorded")),
        ("Commit", versions.get("commit", "not recorded")),
        ("Versions", ", ".join(filter(None, [packages, python])) or "not recorded"),
        ("Machine", versions.get("machine", "not recorded")),
        ("Seeds", ", ".join(map(str, readings.seeds))),
    ]


def _environment() -> Environment:
    loader = PackageLoader("jepalab.compare", ".")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
