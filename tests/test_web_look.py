"""What the page that looks inside asks of the worker: on tiny trained runs, and every refusal of what may be sent."""

from __future__ import annotations

import base64
import inspect
import json
import math
import shutil
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
from PIL import Image

from jepalab.catalogue import find_experiments, find_recipes
from jepalab.compare.cells import Budget, run_cell
from jepalab.compare.grid import judge
from jepalab.fit import fit
from jepalab.flags import call_with_flags, flatten
from jepalab.hub.runs import load, save_encoders
from jepalab.instruments.features import features
from jepalab.instruments.state import state
from jepalab.objectives.untrained import Untrained
from jepalab.recipes.bench import World
from jepalab.records import RunFolder, write_json
from jepalab.training import Place
from jepalab.types import Subject
from jepalab.web import looking_pictures
from jepalab.web.looking import open_run
from jepalab.web.looking_arguments import as_rgb
from jepalab.web.looking_clips import Clips, load_moving
from jepalab.web.reading_places import WRITTEN
from jepalab.web.worker import work

SMALL = ["--width", "24", "--depth", "2", "--num-heads", "2", "--head-width", "16", "--head-depth", "1"]
SIDE = 16


def lay_out_runs(root: Path) -> None:
    """A folder of runs as a user has it: of pictures, of clips to expect, and cells of two comparisons."""
    pictures = [
        "--data",
        str(draw_pictures(root / "runs/data")),
        "--size",
        str(SIDE),
        "--cache",
        str(root / "cache"),
        *SMALL,
    ]
    brief = ["--steps", "3", "--batch-size", "8"]
    train(root / "runs/ijepa", "ijepa", [*pictures, *brief])
    train(root / "runs/mae", "mae", [*pictures, *brief])
    train(root / "runs/expecting", "expect-embedding-vicreg", ["--steps", "1", "--strength", "1"])
    compare_brief(root / "runs/distractor-demo", ["distractor", "--preset", "demo"], MOVING)
    compare_brief(root / "runs/images", ["images", *pictures, "--budget", "1h"], {("G1", "pictures")})


def draw_pictures(folder: Path) -> Path:
    """Pictures of three classes: discs, stripes and squares, in colours of their own."""
    generator = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    for name in ("disc", "square", "stripes"):
        (folder / name).mkdir(parents=True)
        for number in range(24):
            row, column, radius = generator.integers(4, 12), generator.integers(4, 12), generator.integers(3, 6)
            mark = {
                "disc": np.hypot(x - column, y - row) < radius,
                "square": np.maximum(abs(x - column), abs(y - row)) < radius,
                "stripes": (x + row) % 4 < 2,
            }[name]
            colours = generator.integers(0, 255, (2, 3))
            pixels = np.where(mark[..., None], colours[0], colours[1]).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


def train(folder: Path, recipe: str, words: list[str]) -> None:
    """What `jepalab train` leaves behind, without the judging."""
    _, settings, run = call_with_flags(find_recipes()[recipe], Place(), program="jepalab train", words=words)
    records = RunFolder(folder)
    records.claim(recipe=recipe, **flatten(settings))
    records.describe(words=words)
    fit(run, folder=folder, device="cpu")
    save_encoders(run.objective, folder, stream=run.stream, recipe=recipe)
    records.describe(status="done")


def compare_brief(folder: Path, words: list[str], wanted: set[tuple[str, str]]) -> None:
    """What `jepalab compare` leaves behind of some cells, trained for a step and not judged."""
    given = [*words[1:], *(["--samples", "128"] if words[0] == "images" else [])]
    plan = call_with_flags(find_experiments()[words[0]], Place(), program="jepalab compare", words=given).made
    judging = replace(plan.judging, instruments=(), of_the_first=(), curve=(), draw=None)
    cells = [cell for cell in plan.cells if (cell.arm, cell.condition) in wanted]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["jepalab", "compare", *words])
        results = [run_cell(cell, 0, out=folder, judging=judging, budget=Budget(1)) for cell in cells]
    assert {each["status"] for each in results} == {"done"}, results
    brief = replace(plan, cells=cells, seeds=[0], contrasts=(), exploratory=(), conclude=None)
    write_json(folder / "results.json", judge(brief, results))


