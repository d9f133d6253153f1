"""The task of the page /plan: two trained world models act as the library lets them; what cannot be is refused."""

from __future__ import annotations

import asyncio
import inspect
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import jepalab.web
from jepalab.catalogue import find_recipes
from jepalab.cli import main
from jepalab.compare.cells import Judging
from jepalab.flags import call_with_flags
from jepalab.instruments.acting import play
from jepalab.planning import open_world
from jepalab.recipes import worlds
from jepalab.recipes.world_films import distance_map
from jepalab.recipes.world_judging import Planning
from jepalab.records import RunFolder
from jepalab.training import Place
from jepalab.web.desk import Desk
from jepalab.web.tasks import plan

SMALL = [
    "--batch-size",
    "16",
    "--dim",
    "24",
    "--widths",
    "8",
    "16",
    "16",
    "--dynamics-width",
    "64",
    "--precision",
    "fp32",
]
SMALL += ["--num-frames", "7", "--ahead", "5", "--lr", "4e-3", "--precision", "fp32", "--device", "cpu"]
PAIR = {"vicreg-world": 120, "pixel-world": 12}  # steps; the first then reaches goals some steps away
NEAR = [54.0, 36.0]  # from the start of seed 0
QUICK = {"num_samples": 20, "horizon": 4, "num_iterations": 2, "num_executed": 2}


def train_pair(root: Path) -> Path:
    """A JEPA and a generative world model below this folder, trained once a session."""
    if not root.exists():
        for recipe, steps in PAIR.items():
            train(root / recipe, recipe, "--num-walks", "800", "--steps", str(steps))
    return root


