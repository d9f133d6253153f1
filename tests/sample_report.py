"""A comparison with invented scores and real judgements, and a reader of the page made from it."""

from __future__ import annotations

import base64
import csv
import io
import json
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jepalab.compare.cells import Cell, Judging
from jepalab.compare.contrasts import Better, Equivalent, Unordered
from jepalab.compare.courses import Course
from jepalab.compare.grid import Plan, judge
from jepalab.compare.report import write_report

ARMS = {
    "J1": "JEPA + VICReg",
    "J3": "JEPA + EMA teacher",
    "J4p": "JEPA + frozen teacher",
    "A1": "Inverse dynamics",
    "G2": "Next-frame pixels",
    "S": "Supervised (ceiling)",
    "R": "Random encoder (floor)",
}
CONDITIONS = {
    "none": "no distractor",
    "changing": "patch distractor, strength 2, persistence rho 0",
    "fixed": "patch distractor, strength 1, persistence rho 1",
    "rho 0": "patch distractor, strength 1, persistence rho 0",
    "rho 0.5": "patch distractor, strength 1, persistence rho 0.5",
}
PERSISTENCE = Course("Persistence", "rho", {"rho 0": 0.0, "rho 0.5": 0.5, "fixed": 1.0}, minor=("rho 0", "rho 0.5"))
LEVELS = {"J1": 0.8, "J3": 0.7, "J4p": 0.6, "A1": 0.65, "G2": 0.3, "S": 0.9, "R": 0.2}
CONTRASTS = (
    Better("JEPA wins", better="J1", than="G2", metric="state_r2", condition="changing", because="b", source="s 1"),
    Better("pixels win", better="G2", than="J1", metric="state_r2", condition="changing", because="b", source="s 2"),
    Equivalent(
        "a tie", better="J1", than="J3", metric="state_r2", condition="none", margin=0.01, because="b", source="s"
    ),
    Unordered(
        "rank", metric="rankme", usefulness="state_r2", conditions=("none",), arms=tuple(ARMS), because="b", source="s"
    ),
)
EXPLORED = Better(
    "an afterthought", better="A1", than="G2", metric="state_r2", condition="none", because="b", source="s"
)
FAILED = ("J3", "changing", 1)


def make_cell(arm: str, condition: str, seed: int, generator: np.random.Generator) -> dict[str, Any]:
    facts = {"arm": arm, "condition": condition, "seed": seed}
    if (arm, condition, seed) == FAILED or (arm, condition) == ("J4p", "fixed"):
        error = "DivergedError: the loss is nan at step 212"
        return facts | {"status": "failed", "metrics": {}, "error": error}
    score = LEVELS.get(arm, 0.5) + float(generator.normal(0, 0.01))
    metrics = {"state_r2": score, "position_r2": score - 0.1, "velocity_r2": score / 2, "class_linear": score / 3}
    metrics |= {"class_knn": score / 4, "rankme": 20 * generator.random(), "rankme_centred": 10 * generator.random()}
    if condition != "none":
        metrics |= {"nuisance_r2": 0.5 - score / 2, "selectivity": score - 0.3}
    if arm in ("J1", "J3", "G2"):
        metrics |= {f"rollout_{k}_r2": score - 0.1 * k for k in range(1, 6)}
    if arm == "J3":
        metrics["teacher/state_r2"] = score + 0.05
    steps = 0 if arm == "R" else 100
    moments = [(at, {"state_r2": score * at / 100}) for at in (10, 50) if steps] + [(steps, metrics)]
    curve = [{"step": at, "seconds": at / 10, "flops": at * 2e9, "metrics": values} for at, values in moments]
    compute = {
        "steps": steps,
        "samples": 64 * steps,
        "frames": 384 * steps,
        "flops_per_step": 2e9 if steps else 0.0,
        "train_flops": 2e9 * steps,
        "seconds": steps / 10,
        "judging_seconds": 1.5,
        "parameters": {"encoder": 93_120, "trained": 120_000},
    }
    return facts | {"status": "done", "metrics": metrics, "curve": curve, "compute": compute}


def make_results(
    *, arms: dict[str, str] = ARMS, conditions: dict[str, str] = CONDITIONS, num_seeds: int = 3
) -> dict[str, Any]:
    """What `compare` writes, with invented scores and real judgements."""
    generator = np.random.default_rng(0)
    make = partial(pytest.fail, "nothing is trained here")
    plan = Plan(
        name="distractor-test",
        question="Which keeps the state?",
        cells=[Cell(arm, condition, make) for condition in conditions for arm in arms],
        seeds=range(num_seeds),
        judging=Judging(instruments=(), curve=()),
        contrasts=CONTRASTS,
        arms=arms,
        conditions=conditions,
        exploratory=(EXPLORED,),
        courses=(PERSISTENCE,),
        settings={
            "conditions": {
                "changing": {
                    "J1": {
                        "settings": {"lr": 0.0028, "spread": 0.12},
                        "score": 0.5123,
                        "scores": [0.1, 0.5123, 0.3],
                        "expected_best_of_n": [0.3041, 0.4, 0.4577],
                        "share_above_random_encoder": 2 / 3,
                    }
                }
            }
        },
    )
    return judge(plan, [make_cell(c.arm, c.condition, s, generator) for s in plan.seeds for c in plan.cells])


def render(folder: Path, results: dict[str, Any]) -> str:
    (folder / "results.json").write_text(json.dumps(results, allow_nan=False))
    return write_report(folder).read_text()


class Page(HTMLParser):
    """Every tag with its attributes, the text of each cell and caption, and the CSV behind each download."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.sheets: dict[str, list[dict[str, str]]] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self.captions: list[str] = []
        self.texts: list[str] = []
        self._into: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        facts = dict(attrs)
        self.tags.append((tag, facts))
        if tag == "a" and "download" in facts:
            content = base64.b64decode((facts["href"] or "").split(",")[1]).decode()
            self.sheets[facts["download"] or ""] = list(csv.DictReader(io.StringIO(content)))
        if tag == "table":
            self._rows: list[list[str]] = []
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "figcaption", "caption"):
            self._into = self._rows[-1] if tag == "td" else self.captions
            self._into.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "figcaption", "caption") and self._into:
            self._into[-1] = self._into[-1].strip()
            self._into = None
        if tag == "caption":
            self.tables[self.captions.pop()] = self._rows

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self._into is not None:
            self._into[-1] += data

    def row(self, table: str, *start: str) -> list[str]:
        return next(row for row in self.tables[table] if row[: len(start)] == list(start))