MOVING = {("J1", "changing"), ("G2", "changing"), ("J1", "fixed"), ("PCA", "fixed")}
PICTURE_CELL = "images/cells/pictures/G1/seed-0"
CELL = "distractor-demo/cells/changing/J1/seed-0"


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("look")
    lay_out_runs(place)
    return place / "runs"


@pytest.fixture(scope="module", autouse=True)
def usual_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Decoded pictures go here, whatever a run says; no folder of data is named."""
    place = tmp_path_factory.mktemp("usual") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JEPALAB_CACHE", str(place))
        patch.delenv("JEPALAB_DATA", raising=False)
        yield place


@pytest.fixture(scope="session")
def specimen(root: Path) -> str:
    """A test picture of the runs' own data, as the page sends it."""
    return ask(root, "specimens", run="ijepa")["pictures"][0]["pixels"]


def ask(root: Path, task: str, **arguments: Any) -> dict[str, Any]:
    """The answer of a task, as the page gets it."""
    answer = work({"task": task, "arguments": arguments, "root": str(root), "allow_code": False}, lambda value: None)
    return json.loads(json.dumps(answer, allow_nan=False))


def pixels_of(text: str, side: int) -> np.ndarray:
    return (
        np.frombuffer(base64.b64decode(text, validate=True), dtype=np.uint8).reshape(side, side, 3).astype(float) / 255
    )


def test_runs_are_found_with_what_can_be_looked_at_in_them(root: Path) -> None:
    found = {run["name"]: run for run in ask(root, "lookable")["runs"]}
    assert {name for name, run in found.items() if run["kinds"] == ["pictures"]} == {"ijepa", "mae", PICTURE_CELL}
    assert {name for name, run in found.items() if run["kinds"] == ["surprise"]} == {"expecting"}
    assert {run["arm"] for run in found.values() if run["kinds"] == ["moving"]} == {"J1", "G2", "PCA"}
    assert found[CELL]["label"] == "JEPA + VICReg"
    assert (found[CELL]["condition"], found[CELL]["comparison"], found[CELL]["camp"]) == (
        *("changing", "distractor-demo", "JEPA"),
    )
    assert found["ijepa"]["side"] == SIDE
    assert found["ijepa"]["encoders"] == ["teacher", "student"]


def test_what_is_broken_is_not_offered(tmp_path: Path) -> None:
    for name, text in {"cut": '{"names": ["a', "odd": '{"names": ["../../etc"]}', "list": "[]"}.items():
        (tmp_path / name / "encoders").mkdir(parents=True)
        (tmp_path / name / "run.json").write_text("{}")
        (tmp_path / name / "encoders/names.json").write_text(text)
    assert ask(tmp_path, "lookable") == {"runs": [], "left_out": 0}


