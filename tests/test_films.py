"""Films and counterfactuals: what they show is what happened and what was imagined, and where they are written."""

from __future__ import annotations

import builtins
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.test_acting import TrueWorld
from torch import Tensor

from jepalab.data.episode_videos import read_frames
from jepalab.envs.drawing import draw_dots
from jepalab.envs.two_rooms import TwoRooms
from jepalab.instruments.acting import Imagination, PlanningAgent
from jepalab.instruments.counterfactuals import STEADY, counterfactuals, sheet_of, steady_plans
from jepalab.instruments.film_files import FILMS, check_place, write_films
from jepalab.instruments.plan_films import GOAL, film_plans
from jepalab.recipes.world_planning import Planning

ENV = TwoRooms()


def draw(z: Tensor) -> Tensor:
    """The dot at the place that TrueWorld knows, and no walls."""
    dots = draw_dots(z.flatten(0, 1), size=65).unflatten(0, z.shape[:2])
    return torch.stack([dots, torch.zeros_like(dots)], 2)


def test_counterfactuals_are_what_each_plan_does_and_what_is_imagined_of_it() -> None:
    start = ENV.reset(1, torch.Generator().manual_seed(3))
    plans = steady_plans(ENV.bounds, num_steps=6, max_norm=1.5)
    assert [*plans] == [*STEADY, "still"]
    found = counterfactuals(ENV, TrueWorld(), start, plans, draw=draw)
    assert found.real.shape == (5, 7, 2, 65, 65)
    for k, (name, plan) in enumerate(plans.items()):
        state = start
        for t in range(7):
            torch.testing.assert_close(found.real[k, t], ENV.render(state)[0])
            place = start.position + plan[:t].sum(0)
            torch.testing.assert_close(found.imagined[k, t, 0], draw_dots(place, size=65)[0], rtol=0, atol=1e-3)
            if t < 6:
                state = ENV.step(state, plan[t : t + 1])
        assert float(plan.norm(dim=1).max()) == pytest.approx(0.0 if name == "still" else 1.5)
    picture = sheet_of(found, zoom=1)
    assert picture.shape == (5 * 2 * 65 + 4 * 4, 7 * (65 + 2), 3)


def test_counterfactuals_of_blocks_show_a_picture_a_block() -> None:
    start = ENV.reset(1, torch.Generator().manual_seed(3))
    plans = steady_plans(ENV.bounds, num_steps=6, max_norm=0.5)
    found = counterfactuals(ENV, TrueWorld(), start, plans, draw=draw, frameskip=3)
    each = counterfactuals(ENV, TrueWorld(), start, plans, draw=draw)
    torch.testing.assert_close(found.real, each.real[:, ::3])
    torch.testing.assert_close(found.imagined, each.imagined[:, ::3], rtol=0, atol=1e-3)


def test_films_of_worlds_without_a_point_show_the_goal_s_picture() -> None:
    planning = Planning(cross_room=0, same_room=2, num_steps=4, horizon=3, num_samples=10, precision="fp32")
    trial = planning.trial(ENV)
    played = trial.play(PlanningAgent(Imagination(TrueWorld()), planning.searching(), horizon=3))
    make = partial(film_plans, ENV, trial.manifest.goal, played, TrueWorld(), rows=[0], draw=draw, zoom=1)
    (bare,), (marked,) = make(locate=None), make(locate=lambda z: z.flatten(0, 1))
    assert bare.shape[2] == 3 * 65 + 2 * 4
    assert marked.shape[2] == 2 * 65 + 4
    x, y = trial.manifest.goal.position[0].round().int().tolist()
    assert tuple(marked[0, y, x]) == GOAL
    goal = bare[0, :, 2 * (65 + 4) :]
    assert goal[y, x].min() > 150 > bare[0, y, x].max()
    assert np.array_equal(bare[0, :, 2 * (65 + 4) :], bare[-1, :, 2 * (65 + 4) :])


@pytest.mark.parametrize("frameskip", [1, 2])
def test_films_imagine_from_what_the_search_imagined_from(frameskip: int) -> None:
    asked: list[tuple[Tensor, Tensor]] = []

    class Listening(TrueWorld):
        """Keeps the frames and the past that it imagines from."""

        def rollout(self, z: Tensor, past: Tensor, action: Tensor) -> Tensor:
            asked.append((z, past))
            return z[:, -1:, None].expand(-1, action.shape[1], action.shape[2], -1)

    planning = Planning(cross_room=0, same_room=1, num_steps=9, horizon=3, num_samples=4, num_iterations=1)
    trial = planning.trial(ENV)
    foresight = Imagination(Listening(), history=3, frameskip=frameskip, precision="fp32")
    played = trial.play(PlanningAgent(foresight, planning.searching(), horizon=3))
    searched, asked[:] = list(asked), []
    film_plans(
        *(ENV, trial.manifest.goal, played, Listening()),
        rows=[0],
        locate=None,
        draw=draw,
        history=3,
        frameskip=frameskip,
    )
    assert len(asked) > 5
    assert max(z.shape[1] for z, _ in asked) == 3
    for t, found in enumerate(asked[:9]):
        for seen, wanted in zip(found, searched[t // frameskip], strict=True):
            torch.testing.assert_close(seen, wanted)


@pytest.mark.parametrize("suffix", FILMS)
def test_a_film_is_written_as_its_suffix_says(tmp_path: Path, suffix: str) -> None:
    films = [np.full((num, 25, 31, 3), value, dtype=np.uint8) for num, value in ((4, 40), (2, 200))]
    place = tmp_path / "new" / f"film{suffix}"
    check_place(place, FILMS)
    write_films(place, films)
    if suffix == ".gif":
        with Image.open(place) as movie:
            assert (movie.size, movie.format) == ((31, 25), "GIF")
        return
    frames = read_frames(place, start=0.0, num=4 + 3 + 2 + 3, fps=12.0)
    assert frames.shape[1:] == (26, 32, 3)
    assert abs(int(frames[0, 5, 5, 0]) - 40) < 8
    assert abs(int(frames[-1, 5, 5, 0]) - 200) < 8


def test_places_that_cannot_be_written_are_told_of_before_anything_is_played(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"ends in .gif or .mp4"):
        check_place(tmp_path / "film.webm", FILMS)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        check_place(tmp_path / "file" / "film.gif", FILMS)
    (tmp_path / "film.gif").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        check_place(tmp_path / "film.gif", FILMS)
    usual = builtins.__import__

    def without_av(name: str, *others: Any) -> Any:
        if name == "av":
            raise ImportError(name)
        return usual(name, *others)

    monkeypatch.setattr(builtins, "__import__", without_av)
    with pytest.raises(ValueError, match=r"jepalab\[video\]"):
        check_place(tmp_path / "film.mp4", FILMS)
