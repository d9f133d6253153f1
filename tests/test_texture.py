"""Textured shapes and what reads them: pure streams, exact factors, oracle embeddings, an experiment of tuned arms."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations as combinations_of
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest
from torch import Tensor
from torch.nn.functional import avg_pool2d, one_hot

from jepalab.compare.tune import draw_trials
from jepalab.data.sprites import SPLITS
from jepalab.data.texture import CELL, FOLDS, KINDS, PLACES, RESIDUES, SHAPES, TURNS, TexturedShapes, Textures, cells
from jepalab.instruments.capacity import nuisance_capacity
from jepalab.instruments.texture import pooled_geometry, texture_budget
from jepalab.masks.random import RandomMask
from jepalab.objectives.mae import MAE
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.objectives.untrained import Untrained
from jepalab.recipes import settings as tuned_settings
from jepalab.recipes import texture, tuning
from jepalab.recipes.texture_arms import TexturedWorld
from jepalab.types import Batch, Features, Stream, Subject

PICTURES = torch.rand(10, 40, 36, generator=torch.Generator().manual_seed(0))
FOUR = ("noise", "coherent", "local", "light")


def textures(**strengths: float) -> Textures:
    return Textures(**strengths, images=PICTURES if strengths.get("image") else None)


def stream(num: int = 16, *, size: int = 32, seed: int = 0, max_count: int = 4, **strengths: float) -> TexturedShapes:
    return TexturedShapes(textures(**strengths), seed=seed, clips_per_batch=num, size=size, max_count=max_count)


def added(batch: Batch, clean: Batch) -> Tensor:
    return (batch.x - clean.x)[:, 0, 0]


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.x, other.x) and all(
        torch.equal(one.factors[name], other.factors[name]) for name in one.factors
    )


def test_batch_is_a_pure_function_of_seed_split_and_step() -> None:
    source = stream(4, noise=0.5, coherent=0.5, local=0.5, light=0.5, image=0.5)
    torch.manual_seed(0)
    first = source.batch(5)
    torch.manual_seed(1)
    assert same(source.batch(5), first)
    assert same(replace(source).batch(5), first)
    others = [source.batch(6), replace(source, seed=1).batch(5), *(source.held_out(split, 4) for split in SPLITS)]
    others += [replace(source, split=split).batch(5) for split in SPLITS[1:]]
    for factor in ("position", "nuisance", *KINDS):
        drawn = {batch.factors[factor].numpy().tobytes() for batch in (first, *others)}
        assert len(drawn) == 8, f"{factor} was drawn twice alike"


@pytest.mark.parametrize("size", [24, 32])
def test_stream_says_what_it_holds(size: int) -> None:
    source = stream(3, size=size, noise=0.1, coherent=0.1, local=0.1, light=0.1, image=0.1)
    batch = source.batch(0)
    num_cells = (size // CELL) ** 2
    assert isinstance(source, Stream)
    assert source.frames_per_batch == len(batch) == 3
    assert batch.x.shape == (3, 1, 1, size, size)
    assert {name: tuple(value.shape) for name, value in batch.factors.items()} == {
        "class": (3, 1),
        "position": (3, 1, 2),
        "count": (3, 1),
        "scale": (3, 1, 1),
        "angle": (3, 1, 2),
        "nuisance": (3, 1, num_cells),
        "noise": (3, 1, num_cells),
        "coherent": (3, 1, 3),
        "coherent_phase": (3, 1, 2),
        "local": (3, 1, num_cells),
        "local_length": (3, 1, 1),
        "light": (3, 1, 2),
        "image": (3, 1, num_cells),
    }
    assert stream().batch(0).factors.keys() == {"class", "position", "count", "scale", "angle", "nuisance"}
    assert not stream().batch(0).factors["nuisance"].any()


def combinations(batch: Batch) -> set[tuple[int, int, int, int]]:
    """(class, column, row, turn) of pictures of one shape, read back from what the factors say."""
    kind = batch.factors["class"][:, 0]
    place = (batch.factors["position"][:, 0] + 1) / 2 * PLACES
    sine, cosine = batch.factors["angle"][:, 0].unbind(1)
    turn = torch.atan2(sine, cosine) / (2 * math.pi) % 1 * TURNS * (torch.tensor(FOLDS)[kind] > 0)
    inner = ((place % 1 - 0.5).abs().amax(1) < 0.4999) & ((turn % 1 - 0.5).abs() < 0.4999)  # rounding decides nothing
    inner |= torch.tensor(FOLDS)[kind] == 0
    told = torch.cat([kind[:, None], place.long(), turn.long()[:, None]], 1)[inner]
    return {(kind, column, row, turn) for kind, column, row, turn in told.tolist()}


def test_splits_share_no_combination_and_each_has_its_share() -> None:
    found = {split: combinations(stream(max_count=1).held_out(split, 8_000)) for split in SPLITS}
    for one, other in combinations_of(SPLITS, 2):
        assert not found[one] & found[other]
    for split, share in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
        residues = {(column + 2 * row + 2 * kind + turn) % TURNS for kind, column, row, turn in found[split]}
        assert residues == set(RESIDUES[split])
        for kind in range(len(SHAPES)):
            num = sum(combination[0] == kind for combination in found[split])
            assert num == pytest.approx(share * PLACES**2 * (TURNS if FOLDS[kind] else 1), rel=0.02)
    assert sorted(residue for residues in RESIDUES.values() for residue in residues) == list(range(TURNS))


@pytest.mark.parametrize("split", SPLITS)
def test_every_split_has_every_class_place_and_turn_alike(split: Any) -> None:
    factors = stream(max_count=1).held_out(split, 4000).factors
    for kind in range(len(SHAPES)):
        mine = factors["class"][:, 0] == kind
        assert float(mine.float().mean()) == pytest.approx(0.2, abs=0.03)
        for axis in (0, 1):
            assert kstest(factors["position"][mine, 0, axis].numpy(), "uniform", args=(-1, 2)).pvalue > 1e-4
        turn = torch.atan2(*factors["angle"][mine, 0].T) / (2 * math.pi) % 1
        assert not turn.any() if FOLDS[kind] == 0 else kstest(turn.numpy(), "uniform").pvalue > 1e-4


@given(seed=st.integers(0, 999), size=st.sampled_from([24, 32, 48]), max_count=st.integers(1, 4))
@settings(max_examples=20, deadline=None)
def test_factors_keep_to_their_ranges(seed: int, size: int, max_count: int) -> None:
    batch = stream(64, seed=seed, size=size, max_count=max_count, coherent=1.0, local=1.0, light=1.0).batch(0)
    factors = {name: value[:, 0] for name, value in batch.factors.items()}
    assert set(factors["class"].tolist()) <= set(range(5))
    assert set(factors["count"].tolist()) <= set(range(1, max_count + 1))
    assert factors["position"].abs().max() <= 1
    assert ((factors["scale"] >= 2.2) & (factors["scale"] < 3.2)).all()
    length = factors["angle"].norm(dim=1)
    torch.testing.assert_close(length, (torch.tensor(FOLDS)[factors["class"]] > 0).float())
    torch.testing.assert_close(factors["coherent"][:, :2].norm(dim=1), torch.ones(64))
    assert ((factors["coherent"][:, 2].exp() >= 1.999) & (factors["coherent"][:, 2].exp() <= 6.001)).all()
    assert ((factors["local_length"].exp() >= 0.999) & (factors["local_length"].exp() <= 6.001)).all()
    slope = factors["light"].norm(dim=1) / math.sqrt(12 / 13)
    assert ((slope > 0.499) & (slope < 1.501)).all()


def test_shapes_have_the_area_of_their_disc() -> None:
    """Whatever the class, count r^2 pi: brightness does not tell the class, and no two shapes overlap."""
    batch = stream().held_out("train", 3000)
    count, scale = batch.factors["count"][:, 0], batch.factors["scale"][:, 0, 0]
    share = batch.x.sum((1, 2, 3, 4)) / (count * math.pi * scale**2)
    assert (share.amin() > 0.94, share.amax() < 1.09) == (True, True)
    for kind in range(len(SHAPES)):
        mine = batch.factors["class"][:, 0] == kind
        assert float(share[mine].mean()) == pytest.approx(1.01, abs=0.012)
    assert (batch.x.amin(), batch.x.amax()) == (0, 1)
    larger = stream(size=64).held_out("train", 500)
    area = larger.factors["count"][:, 0] * math.pi * (2 * larger.factors["scale"][:, 0, 0]) ** 2
    torch.testing.assert_close(larger.x.sum((1, 2, 3, 4)) / area, torch.ones(500), rtol=0, atol=0.02)


def test_shapes_lie_where_the_position_says() -> None:
    """The centre of brightness of all shapes together is the mean of their centres, as all have one area."""
    batch = stream().held_out("train", 500)
    pixels, mass = batch.x[:, 0, 0], batch.x.sum((1, 2, 3, 4))
    axis = torch.arange(32.0) - 15.5
    centre = torch.stack([(pixels.sum(1) * axis).sum(1) / mass, (pixels.sum(2) * axis).sum(1) / mass], 1)
    reach = 15.5 - 1.56 * 3.2
    torch.testing.assert_close(centre, batch.factors["position"][:, 0] * reach, rtol=0, atol=0.25)


def test_turns_and_shapes_are_what_they_are_called() -> None:
    """Of shapes in high resolution: the fourth harmonic of the outline's turn, holes, and corners by reach."""
    batch = stream(size=128, max_count=1).held_out("train", 200)
    kind = batch.factors["class"][:, 0]
    reach = (128 / 32) * (15.5 - 1.56 * 3.2)
    axis = torch.arange(128.0) - 63.5
    offset = batch.factors["position"][:, 0] * reach
    x, y = axis[None, None] - offset[:, 0, None, None], axis[None, :, None] - offset[:, 1, None, None]
    radius = (x**2 + y**2).sqrt() / (4 * batch.factors["scale"][:, 0, 0, None, None])
    inside = batch.x[:, 0, 0] > 0.5
    farthest = torch.where(inside, radius, 0.0).amax((1, 2))
    wanted = torch.tensor([1.0, math.sqrt(math.pi / 2), 1.5551, 1.2533, math.sqrt(4 / 3)])[kind]
    torch.testing.assert_close(farthest, wanted, rtol=0, atol=0.14)
    hollow = batch.x[:, 0, 0][
        torch.arange(200), (63.5 + offset[:, 1]).round().long(), (63.5 + offset[:, 0]).round().long()
    ]
    torch.testing.assert_close(hollow, (kind != SHAPES.index("ring")).float())
    for name, fold in (("square", 4), ("cross", 4), ("triangle", 3)):
        mine = kind == SHAPES.index(name)
        harmonic = torch.polar(radius[mine] ** fold * batch.x[mine, 0, 0], fold * torch.atan2(y, x)[mine]).sum((1, 2))
        told = torch.atan2(*batch.factors["angle"][mine, 0].T)
        turned = torch.exp(1j * (harmonic.angle() - told))
        assert (turned - turned[0]).abs().amax() < 0.2, f"the harmonic of a {name} follows its told turn"