@pytest.mark.parametrize("sampler", ["blocks", "reference", "random", "next"])
@pytest.mark.parametrize("side", [4, 8, 14])
def test_masks_are_those_of_training(sampler: str, side: int, root: Path) -> None:
    found = ask(root, "masks", grid=side, sampler=sampler, seed=3)
    everything = set(range(side * side))
    for mask in found["masks"]:
        context, asked = {*mask["context"]}, {place for block in mask["targets"] for place in block}
        assert context
        assert asked
        assert context | asked <= everything
        if sampler in {"blocks", "random"}:
            assert not context & asked
        if sampler in {"blocks", "reference"}:
            assert len(mask["targets"]) == 4
            for block in mask["targets"]:
                rows, columns = {place // side for place in block}, {place % side for place in block}
                assert len(rows) * len(columns) == len(block), "a block is a rectangle"
        if sampler == "random":
            assert context | asked == everything
            assert len(asked) == round(0.75 * side**2)
        if sampler == "next":
            assert context == set(range(min(asked)))
    if sampler == "next":
        assert found["seen"] is None
    else:
        mean = np.mean([len(mask["context"]) for mask in found["masks"]]) / side**2
        assert np.mean(found["seen"]) == pytest.approx(mean, abs=0.2)
    if sampler == "reference":
        assert found["asked"][-1] == 0, "the official sampler never asks for the last place"


def test_another_seed_is_another_mask(root: Path) -> None:
    one, same, other = (ask(root, "masks", seed=seed)["masks"] for seed in (0, 0, 1))
    assert one == same
    assert one != other


def test_digits_come_with_the_library(root: Path) -> None:
    found = ask(root, "specimens")
    assert [each["label"] for each in found["pictures"]] == [str(digit) for digit in range(10)]
    assert all(pixels_of(each["pixels"], found["side"]).max() > 0.5 for each in found["pictures"])


@pytest.mark.parametrize("run", ["ijepa", "mae"])
def test_decoded_pictures_have_the_psnr_that_is_told(run: str, root: Path, specimen: str) -> None:
    found = ask(root, "holds", run=run, picture=specimen, seed=3)
    truth, drawn = pixels_of(found["truth"], SIDE), pixels_of(found["tokens"]["pixels"], SIDE)
    assert found["truth"] == specimen
    assert found["tokens"]["psnr"] == pytest.approx(-10 * math.log10(((drawn - truth) ** 2).mean()), abs=0.1)
    own = found["own"]
    patches = np.zeros(16, dtype=bool)
    patches[[place for block in own["asked"] for place in block]] = True
    asked = patches.reshape(4, 4).repeat(4, 0).repeat(4, 1)
    predicted = pixels_of(own["pixels"], SIDE)
    assert np.array_equal(predicted[~asked], truth[~asked]), "beside the targets stands the picture itself"
    if run == "ijepa":  # a flat patch whose mean is put back may be right to the last bit
        is_other = (predicted != truth).any(2).reshape(4, 4, 4, 4).any((1, 3)).flatten()
        assert np.array_equal(is_other, patches), "and at each target something else"
    assert own["psnr"] == pytest.approx(-10 * math.log10(((predicted[asked] - truth[asked]) ** 2).mean()), abs=0.1)
    assert (own["by"], own["is_told"]) == {"ijepa": ("decoder", False), "mae": ("pixels", True)}[run]
    again = ask(root, "holds", run=run, picture=specimen, seed=3)
    assert again == found


def test_decoders_are_trained_once(root: Path, specimen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(root, "holds", run="mae", picture=specimen)
    monkeypatch.setattr(looking_pictures, "fit_decoder", None)
    ask(root, "holds", run="mae", picture=specimen, seed=5)


def test_a_training_picture_is_its_own_nearest_neighbour(root: Path) -> None:
    shown = looking_pictures.picture_run(root, "ijepa")
    known = shown.knows("student", "train")
    found = ask(root, "neighbours", run="ijepa", picture=as_rgb(known.x[7]))
    first = found["neighbours"][0]
    assert first["pixels"] == as_rgb(known.x[7])
    assert first["label"] == shown.samples.names[int(shown.samples.labels[known.index[7]])]
    assert first["closeness"] == pytest.approx(1, abs=1e-3)
    assert sum(found["attention"]) == pytest.approx(16, rel=1e-3)
    assert len(base64.b64decode(found["colours"])) == 3 * found["grid"] ** 2 == 48
    teacher = ask(root, "neighbours", run="ijepa", encoder="teacher", picture=as_rgb(known.x[7]))
    assert teacher["encoder"] == "teacher"


def test_the_dials_move_every_point(root: Path) -> None:
    names = [run["name"] for run in ask(root, "lookable")["runs"] if run["kinds"] == ["moving"]]
    told: list[Any] = []
    arguments = {"strength": 2.0, "persistence": 1.0, "runs": names}
    asked = {"task": "dials", "arguments": arguments, "root": str(root), "allow_code": False}
    found = work(asked, told.append)
    assert [each["point"]["name"] for each in told[1:]] == ["random encoder", "pixel PCA", *names]
    clean = {point["name"]: point for point in ask(root, "dials", strength=0.0, runs=names)["points"]}
    for point in found["points"]:
        assert clean[point["name"]]["nuisance"] is None
        assert clean[point["name"]]["state"] > point["state"], "a distractor costs everybody"
    frames = np.frombuffer(base64.b64decode(told[0]["clip"]["pixels"]), dtype=np.uint8).reshape(24, 28, 28)
    assert (frames.std(0) == 0).any(), "a fixed distractor stays where the digit never is"


def test_points_are_what_the_instruments_say(root: Path) -> None:
    clips = Clips.of(World(strength=2.0).stream(0))
    encoder = load(root / CELL)
    parts = {split: features(encoder, clips.batches[split]) for split in ("train", "validation", "test")}
    scores = state(Subject(Untrained(encoder), parts["train"], parts["validation"], parts["test"]))
    found = ask(root, "dials", strength=2, runs=[CELL])["points"][-1]
    assert (found["state"], found["nuisance"]) == (scores["state_r2"], scores["nuisance_r2"])


def test_a_run_that_cannot_be_read_spoils_no_other_point(root: Path) -> None:
    found = ask(root, "dials", runs=["ijepa", "../runs", "nowhere", CELL])["points"]
    assert ["error" in point for point in found] == [False, False, True, True, True, False]
    assert "moving object" in found[2]["error"]


def test_copying_the_last_frame_tells_nothing_apart(root: Path) -> None:
    found = ask(root, "surprise", kind="continuity", pair=5)
    curves = {curve["name"]: curve for curve in found["curves"]}
    assert set(curves) == {"untrained", "copy"}
    assert curves["copy"]["told_apart"] == 0.5
    possible, impossible = (
        np.frombuffer(base64.b64decode(found[name]), dtype=np.uint8).reshape(16, 32, 32)
        for name in ("possible", "impossible")
    )
    assert np.array_equal(possible[: found["frame"]], impossible[: found["frame"]])
    assert not np.array_equal(possible[found["frame"]], impossible[found["frame"]])
    assert ask(root, "surprise", kind="continuity", pair=6)["possible"] != found["possible"]


@pytest.mark.parametrize("kind", ["gravity", "flicker"])
def test_a_run_is_surprised_in_its_own_world(kind: str, root: Path) -> None:
    found = ask(root, "surprise", run="expecting", kind=kind)
    assert [curve["name"] for curve in found["curves"]] == ["run", "untrained", "copy"]
    assert found["is_legal"] == (kind == "flicker")
    for curve in found["curves"]:
        assert len(curve["frames"]) == len(curve["possible"]) == len(curve["impossible"])
        assert curve["frames"][0] == found["context"]
    run, untrained = found["curves"][:2]
    assert run["possible"] != untrained["possible"], "the run has its trained weights, the other its first ones"


@pytest.mark.parametrize("name", [CELL, PICTURE_CELL, "ijepa", "expecting"])
def test_an_opened_run_has_the_weights_it_ended_with(name: str, root: Path) -> None:
    opened = open_run(root, name)
    first = next(iter(opened.run.objective.probed_encoders().values()))
    saved, found = load(root / name).state_dict(), first.state_dict()
    assert all(torch.equal(saved[key], found[key]) for key in saved)
    first = opened.make().objective.encoder.state_dict()
    assert not all(torch.equal(first[key], found[key]) for key in found)
    assert open_run(root, name) is opened


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"words": None, "recipe": None}, "says no command"),
        ({"recipe": "no-such-recipe"}, "has not got"),
        ({"words": ["--no-such-flag"]}, "does not understand"),
        ({"words": ["--help"]}, "does not understand"),
        ({"words": "--steps 1"}, "no list of words"),
        ({"words": ["--steps", "1", "--dim", "8"]}, "does not understand|do not fit"),
    ],
)
def test_a_run_that_cannot_be_made_again_says_why(
    facts: dict[str, Any], message: str, root: Path, tmp_path: Path
) -> None:
    shutil.copytree(root / "expecting", tmp_path / "copy")
    file = tmp_path / "copy/run.json"
    known = {key: value for key, value in (json.loads(file.read_text()) | facts).items() if value is not None}
    file.write_text(json.dumps(known))
    with pytest.raises(ValueError, match=message):
        open_run(tmp_path, "copy")


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"command": "jepalab train ijepa"}, "no `jepalab compare` made"),
        ({"command": "jepalab compare 'distractor"}, "cannot be read"),
        ({"command": "jepalab compare distractor --thing dots --no-such"}, "does not understand"),
        ({"command": "jepalab compare linear"}, "no `jepalab compare` made"),
        ({"lr": 0.5}, "others today"),
        ({"objective": "MAE"}, "others today"),
        ({"seed": "0"}, "says no seed"),
    ],
)
def test_a_cell_that_cannot_be_made_again_says_why(
    facts: dict[str, Any], message: str, root: Path, tmp_path: Path
) -> None:
    shutil.copytree(root / CELL, tmp_path / CELL)
    file = tmp_path / CELL / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))
    with pytest.raises(ValueError, match=message):
        open_run(tmp_path, CELL)


