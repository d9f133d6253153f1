"""Which runs a look inside can be had of, and what each takes; read from small JSON files, without torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jepalab.web.places import ForbiddenPlaceError, inside
from jepalab.web.shelf import Entry, Shelf, read_json
from jepalab.web.tasks import Arguments, Tell

MOST_RUNS = 400
FRAME_SIDE = 28  # of the moving object, whose every encoder takes grey frames
EXPECTING = "expect-"  # with which the recipes of the surprise experiment begin


def run(arguments: Arguments, *, root: Path, allow_code: bool, tell: Tell) -> dict[str, Any]:
    """Every run with a saved encoder: {runs: [{name, arm, label, camp, objective, recipe, seed, status, comparison,
    condition, under, kinds, encoders, side, channels, grid}], left_out}.

    arm, label  its short name, and what it is called in words; condition, under  likewise what it was trained under.
    kinds  what it can be looked at as: "pictures", "moving" (clips of an object behind a distractor), "surprise".
    side, channels, grid  of a picture, where it takes some.
    """
    entries, comparisons = Shelf(root).look()
    labels = {
        each.name: {kind: _labels(root, each.name, kind) for kind in ("arms", "conditions")} for each in comparisons
    }
    found = [_described(root, entry, labels) for entry in entries[:MOST_RUNS]]
    return {"runs": [each for each in found if each is not None], "left_out": max(0, len(entries) - MOST_RUNS)}


def _described(
    root: Path, entry: Entry, labels: Mapping[str, Mapping[str, Mapping[str, str]]]
) -> dict[str, Any] | None:
    """What the page shows of one run; None of a run that nothing can be shown of."""
    try:
        folder = inside(root, entry.name) / "encoders"
        saved = [str(each) for each in read_json(folder / "names.json")["names"]]
        config = read_json(inside(root, f"{entry.name}/encoders/{saved[0]}") / "config.json")
        kinds, sizes = _kinds(config, entry, read_json(inside(root, entry.name) / "run.json")), _sizes(config)
    except (OSError, ValueError, KeyError, TypeError, IndexError, ForbiddenPlaceError):
        return None
    if not kinds:
        return None
    above, _, rest = f"/{entry.name}".partition("/cells/")
    comparison = above.removeprefix("/") or "."  # the root itself may be one
    cell = _result(root, entry.name) if rest else {}
    arm = str(cell.get("arm", rest.split("/")[1] if rest.count("/") > 1 else "")) or entry.recipe or entry.name
    condition = str(cell.get("condition", rest.split("/")[0])) if rest else None
    words = labels.get(comparison, {"arms": {}, "conditions": {}})
    shown = {
        "arm": arm,
        "label": words["arms"].get(arm, arm),
        "comparison": comparison if rest else None,
        "condition": condition,
        "under": words["conditions"].get(condition or "", ""),
        "kinds": kinds,
        "encoders": saved,
    }
    plain = ("name", "camp", "objective", "recipe", "seed", "status")
    return {key: value for key, value in entry.as_dict().items() if key in plain} | shown | sizes


def _kinds(config: Mapping[str, Any], entry: Entry, known: Mapping[str, Any]) -> list[str]:
    kind, given = config["encoder"], config["arguments"]
    if "data" in config.get("facts", {}):
        return ["pictures"] if _sizes(config)["side"] else []
    is_cell = str(known.get("command", "")).split()[:3] == ["jepalab", "compare", "surprise"]
    if entry.recipe.startswith(EXPECTING) or (is_cell and entry.objective != "Floor"):
        return ["surprise"]
    is_conv = kind in ("ConvEncoder", "FramesAsPatches", "FrameDifferences")
    if is_conv and given["size"] == FRAME_SIDE and given["channels"] == 1:
        return ["moving"]
    return ["moving"] if kind == "PixelPCA" and given["num_pixels"] == FRAME_SIDE**2 else []


def _sizes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Side, channels and grid of the still pictures that this encoder takes; None where it takes none."""
    kind, given = config["encoder"], config["arguments"]
    none = {"side": None, "channels": None, "grid": None}
    if kind == "ViT" and len(given["grid"]) == 2 and given["grid"][0] * given["patch"][0] > 0:
        return {"side": given["grid"][0] * given["patch"][0], "channels": given["channels"], "grid": given["grid"]}
    if kind == "ResNet":
        return {"side": given["size"], "channels": given["channels"], "grid": None}
    for channels in (1, 3) if kind == "PixelPCA" else ():
        side = math.isqrt(given["num_pixels"] // channels)
        if side**2 * channels == given["num_pixels"]:
            return {"side": side, "channels": channels, "grid": None}
    return none


def _labels(root: Path, name: str, kind: str) -> dict[str, str]:
    """What the arms or conditions of a comparison are called; nothing where its results cannot be read."""
    try:
        found = read_json(inside(root, name) / "results.json")[kind]
        return {str(short): str(label) for short, label in dict(found).items()}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _result(root: Path, name: str) -> dict[str, Any]:
    try:
        return read_json(inside(root, name) / "result.json")
    except (OSError, ValueError):
        return {}
