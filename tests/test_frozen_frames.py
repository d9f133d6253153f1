"""Dynamics on an encoder of pictures that was trained elsewhere: as it was, seen in its size, by a fixed projection."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.test_image_recipes import draw_folder
from tests.test_world_recipes import BENCH, QUICK, SEARCHED

from jepalab.backbones.frozen_frames import FrozenFrames
from jepalab.backbones.vit import ViT
from jepalab.cli import main
from jepalab.fit import fit
from jepalab.hub.encoders import save_encoder
from jepalab.hub.runs import load
from jepalab.hub.transformers import to_transformers
from jepalab.recipes import two_rooms, worlds
from jepalab.recipes.stored_encoder import StoredEncoder
from jepalab.recipes.world_judging import acting_subjects, understanding
from jepalab.recipes.world_lab import WorldLab
from jepalab.types import WorldModel


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of the image lab."""
    folder = tmp_path_factory.mktemp("pictures")
    place, run = draw_folder(folder / "data"), folder / "run"
    small = ["--size", "32", "--patch", "8", "--width", "32", "--depth", "2", "--num-heads", "2", "--head-width", "32"]
    words = ["--data", str(place), *small, "--steps", "2", "--batch-size", "8", "--cache", str(folder / "cache")]
    assert main(["train", "mae", *words, "--out", str(run)]) == 0
    return run


def test_an_encoder_of_the_image_lab_sees_rooms_and_stays_as_it_was(learned: Path) -> None:
    run = worlds.frozen_encoder_world(BENCH, given=StoredEncoder(learned))
    encoder = run.objective.encoder
    assert isinstance(encoder, FrozenFrames)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    batch = BENCH.stream().batch(0)
    z = encoder(batch.x)
    assert z.shape == (4, 5, BENCH.network.dim)
    fit(run, device="cpu")
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert torch.equal(run.objective.eval().encoder(batch.x), z)
    frame = torch.nn.functional.interpolate(batch.x[:, 2], size=(32, 32), mode="bilinear", antialias=True)
    tokens = load(learned)(frame[:, None, [0, 1, 1]]).flatten(1)
    torch.testing.assert_close((tokens - encoder.mean) @ encoder.basis, z[:, 2], rtol=1e-3, atol=1e-3)
    assert isinstance(run.objective, WorldModel)
    (subject,) = acting_subjects(run.objective, BENCH.stream(), planning=QUICK, share=0.1).values()
    assert "position_r2" in understanding(subject)


def test_the_projection_keeps_what_varies_most_in_one_unit(learned: Path) -> None:
    frames = BENCH.stream().batch(1).x
    wide = FrozenFrames.fitted(load(learned), frames, size=32, channels=3, dim=6)
    assert float(wide(frames).flatten(0, 1).var(0).mean()) == pytest.approx(1.0, rel=1e-3)
    spread = wide(frames).flatten(0, 1).std(0)
    assert (spread.diff() < 1e-4).all()
    pooled = FrozenFrames.fitted(load(learned), frames, size=32, channels=3, dim=6, tokens="mean")
    assert len(pooled.mean) * 16 == len(wide.mean)
    with pytest.raises(ValueError, match="Wanted 40 components out of 20 frames"):
        FrozenFrames.fitted(load(learned), frames, size=32, channels=3, dim=40)
    assert wide.train().encoder.training is False
    kept = wide(frames, keep=torch.tensor([[3], [1], [0], [2]]))[:, 0]
    torch.testing.assert_close(kept, wide(frames)[range(4), [3, 1, 0, 2]], rtol=1e-4, atol=1e-4)


def test_transformers_folders_serve_too_and_others_are_refused(tmp_path: Path) -> None:
    grey = ViT((4, 4), patch=(8, 8), channels=1, dim=16, depth=1, num_heads=2)
    to_transformers(grey, tmp_path / "theirs")
    found = StoredEncoder(tmp_path / "theirs").open(BENCH.stream().batch(0).x, dim=4)
    assert (found.channels, found.size) == (1, 32)
    x = torch.rand(1, 1, 2, 32, 32)
    wanted = (found.encoder(x.amax(2, keepdim=True)).flatten(1) - found.mean) @ found.basis
    torch.testing.assert_close(found(x)[:, 0], wanted)
    clips = ViT((2, 4, 4), patch=(2, 8, 8), channels=1, dim=16, depth=1, num_heads=2)
    save_encoder(clips, tmp_path / "clips")
    with pytest.raises(ValueError, match="Wanted an encoder of still pictures"):
        StoredEncoder(tmp_path / "clips").open(x, dim=1)
    with pytest.raises(ValueError, match="name its folder with --encoder"):
        StoredEncoder().open(x, dim=1)


def test_it_competes_where_it_is_given_and_is_known_by_its_weights(
    learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(WorldLab, "read_tuned", lambda _: {"conditions": {"fixed": {"J1": SEARCHED}}})
    assert "F" not in {cell.arm for cell in two_rooms.plan(QUICK, preset="all").cells}
    cell = next(c for c in two_rooms.plan(QUICK, given=StoredEncoder(learned)).cells if c.arm == "F")
    assert str(learned) not in repr(cell)
    named = StoredEncoder(learned).named()
    assert len(named.digest) == 64
    assert named.digest in repr(cell)
    with pytest.raises(ValueError, match="holds another encoder than that this began with"):
        replace(named, digest="0" * 64).open(BENCH.stream().batch(0).x, dim=2)


def test_it_is_a_recipe_of_the_command_line(learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worlds, "JUDGING", replace(worlds.JUDGING, subjects=partial(acting_subjects, planning=QUICK)))
    words = ["--encoder", str(learned), "--num-walks", "40", "--steps", "2", "--batch-size", "4", "--dim", "8"]
    assert main(["train", "frozen-encoder-world", *words, "--out", str(tmp_path / "run")]) == 0
    quick = ["--episodes", "2", "--num-steps", "4", "--horizon", "3", "--num-samples", "10", "--num-iterations", "1"]
    assert main(["plan", str(tmp_path / "run"), *quick, "--no-floors"]) == 0