def test_weights_that_are_not_its_own_are_not_opened(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JEPALAB_DATA", str(root / "data"))
    shutil.copytree(root / "mae", tmp_path / "mae")
    last = RunFolder(tmp_path / "mae").latest()
    assert last
    shutil.copy(root / "expecting/checkpoints/step-000001/model.safetensors", last.path / "model.safetensors")
    with pytest.raises(ValueError, match="do not fit"):
        open_run(tmp_path, "mae")
    (last.path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="holds no weights"):
        open_run(tmp_path, "mae")
    shutil.rmtree(tmp_path / "mae/checkpoints")
    with pytest.raises(ValueError, match="no checkpoint"):
        open_run(tmp_path, "mae")


GOOD = base64.b64encode(bytes(SIDE * SIDE * 3)).decode()


@pytest.mark.parametrize(
    ("task", "arguments", "message"),
    [
        ("masks", {"grid": 3}, "grid between 4 and 24"),
        ("masks", {"grid": 10_000_000}, "grid between"),
        ("masks", {"grid": 10**400}, "grid between"),
        ("masks", {"grid": 14.0}, "grid as int"),
        ("masks", {"grid": True}, "grid as int"),
        ("masks", {"sampler": "../blocks"}, "sampler out of"),
        ("masks", {"sampler": "random", "hidden": math.nan}, "hidden between"),
        ("masks", {"seed": -1}, "seed between"),
        ("specimens", {"run": "../../etc"}, "no path below"),
        ("specimens", {"run": "/etc"}, "no path below"),
        ("specimens", {"run": 7}, "run as str"),
        ("specimens", {"run": "expecting"}, "not on still pictures"),
        ("holds", {"run": "nowhere", "picture": GOOD}, "There is no run"),
        ("holds", {"run": "mae"}, "picture as str"),
        ("holds", {"run": "mae", "picture": GOOD[:-4]}, "Wanted a picture of 16 x 16"),
        ("holds", {"run": "mae", "picture": GOOD + "AAAA"}, "Wanted a picture of 16 x 16"),
        ("holds", {"run": "mae", "picture": "!" * len(GOOD)}, "as base64"),
        ("holds", {"run": "mae", "picture": "é" * len(GOOD)}, "as base64"),
        ("holds", {"run": "mae", "picture": GOOD[:-1] + "="}, "Wanted 768 bytes|as base64"),
        ("holds", {"run": "mae", "picture": GOOD, "seed": 2**40}, "seed between"),
        ("holds", {"run": "mae", "encoder": "teacher", "picture": GOOD}, "encoder out of student"),
        ("neighbours", {"run": CELL, "picture": GOOD}, "not on still pictures"),
        ("neighbours", {"run": "mae", "picture": GOOD, "encoder": 3}, "encoder as str"),
        ("dials", {"strength": math.nan}, "strength between"),
        ("dials", {"strength": math.inf}, "strength between"),
        ("dials", {"persistence": 1.01}, "persistence between"),
        ("dials", {"share": 0}, "share between"),
        ("dials", {"scale": 1e9}, "scale between"),
        ("dials", {"coherence": "image"}, "coherence out of"),
        ("dials", {"driver": "wind"}, "driver out of"),
        ("dials", {"runs": "all"}, "runs as list"),
        ("dials", {"floors": 1}, "floors as bool"),
        ("dials", {"runs": [CELL] * 33}, "32 names at most"),
        ("dials", {"runs": [{"name": CELL}]}, "32 names at most"),
        ("surprise", {"kind": "magic"}, "kind out of"),
        ("surprise", {"pair": 16}, "pair between"),
        ("surprise", {"strength": -1}, "strength between"),
        ("surprise", {"run": "mae"}, "behind occluders"),
        ("surprise", {"run": "../runs/mae"}, "no path below"),
    ],
)
def test_what_a_page_should_not_send_is_refused(task: str, arguments: dict[str, Any], message: str, root: Path) -> None:
    with pytest.raises(ValueError, match=message):
        ask(root, task, **arguments)


def files_below(folder: Path) -> dict[str, int]:
    """Everything that lies there, with the time it was last changed."""
    return {str(place): place.lstat().st_mtime_ns for place in folder.rglob("*")}


def put_words(folder: Path, *, recipe: str = "", words: list[str] | None = None, command: str = "") -> Path:
    """A run folder that says these words, with weights that fit nothing."""
    said = {"command": command, "fingerprint": "0", "seed": 0} if command else {"recipe": recipe, "words": words}
    (folder / "checkpoints/step-000001").mkdir(parents=True)
    (folder / "checkpoints/step-000001/model.safetensors").write_bytes(b"nothing of the kind")
    write_json(folder / "run.json", said)
    return folder


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with runs from elsewhere, beside pictures that are nobody's business and a cache that is not ours."""
    draw_pictures(tmp_path / "private")
    (tmp_path / "private/labels.csv").write_text("file,label\ndisc/0.png,a\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/work.partial-1").write_text("somebody is at it")
    (tmp_path / "here/pictures").mkdir(parents=True)
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


@pytest.mark.parametrize(
    "said",
    [
        "train ijepa --data {private} --cache {elsewhere}",
        "train ijepa --data={private} --cache={elsewhere}",
        "train ijepa --data ../private --cache {elsewhere}",
        "train ijepa --data pictures/../../private",
        "train mae --data pictures --labels {private}/labels.csv",
        "train vicreg-jepa --thing {private}",
        "train vicreg-jepa --thing ../private",
        "train vicreg-jepa --background={private} --coherence image",
        "train vjepa --data {private}",
        "train vjepa --objects {private} --cache {elsewhere}",
        "train series-jepa --data {private} --cache {elsewhere}",
        "train vicreg-world --data {private}",
        "compare distractor --preset demo --thing {private}",
        "compare images --data {private} --cache {elsewhere} --out {elsewhere}",
        "compare images --data={private} --cache={elsewhere} --publish={elsewhere}",
        "compare video --data {private} --cache={elsewhere}",
        "compare sensors --data {private} --cache={elsewhere}",
        "compare pusht --data {private}",
        "train frozen-encoder-world --encoder {private}",
        "compare two-rooms --encoder {private}",
    ],
)
def test_words_from_elsewhere_read_nothing_and_write_nothing(said: str, stranger: Path) -> None:
    filled = said.format(private=stranger / "private", elsewhere=stranger / "elsewhere")
    command, name, *words = filled.split()
    known = find_recipes() if command == "train" else find_experiments()
    assert name in known
    if command == "train":
        put_words(stranger / "runs/sent", recipe=name, words=words)
        run = "sent"
    else:
        run = "sent/cells/pictures/G1/seed-0"
        put_words(stranger / "runs" / run, command=f"jepalab {filled}")
    before = files_below(stranger)
    with pytest.raises(ValueError, match=r"wants to read .*private.* JEPALAB_DATA="):
        open_run(stranger / "runs", run)
    assert files_below(stranger) == before


@pytest.mark.parametrize("flag", ["--tyro-write-completion", "--tyro_write_completion", "--tyro-print-completion"])
def test_words_do_not_make_the_parser_write(flag: str, stranger: Path) -> None:
    put_words(stranger / "runs/sent", recipe="ijepa", words=[flag, "bash", str(stranger / "elsewhere/script")])
    before = files_below(stranger)
    with pytest.raises(ValueError, match="something other than a run"):
        open_run(stranger / "runs", "sent")
    assert files_below(stranger) == before


def test_links_in_data_below_the_root_lead_nowhere(stranger: Path) -> None:
    draw_pictures(stranger / "runs/sent/data")
    put_words(stranger / "runs/sent", recipe="ijepa", words=["--data", str(stranger / "runs/sent/data")])
    (stranger / "runs/sent/data/zebra").symlink_to(stranger / "private")
    with pytest.raises(ValueError, match="zebra is a link to elsewhere"):
        open_run(stranger / "runs", "sent")


def test_a_folder_of_data_that_is_a_link_is_where_it_leads(stranger: Path) -> None:
    put_words(stranger / "runs/sent", recipe="ijepa", words=["--data", str(stranger / "runs/data")])
    (stranger / "runs/data").symlink_to(stranger / "private")
    with pytest.raises(ValueError, match=r"wants to read .*private"):
        open_run(stranger / "runs", "sent")


def test_ones_own_data_opens_and_the_cache_is_the_usual_one(
    root: Path, stranger: Path, usual_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = stranger / "elsewhere"
    shutil.copytree(root / "mae", stranger / "runs/mae")
    before = files_below(elsewhere)

    def say(data: str) -> None:
        file = stranger / "runs/mae/run.json"
        known = json.loads(file.read_text())
        at = known["words"].index("--data") + 1
        places = ["--cache", str(elsewhere), f"--cache={elsewhere}", "--out", str(elsewhere)]
        words = [*known["words"][:at], data, *known["words"][at + 1 :], *places]
        file.write_text(json.dumps(known | {"words": words}))
        weights = RunFolder(stranger / "runs/mae").latest()
        assert weights
        (weights.path / "model.safetensors").touch()

    shutil.copytree(root / "data", stranger / "here/data")
    say("data")
    opened = open_run(stranger / "runs", "mae")
    assert usual_cache.exists()
    shutil.copytree(root / "data", stranger / "mine")
    say(str(stranger / "mine"))
    with pytest.raises(ValueError, match=rf"JEPALAB_DATA={stranger}/mine to allow"):
        open_run(stranger / "runs", "mae")
    monkeypatch.setenv("JEPALAB_DATA", str(stranger / "mine"))
    assert open_run(stranger / "runs", "mae") is not opened
    assert files_below(elsewhere) == before


def test_every_setting_that_is_a_place_is_known_to_be_read_or_written() -> None:
    read = {
        "data",
        "encoder",
        "settings",
        "labels",
        "groups",
        "objects",
        "background",
        "backgrounds",
        "transfer",
        "transfer_labels",
    }
    for name, function in [*find_recipes().items(), *find_experiments().items()]:
        found = set(paths_in(inspect.signature(function, eval_str=True)))
        assert found <= read | WRITTEN, f"{name} has another place: say in WRITTEN if something is written there"


def paths_in(signature: inspect.Signature) -> Iterator[str]:
    for key, parameter in signature.parameters.items():
        yield from paths_of(key, parameter.annotation)


def paths_of(key: str, annotation: Any) -> Iterator[str]:
    """Names of settings that hold a path, through dataclasses, unions and what annotates."""
    if annotation is Path:
        yield key
    if is_dataclass(annotation):
        for name, hint in get_type_hints(annotation).items():
            yield from paths_of(name, hint)
    for part in get_args(annotation):
        yield from paths_of(key, part)


@pytest.mark.parametrize(
    "linked", ["checkpoints", "checkpoints/step-000001", "checkpoints/step-000001/model.safetensors"]
)
def test_weights_behind_a_link_are_not_opened(linked: str, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "expecting", tmp_path / "runs/sent")
    (tmp_path / "runs/sent" / linked).rename(tmp_path / "outside")
    (tmp_path / "runs/sent" / linked).symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match="through a link"):
        open_run(tmp_path / "runs", "sent")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["../../../outside"], "no path below"),
        (["/outside"], "does not say by name|has lost"),
        ([""], "does not say by name"),
        (["a/b"], "does not say by name"),
        (["a\0b"], "no path below"),
        (["n" * 300], "no path below"),
        ([7], "does not say by name"),
        ([], "does not say by name"),
        ("student", "does not say by name"),
    ],
)
def test_encoders_of_odd_names_are_not_loaded(names: Any, message: str, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / CELL, tmp_path / "runs/sent")
    encoders = tmp_path / "runs/sent/encoders"
    shutil.copytree(encoders / json.loads((encoders / "names.json").read_text())["names"][0], tmp_path / "outside")
    assert load_moving(tmp_path / "runs", "sent")
    (encoders / "names.json").write_text(json.dumps({"names": names}))
    with pytest.raises(ValueError, match=message):
        load_moving(tmp_path / "runs", "sent")