def train(folder: Path, recipe: str, *words: str) -> None:
    """A run folder as `jepalab train` leaves it, but for its scores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worlds, "JUDGING", Judging(instruments=()))
        assert main(["train", recipe, *SMALL, *words, "--out", str(folder)]) == 0


def untrained(folder: Path, *words: str, recipe: str = "vicreg-world", objective: nn.Module | None = None) -> None:
    """A run folder before its first step, with the weights that its words make or others."""
    given = [*SMALL, "--num-walks", "60", *words]
    RunFolder(folder).describe(recipe=recipe, words=given)
    if objective is None:
        objective = call_with_flags(find_recipes()[recipe], Place(), program="test", words=given).made.objective
    RunFolder(folder).save(objective, None, step=0, seconds=0.0)


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_pair(tmp_path_factory.getbasetemp() / "plan-pair")


def ask(root: Path, **arguments: Any) -> tuple[dict[str, Any], list[Any]]:
    """The answer, and what was told on the way."""
    told: list[Any] = []
    return plan.run(arguments, root=root, allow_code=False, tell=told.append), told


def steps_of(told: list[Any], agent: int) -> list[list[float]]:
    return [place for news in told if news.get("agent") == agent for place in news["path"]]


@dataclass(frozen=True)
class Workplace:
    """Where things run.

    Args:
        num_workers: runs at a time.
    """

    num_workers: int = 0


def test_a_flag_of_the_place_reaches_a_function_that_asks_for_it() -> None:
    def function(*, samples: int = 1, num_workers: int = 0) -> tuple[int, int]:
        return samples, num_workers

    words = ["--samples", "5", "--num-workers", "3"]
    place, settings, made = call_with_flags(function, Workplace(), program="test", words=words)
    assert (place, settings, made) == (Workplace(3), {"samples": 5}, (5, 3))


def test_the_page_offers_every_world_model() -> None:
    script = (Path(jepalab.web.__file__).parent / "static/plan.js").read_text()
    offered = re.search(r"WORLDS = \[.*?\n(.*?)\];", script, re.DOTALL)
    assert offered
    made = {
        name.replace("_", "-")
        for name, recipe in vars(worlds).items()
        if inspect.isfunction(recipe) and recipe.__module__ == worlds.__name__ and not name.startswith("_")
    }
    assert {*re.findall(r'"([a-z-]+)"', offered[1])} == made


def test_what_is_opened_says_how_far_it_can_be_trusted(pair: Path) -> None:
    opened, told = ask(pair, what="open", runs=[*PAIR], seed=0)
    assert [news["loading"] for news in told] == [*PAIR]
    jepa, twin = opened["runs"]
    assert (jepa["camp"], twin["camp"]) == ("JEPA", "generative")
    assert (jepa["objective"], twin["objective"]) == ("JEPAWorld", "PixelWorld")
    assert [run["step"] for run in opened["runs"]] == [*PAIR.values()]
    assert jepa["r2"] > 0.9
    assert 0 < jepa["off"] < 4
    assert jepa["off"] < jepa["off_ahead"] < 8
    assert jepa["off_ahead"] < twin["off_ahead"]
    assert not jepa["draws_itself"]
    assert twin["draws_itself"]
    room = opened["room"]
    assert room["arena"] == [4.5, 59.5]
    assert room["walls"] == [[30.5, -0.5, 33.5, 25.5], [30.5, 38.5, 33.5, 64.5]]
    assert room["doors"] == [[30.5, 25.5, 33.5, 38.5]]
    assert not room["is_drawn"]
    assert opened["radius"] == 4.5


def test_a_goal_is_reached_block_by_block_beside_floor_and_ceiling(pair: Path) -> None:
    start = ask(pair, what="open", runs=[*PAIR], seed=0)[0]["room"]["start"]
    given = {"runs": [*PAIR], "seed": 0, "start": start, "goal": NEAR, "steps": 30, "luck": 1}
    answer, told = ask(pair, what="go", **given, floors=["random", "oracle"], pictures=True)
    assert answer["is_over"]
    jepa, twin, floor, ceiling = answer["agents"]
    assert jepa["has_arrived"]
    assert jepa["step"] < 15
    assert jepa["straight"] < 4.5
    assert twin["step"] == 30 or twin["has_arrived"]
    assert ceiling["has_arrived"]
    assert ceiling["step"] < 15
    assert floor["step"] > 0
    (about,) = [news for news in told if "same_room" in news]
    assert about["same_room"]
    assert about["left"] == pytest.approx(torch.dist(torch.tensor(start), torch.tensor(NEAR)).item(), abs=1e-3)
    agents = [news["agent"] for news in told if "agent" in news]
    assert agents[:4] == [0, 1, 2, 3]
    for agent, outcome in enumerate(answer["agents"]):
        path = torch.tensor([start, *steps_of(told, agent)])
        assert len(path) == outcome["step"] + 1
        assert float(path.diff(dim=0).norm(dim=1).max()) <= 1.8 + 0.02
    first = {agent: next(news for news in told if news.get("agent") == agent) for agent in range(4)}
    assert len(first[0]["imagined"]) == 12
    assert "imagined" not in first[2]
    assert first[3]["imagined"][:2] == first[3]["path"]  # the environment imagines what happens
    assert 0 < first[0]["cost"] < 1
    assert {"now", "picture"} <= first[0].keys()
    assert "now" not in first[3]


def test_an_episode_in_pieces_is_the_librarys_own_episode(pair: Path) -> None:
    opened, _ = ask(pair, what="open", runs=["vicreg-world"], seed=0)
    start, goal = opened["room"]["start"], [12.0, 40.0]
    given = {"runs": ["vicreg-world"], "start": start, "goal": goal, "steps": 12, "luck": 5, "how": QUICK}
    begun, told = ask(pair, what="go", **given, at_once=4)
    assert not begun["is_over"]
    ended, later = ask(pair, what="on", episode=begun["episode"])
    assert ended["is_over"]
    in_pieces = torch.tensor(steps_of([*told, *later], 0))
    stream, model = open_world(pair / "vicreg-world")
    env = stream.recorded["test"].rooms  # pyrefly: ignore[missing-attribute]
    how = Planning(**QUICK, planning_seed=5, precision="fp32")
    begin, end = env.random_pairs(1, torch.Generator().manual_seed(0), rooms="different")
    end = replace(end, position=torch.tensor([goal]))
    generator = torch.Generator().manual_seed(how.planning_seed)
    played = play(env, begin, end, how.agent(model, env), num_steps=12, radii=[4.5], generator=generator)
    whole = torch.cat([state.position for state in played.states[1:]])
    torch.testing.assert_close(in_pieces, whole, atol=0.011, rtol=0)


def test_a_map_is_the_reports_map_of_distances(pair: Path) -> None:
    goal = [14.0, 20.0]
    answer, _ = ask(pair, what="map", runs=[*PAIR], seed=0, goal=goal)
    stream, model = open_world(pair / "vicreg-world")
    env = stream.recorded["test"].rooms  # pyrefly: ignore[missing-attribute]
    start, end = env.random_pairs(1, torch.Generator().manual_seed(0), rooms="different")
    latent, way = distance_map(model, env, start, replace(end, position=torch.tensor([goal])))
    for rows, wanted in ((answer["maps"][0]["rows"], latent), (answer["way"], way)):
        found = torch.tensor([[float("nan") if each is None else each for each in row] for row in rows])
        known = found.isfinite()
        assert 0.9 < float(known.float().mean()) < 1
        torch.testing.assert_close(found[known], (wanted / wanted[known].max())[known], atol=6e-4, rtol=0)
    assert answer["maps"][0]["rank"] > max(0.6, answer["maps"][1]["rank"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"goal": [32.0, 10.0]}, "That goal lies in the wall"),
        ({"start": [32.0, 60.0]}, "That start lies outside the rooms"),
        ({"start": [33.505, 50.0]}, "That start lies in the wall"),
        ({"goal": [2.0, 20.0]}, "That goal lies outside the rooms"),
        ({"goal": [13.0, 12.0]}, "within 4.5 pixels of the start"),
        ({"goal": [float("nan"), 12.0]}, "Wanted goal as"),
        ({"goal": [True, 12.0]}, "Wanted goal as"),
        ({"goal": [1.0]}, "Wanted goal as"),
        ({"steps": 4_000}, "Wanted steps from 1 to 400"),
        ({"how": {"num_samples": 10**7}}, "Wanted num_samples from 10 to 500"),
        ({"how": {"horizon": 2, "num_executed": 3}}, "take no more of it"),
        ({"seed": -1}, "Wanted seed"),
        ({"runs": ["vicreg-world", "vicreg-world"]}, "names that differ"),
        ({"runs": []}, "names that differ"),
        ({"runs": ["elsewhere"]}, "There is no run 'elsewhere'"),
        ({"runs": ["../vicreg-world"]}, "no path below"),
        ({"what": "look"}, "Wanted what as open, go, on or map"),
        ({"what": "on", "episode": "gone"}, "That episode is gone"),
    ],
)
def test_what_cannot_be_is_refused(pair: Path, change: dict[str, Any], sentence: str) -> None:
    usual = {"what": "go", "runs": ["vicreg-world"], "seed": 0, "start": [12.0, 12.0], "goal": [24.0, 12.0], "steps": 1}
    with pytest.raises(ValueError, match=re.escape(sentence)):
        ask(pair, **usual | change)


def test_runs_that_cannot_act_here_are_refused(tmp_path: Path) -> None:
    RunFolder(tmp_path / "young").describe(recipe="vicreg-world", words=SMALL)
    other = nn.Linear(1, 1)
    untrained(tmp_path / "other-words", "--no-such-flag", "3", objective=other)
    untrained(tmp_path / "other-weights", objective=other)
    untrained(tmp_path / "unknown", recipe="fax-world", objective=other)
    untrained(tmp_path / "damaged", objective=other)
    (tmp_path / "damaged/checkpoints/step-000000/model.safetensors").write_bytes(b"nothing of the kind")
    for name, sentence in {
        "young": "has no checkpoint yet",
        "other-words": "does not understand today the words",
        "other-weights": "do not fit the network",
        "damaged": "do not fit the network that its command makes today, or are damaged",
        "unknown": "by the recipe 'fax-world'",
    }.items():
        with pytest.raises(ValueError, match=sentence) as refused:
            ask(tmp_path, what="open", runs=[name])
        assert str(tmp_path) not in str(refused.value)


def test_rooms_that_are_drawn_are_others_for_other_seeds(tmp_path: Path) -> None:
    untrained(tmp_path / "doors", "--layout", "random-door")
    untrained(tmp_path / "light", "--light", "door", "--flip", "0.5")
    rooms = [ask(tmp_path, what="open", runs=["doors"], seed=seed)[0]["room"] for seed in (0, 1, 1)]
    assert rooms[0]["is_drawn"]
    assert rooms[0]["walls"] != rooms[1]["walls"]
    assert rooms[1] == rooms[2]
    with pytest.raises(ValueError, match="learned in rooms that differ"):
        ask(tmp_path, what="open", runs=["doors", "light"])
    lit = ask(tmp_path, what="open", runs=["light"], seed=3)[0]["room"]
    assert len(lit["walls"]) == 4  # two doors, and one of them closed
    go = {"what": "go", "seed": 3, "goal": [10.0, 50.0], "steps": 8, "how": QUICK}
    _, told = ask(tmp_path, **go, runs=["light"], start=lit["start"])
    assert len({str(news["walls"]) for news in told if "walls" in news}) == 2


def test_models_of_frames_get_a_tenth_of_the_candidates(tmp_path: Path) -> None:
    untrained(tmp_path / "frames", recipe="frame-world")
    opened, _ = ask(tmp_path, what="open", runs=["frames"], seed=3)
    assert opened["runs"][0]["num_samples"] == 10
    assert opened["runs"][0]["draws_itself"]
    go = {"runs": ["frames"], "seed": 3, "start": opened["room"]["start"], "goal": [10.0, 50.0], "steps": 2}
    answer, told = ask(tmp_path, what="go", **go, how=QUICK, pictures=True)
    assert answer["agents"][0]["step"] == 2
    assert len(told[-1]["imagined"]) == 4


def test_models_of_stored_episodes_are_sent_elsewhere(tmp_path: Path) -> None:
    assert main(["collect", "two-rooms", "--episodes", "12", "--out", str(tmp_path / "episodes")]) == 0
    untrained(tmp_path / "run", "--data", str(tmp_path / "episodes"))
    with pytest.raises(ValueError, match="learned from stored episodes"):
        ask(tmp_path, what="open", runs=["run"])


def test_words_from_elsewhere_read_no_episodes_and_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JEPALAB_DATA", raising=False)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert main(["collect", "two-rooms", "--episodes", "12", "--out", str(tmp_path / "private")]) == 0
    runs, private = tmp_path / "runs", str(tmp_path / "private")
    untrained(runs / "absolute", "--data", private, objective=nn.Linear(1, 1))
    untrained(runs / "climbing", "--data=../private", objective=nn.Linear(1, 1))
    untrained(runs / "through-link", "--data", str(runs / "data"), objective=nn.Linear(1, 1))
    untrained(runs / "parser", objective=nn.Linear(1, 1))
    written = ["--tyro-write-completion", "bash", str(tmp_path / "here/script")]
    RunFolder(runs / "parser").describe(words=written)
    (runs / "data").symlink_to(private)
    before = {str(place): place.lstat().st_mtime_ns for place in tmp_path.rglob("*")}
    for name in ("absolute", "climbing", "through-link", "parser"):
        with pytest.raises(ValueError, match=r"JEPALAB_DATA=|something other than a run"):
            ask(runs, what="open", runs=[name])
    assert {str(place): place.lstat().st_mtime_ns for place in tmp_path.rglob("*")} == before
    monkeypatch.setenv("JEPALAB_DATA", private)
    with pytest.raises(ValueError, match="do not fit the network"):  # now it is made
        ask(runs, what="open", runs=["absolute"])


def test_weights_behind_a_link_and_odd_names_are_refused(tmp_path: Path) -> None:
    untrained(tmp_path / "runs/sent", objective=nn.Linear(1, 1))
    (tmp_path / "runs/sent/checkpoints").rename(tmp_path / "outside")
    (tmp_path / "runs/sent/checkpoints").symlink_to(tmp_path / "outside")
    for name, sentence in {"sent": "through a link", "n" * 90: "There is no run", "n" * 300: "no path below"}.items():
        with pytest.raises(ValueError, match=sentence):
            ask(tmp_path / "runs", what="open", runs=[name])


def test_a_go_that_is_cancelled_leaves_the_next_one_whole(pair: Path) -> None:
    async def cancel_and_go() -> tuple[list[str], dict[str, Any]]:
        desk = Desk(pair, deadline=120.0)
        try:
            far = {"what": "go", "runs": ["vicreg-world"], "start": [48.0, 26.0], "goal": [10.0, 10.0], "steps": 400}
            first = await desk.start("plan", far)
            async for _, news in first.news():
                if news["event"] == "progress" and "agent" in news["value"]:
                    await desk.cancel(first)
            again = await desk.start("plan", {**far, "steps": 2})
            async for _, news in again.news():
                last = news
            return [each["event"] for each in first.said], last
        finally:
            await desk.close()

    events, last = asyncio.run(cancel_and_go())
    assert events[-1] == "cancelled"
    assert last["event"] == "done"
    assert last["value"]["agents"][0]["step"] == 2