@pytest.mark.parametrize("kind", KINDS)
def test_a_texture_changes_the_picture_and_nothing_else(kind: str) -> None:
    clean, others = stream(32).batch(3), {other: 0.5 for other in KINDS if other != kind}
    one = stream(32, **{kind: 0.5}).batch(3)
    for name, value in clean.factors.items():
        assert name == "nuisance" or torch.equal(value, one.factors[name])
    half = stream(32, **{kind: 0.25}).batch(3)
    torch.testing.assert_close(added(one, clean), 2 * added(half, clean), rtol=0, atol=1e-5)
    without, everything = stream(32, **others).batch(3), stream(32, **others, **{kind: 0.5}).batch(3)
    torch.testing.assert_close(added(everything, without), added(one, clean), rtol=0, atol=1e-5)
    for name, value in one.factors.items():
        assert name == "nuisance" or torch.equal(value, everything.factors[name])
    assert torch.equal(stream(32, **dict.fromkeys(KINDS, 0.0)).batch(3).x, clean.x)
    assert float(added(stream(2000, **{kind: 0.5}).batch(0), stream(2000).batch(0)).std()) == pytest.approx(
        0.5, abs=0.02
    )


@pytest.mark.parametrize("kind", ["noise", "local", "image"])
def test_realisation_is_the_added_picture_in_cells(kind: str) -> None:
    clean, seen = stream(8, size=24).batch(0), stream(8, size=24, **{kind: 0.5}).batch(0)
    wanted = avg_pool2d(added(seen, clean)[:, None], 4).flatten(1)
    torch.testing.assert_close(0.5 * seen.factors[kind][:, 0], wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(seen.factors["nuisance"][:, 0], wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(cells(added(seen, clean)), wanted)


def test_parameters_of_grating_and_light_give_the_added_picture() -> None:
    axis = torch.arange(32.0) - 15.5
    x, y = axis[None, None], axis[None, :, None]
    clean = stream(16).batch(0)
    seen = stream(16, coherent=0.5).batch(0)
    sine2, cosine2, log_cycles = seen.factors["coherent"][:, 0, :, None, None].unbind(1)
    sine, cosine = seen.factors["coherent_phase"][:, 0, :, None, None].unbind(1)
    angle = torch.atan2(sine2, cosine2) / 2
    along = (angle.cos() * x + angle.sin() * y) / 32
    wave = torch.sin(2 * math.pi * log_cycles.exp() * along + torch.atan2(sine, cosine))
    torch.testing.assert_close(added(seen, clean), 0.5 * math.sqrt(2) * wave, rtol=0, atol=1e-4)
    seen = stream(16, light=0.5).batch(0)
    push_x, push_y = seen.factors["light"][:, 0, :, None, None].unbind(1)
    ramp = (push_x * x + push_y * y) / math.sqrt((32**2 - 1) / 12)
    torch.testing.assert_close(added(seen, clean), 0.5 * ramp, rtol=0, atol=1e-5)


def test_local_texture_is_correlated_as_far_as_it_says() -> None:
    batch, clean = stream(4000, local=1.0).batch(0), stream(4000).batch(0)
    field, length = added(batch, clean), batch.factors["local_length"][:, 0, 0].exp()
    for low, high in ((1.0, 1.5), (2.5, 3.5), (5.0, 6.0)):
        mine = (length > low) & (length < high)
        for distance in (1, 2, 4):
            measured = (field[mine, :, distance:] * field[mine, :, :-distance]).mean()
            wanted = torch.exp(-((distance / length[mine]) ** 2)).mean()
            assert float(measured) == pytest.approx(float(wanted), abs=0.04)
    noise = added(stream(500, noise=1.0).batch(0), stream(500).batch(0))
    assert abs(float((noise[:, :, 1:] * noise[:, :, :-1]).mean())) < 0.01


def test_own_images_are_cropped_and_split_by_image() -> None:
    seen = {}
    for split in SPLITS:
        source = replace(stream(image=1.0), split=split)
        picture = source.batch(0).x - replace(stream(), split=split).batch(0).x
        assert float(picture.std()) == pytest.approx(1.0, abs=0.01)
        windows = PICTURES.unfold(1, 32, 1).unfold(2, 32, 1)
        windows = windows - windows.mean((-1, -2), keepdim=True)
        windows = windows / windows.std((-1, -2), correction=0, keepdim=True)
        close = (windows[None] - picture[:6, 0, 0, None, None, None]).abs().amax((-1, -2)) < 1e-4
        seen[split] = set(close.nonzero()[:, 1].tolist())
        assert close.sum() == 6
    for one, other in combinations_of(SPLITS, 2):
        assert not seen[one] & seen[other]


def test_wrong_dials_are_refused() -> None:
    with pytest.raises(ValueError, match=r"Strengths are 0 or more .*'noise': -1"):
        Textures(noise=-1.0)
    with pytest.raises(ValueError, match="Give `images`"):
        Textures(image=0.5)
    with pytest.raises(ValueError, match="multiple of 4"):
        TexturedShapes(size=30)
    with pytest.raises(ValueError, match="One to four shapes"):
        TexturedShapes(max_count=5)
    with pytest.raises(ValueError, match=r"at least 5 images of 32 x 32 .* got 10 of 20 x 20"):
        TexturedShapes(Textures(image=1.0, images=PICTURES[:, :20, :20])).batch(0)


def subject(source: TexturedShapes, read: Any, nums: tuple[int, int, int] = (768, 256, 384)) -> Subject:
    """A subject whose embeddings [b n d] are what `read` makes of each batch."""
    batches = [source.held_out(split, num) for split, num in zip(SPLITS, nums, strict=True)]
    train, validation, test = (Features(read(batch), batch) for batch in batches)
    return Subject(Untrained.tiny()[0], train, validation, test)


def semantic(batch: Batch) -> Tensor:
    kind, count = one_hot(batch.factors["class"], 5), one_hot(batch.factors["count"] - 1, 4)
    return torch.cat([kind, count, batch.factors["position"]], -1).float()


def test_budget_of_an_embedding_that_holds_the_factors_alone(generator: torch.Generator) -> None:
    scores = texture_budget(subject(stream(noise=0.5, light=0.5), semantic))
    assert scores["semantic"] == pytest.approx(1, abs=1e-3)
    assert scores["validation_semantic"] == pytest.approx(1, abs=1e-3)
    assert (scores["class_linear"], scores["count_linear"]) == (1.0, 1.0)
    assert scores["position_r2"] == pytest.approx(1, abs=1e-3)
    assert scores["nuisance_r2"] < 0.02
    assert scores["selectivity"] == scores["semantic"] - scores["nuisance_r2"]


def test_budget_of_an_embedding_that_holds_the_nuisance_alone() -> None:
    source = stream(noise=0.5, coherent=0.5, local=0.5, light=0.5)
    scores = texture_budget(subject(source, lambda b: torch.cat([b.factors[kind] for kind in FOUR], -1)))
    assert scores["nuisance_r2"] > 0.99
    assert all(scores[f"{kind}_r2"] > 0.99 for kind in FOUR)
    assert scores["semantic"] < 0.08
    assert scores["coherent_phase_r2"] < 0.05
    assert scores["selectivity"] < -0.9


def test_budget_reads_the_mean_over_tokens(generator: torch.Generator) -> None:
    """Tokens that differ by something that cancels in the mean are read as if they did not."""
    swing = torch.randn(11, generator=generator)
    spread = subject(stream(), lambda b: torch.cat([semantic(b) + swing, semantic(b) - swing], 1))
    assert texture_budget(spread) == pytest.approx(texture_budget(subject(stream(), semantic)), abs=1e-3)
    scores = texture_budget(spread)
    assert not {"nuisance_r2", "selectivity"} & scores.keys()
    geometry = pooled_geometry(spread)
    assert geometry == pytest.approx(pooled_geometry(subject(stream(), semantic)), abs=1e-3)
    assert geometry["rankme_centred"] > 5


def test_budget_wants_still_pictures() -> None:
    still = subject(stream(), semantic, (16, 16, 16))
    moving = Batch(x=still.test.batch.x, factors={"class": torch.zeros(16, 2).long()})
    with pytest.raises(ValueError, match="got 2 frames"):
        texture_budget(replace(still, train=Features(still.train.z, moving)))


def hidden(batch: Batch) -> Tensor:
    """The first cells, told by their sign and by their squares: linear readers get half of it."""
    added = batch.factors["nuisance"]
    return torch.cat([added[..., :8].sign(), added[..., :8] ** 2], -1)


def test_network_reads_what_a_line_cannot() -> None:
    source = stream(size=16, noise=1.0)
    scores = nuisance_capacity(subject(source, hidden))
    # Half the cells are in the embedding; their sign tells 2 / pi of a Gaussian number's variance.
    assert scores["capacity_linear_r2"] == pytest.approx(0.5 * 2 / math.pi, abs=0.04)
    assert scores["capacity_mlp_r2"] > scores["capacity_linear_r2"] + 0.08
    assert scores["capacity_mlp_r2"] < 0.51


def test_decoder_reads_tokens_where_they_are(generator: torch.Generator) -> None:
    """Each token holds its own cell, but their mean holds one number: the decoder alone can draw the picture."""
    axis = torch.randn(4, generator=generator)
    scores = nuisance_capacity(subject(stream(noise=1.0), lambda b: b.factors["nuisance"][:, 0, :, None] * axis))
    assert scores["capacity_linear_r2"] < 0.05
    assert scores["capacity_mlp_r2"] < 0.05
    assert scores["capacity_conv_r2"] > 0.9


def test_capacity_knows_when_there_is_nothing_to_read(generator: torch.Generator) -> None:
    assert nuisance_capacity(subject(stream(), semantic)) == {}
    noisy = subject(stream(noise=1.0, size=16), semantic)
    scores = nuisance_capacity(noisy)
    assert scores == nuisance_capacity(noisy), "the readers are deterministic"
    assert all(abs(score) < 0.05 for score in scores.values())
    odd = subject(stream(noise=1.0), semantic, (16, 16, 16))
    batch = replace(odd.train.batch, factors={"nuisance": torch.rand(16, 1, 5)})
    with pytest.raises(ValueError, match="1 frames of 5 numbers"):
        nuisance_capacity(replace(odd, train=Features(odd.train.z, batch)))


@pytest.mark.parametrize("arm", texture.ARMS)
def test_arms_start_from_one_encoder_and_have_heads_of_one_size(arm: str) -> None:
    run = texture.make_run(3, arm=arm, world=TexturedWorld("noise", 0.5), settings={"lr": 1e-4, "weight_decay": 0.0})
    assert (run.lr, run.weight_decay, run.seed) == (1e-4, 0.0, 3)
    assert run.stream.batch(0).x.shape == (64, 1, 1, 32, 32)
    if arm == "PCA":
        return
    reference = texture.make_run(3, arm="R", world=TexturedWorld("noise", 0.5), settings={})
    for name, value in reference.objective.encoder.state_dict().items():
        assert torch.equal(value, run.objective.encoder.state_dict()[name])
    parameters = run.count_parameters()
    if arm not in ("S", "R"):
        assert parameters["trained"] - parameters["encoder"] == pytest.approx(62_900, rel=0.1)
        loss = run.objective(run.stream.batch(0).map(lambda value: value[:4])).total
        loss.backward()
        assert loss.isfinite()


def test_the_twin_of_mae_hides_what_ijepa_hides() -> None:
    settings, world = {"lr": 1e-4, "weight_decay": 0.0}, TexturedWorld()
    jepa, mae, usual = (
        texture.make_run(0, arm=arm, world=world, settings=settings).objective for arm in ("J3", "G2m", "G2")
    )
    assert isinstance(jepa, MaskedJEPA)
    assert isinstance(mae, MAE)
    assert isinstance(usual, MAE)
    one, other = jepa.masks(8), mae.masks(8)
    assert torch.equal(one.context, other.context)
    assert torch.equal(one.target, other.target)
    assert isinstance(usual.masks.sampler, RandomMask)


def found_in(conditions: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    return {
        "conditions": {
            condition: {
                arm: {"settings": trial[0], "score": 0.5}
                for arm in arms
                for trial in [draw_trials(texture.tunable().knobs[arm], 1)]
            }
            for condition, arms in conditions.items()
        }
    }


def test_untuned_arms_never_compete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuned_settings, "files", lambda package: tmp_path)
    with pytest.raises(ValueError, match=r"untuned arms never compete; run `jepalab tune texture`"):
        texture.plan()
    target = tmp_path / "texture.tuned.json"
    target.write_text(json.dumps(found_in({"local 0.5": ("J3",)})))
    with pytest.raises(ValueError, match=r"No arm has been tuned for clean, noise 0\.5, coherent 0\.5"):
        texture.plan()
    trained = tuple(texture.tunable().knobs)
    target.write_text(json.dumps(found_in({"clean": trained, "noise 0.5": trained, "coherent 0.5": ("J3",)})))
    planned = texture.plan()
    competing = {(cell.arm, cell.condition) for cell in planned.cells}
    assert competing == {
        *((arm, condition) for arm in texture.ARMS for condition in ("clean", "noise 0.5")),
        *((arm, "coherent 0.5") for arm in ("J3", "R", "PCA")),
    }
    assert "G2 (coherent 0.5)" in planned.notes[0]
    assert "J3" not in planned.notes[0]
    assert {contrast.condition for contrast in planned.contrasts} == {"clean", "noise 0.5"}
    run = next(cell for cell in planned.cells if cell.arm == "J3").make(0)
    assert run.lr == planned.settings["conditions"]["clean"]["J3"]["settings"]["lr"]


def test_contrasts_are_declared_as_the_hypotheses_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuned_settings, "files", lambda package: tmp_path)
    trained = tuple(texture.tunable().knobs)
    tuned = ("clean", "noise 0.5", "coherent 0.5", "local 0.5", "light 0.5")
    (tmp_path / "texture.tuned.json").write_text(json.dumps(found_in(dict.fromkeys(tuned, trained))))
    planned = texture.plan(preset="full")
    assert len(planned.conditions) == 17
    assert not planned.notes
    assert len({contrast.name for contrast in planned.contrasts}) == len(planned.contrasts) == 2 * 17 + 4 + 4 + 4
    said = {(c.name[:3], c.better, c.than, c.metric, c.condition) for c in planned.contrasts}
    assert said >= {
        ("H1a", "J3", "G2", "semantic", "noise 0.5"),
        ("H1a", "G2", "J3", "capacity_conv_r2", "noise 1"),
        ("H1b", "G2", "J3", "semantic", "clean"),
        ("H1b", "G2", "J3", "semantic", "noise 0.1"),
        ("H1c", "G2", "J3", "semantic", "coherent 0.5"),
        ("H1c", "J3", "G2", "coherent_r2", "coherent 1"),
        ("H1d", "G2", "J3", "count_linear", "light 0.25"),
        ("H1d", "G2", "J3", "position_r2", "coherent 0.1"),
    }
    sources = {c.metric: c.source for c in planned.contrasts}
    assert all(sources.values())
    assert "own hypothesis" in sources["position_r2"], "Clevr's distances are told alike by both"
    assert "90.5" in sources["count_linear"]


def test_search_keeps_each_arms_best_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trials' training is replaced: it is made of parts that other tests hold, and takes hours."""

    def results(jobs: list[Any], *, budget: Any, **_: Any) -> Iterator[dict[str, Any]]:
        assert budget.amount == 7
        for cell, seed in jobs:
            score = 0.1 if cell.arm == "R" else 0.2 * int(cell.condition.split()[-1])
            metrics = {"validation_semantic": score}
            yield {"condition": cell.condition, "arm": cell.arm, "seed": seed, "metrics": metrics}

    monkeypatch.setattr(tuning, "run_grid", results)
    monkeypatch.chdir(tmp_path)
    search = tuning.Search(arms=("J3", "G2"), conditions=("noise 0.5",), num_trials=3, steps=7)
    found = tuning.tune(texture.tunable(), search)
    assert json.loads((tmp_path / "runs/tune-texture/texture.tuned.json").read_text()) == found
    assert (found["command"], found["steps"], found["num_trials"]) == ("jepalab tune texture", 7, 3)
    for arm in ("J3", "G2"):
        assert found["conditions"]["noise 0.5"][arm]["settings"] == draw_trials(texture.tunable().knobs[arm], 3)[2]
    with pytest.raises(ValueError, match=r"Unknown: noise 7\. Arms: J1, .*conditions: clean, noise 0\.1"):
        tuning.tune(texture.tunable(), replace(search, conditions=("noise 7",)))