@pytest.mark.parametrize("facts", [{"encoder": ["ConvEncoder"]}, {"encoder": "Path"}, {"arguments": {"dim": "x"}}])
def test_a_damaged_encoder_is_told_without_its_place(facts: dict[str, Any], root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / CELL, tmp_path / "sent")
    file = next((tmp_path / "sent/encoders").glob("*/config.json"))
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))
    with pytest.raises(ValueError, match="sent") as refused:
        load_moving(tmp_path, "sent")
    assert str(tmp_path) not in str(refused.value)


@pytest.mark.parametrize("linked", ["", "names.json", "student", "student/config.json", "student/model.safetensors"])
def test_encoders_behind_a_link_are_not_loaded(linked: str, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / CELL, tmp_path / "runs/sent")
    encoders = tmp_path / "runs/sent/encoders"
    name = json.loads((encoders / "names.json").read_text())["names"][0]
    at = encoders / linked.replace("student", name)
    at.rename(tmp_path / "outside")
    at.symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match="through a link"):
        load_moving(tmp_path / "runs", "sent")


@pytest.mark.parametrize("name", ["a" * 300, "b" * 600, "a\0b", "\ud800", "a/" * 200 + "a", "mae/run.json", "mae/.."])
def test_odd_names_of_folders_are_refused_in_words(name: str, root: Path) -> None:
    for ask_for in (open_run, load_moving):
        with pytest.raises(ValueError, match=r"\w"):
            ask_for(root, name)
