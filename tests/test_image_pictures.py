"""Pictures of what encoders see, and the decoder trained afterwards, against plain computations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge as SklearnRidge

from jepalab.backbones.denoiser import DenoisingDecoder
from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.pca import PixelPCA
from jepalab.backbones.teachers import EMATeacher
from jepalab.backbones.vit import ViT, patchify
from jepalab.compare.cells import Cell
from jepalab.compare.image_pictures import draw_image_cell
from jepalab.data.images import Images
from jepalab.data.sample_stream import SampleStream
from jepalab.instruments.image_pictures import (
    attention_received,
    draw_mask,
    draw_objective,
    mask_planes,
    nearest,
)
from jepalab.instruments.labelled import labelled_subjects
from jepalab.instruments.patch_colours import patch_colours
from jepalab.instruments.posthoc import fit_decoder, posthoc, psnr
from jepalab.losses.denoising import PredictVelocity
from jepalab.masks.blocks import Blocks
from jepalab.masks.random import RandomMask
from jepalab.objectives.denoise import Denoise
from jepalab.objectives.mae import MAE
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.objectives.untrained import Untrained
from jepalab.run import Run
from jepalab.types import Mask

SIDE, PATCH = 16, 4
GRID = (SIDE // PATCH, SIDE // PATCH)


@pytest.fixture
def images(generator: torch.Generator) -> Images:
    labels = torch.arange(120) % 3
    pixels = torch.randint(0, 120, (120, SIDE, SIDE, 3), generator=generator) + 40 * labels[:, None, None, None]
    splits = torch.tensor([0] * 80 + [1] * 20 + [2] * 20, dtype=torch.int8)
    return Images(
        pixels=pixels.to(torch.uint8).numpy(),
        labels=labels,
        names=["a", "b", "c"],
        splits=splits,
        skipped={},
        digest="digest",
        source="memory",
    )


def encoder() -> ViT:
    torch.manual_seed(0)
    return ViT(GRID, patch=(PATCH, PATCH), channels=3, dim=24, depth=2, num_heads=2)


def jepa() -> MaskedJEPA:
    vit = encoder()
    predictor = MaskedPredictor(24, 24, grid=GRID, width=12, depth=1, num_heads=2)
    return MaskedJEPA(vit, predictor=predictor, masks=Blocks(GRID), teacher=EMATeacher(vit))


def mae() -> MAE:
    decoder = MaskedPredictor(24, 48, grid=GRID, width=12, depth=1, num_heads=2)
    return MAE(encoder(), decoder=decoder, masks=RandomMask(GRID))


def denoiser() -> Denoise:
    decoder = DenoisingDecoder(24, 48, grid=GRID, width=12, depth=1, num_heads=2)
    return Denoise(encoder(), decoder=decoder, predict=PredictVelocity())


COMMON = {"images", "neighbours", "same", "decoded", "decoded_pooled"}
OF_PATCHES = COMMON | {"features", "attention"}


@pytest.mark.parametrize(
    ("build", "names"),
    [
        (jepa, OF_PATCHES | {"context", "target"}),
        (mae, OF_PATCHES | {"context", "target", "reconstructed"}),
        (denoiser, OF_PATCHES | {"samples"}),
        (lambda: Untrained(PixelPCA(3 * SIDE**2, dim=24)), COMMON),
    ],
)
def test_each_objective_shows_what_it_has(build, names: set[str], images: Images) -> None:
    objective = build()
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    found = draw_objective(objective, SampleStream(images, batch_size=4))
    assert found.keys() == names
    assert found["images"].shape == (8, SIDE, SIDE, 3)
    assert found["neighbours"].shape == (6, 5, SIDE, SIDE, 3)
    assert all(value.dtype == np.uint8 for name, value in found.items() if value.ndim >= 4)
    assert objective.training, "left as it was"
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())


def test_features_are_those_of_the_encoder_that_stands_for_the_arm(images: Images) -> None:
    objective = mae()
    objective.keep_average()
    assert objective.average is not None
    for parameter in objective.average.parameters():
        parameter.data.normal_()
    stream = SampleStream(images, batch_size=4)
    last, other = (draw_objective(objective, stream, encoder=name) for name in ("student", "average"))
    assert not np.array_equal(last["attention"], other["attention"])
    assert np.array_equal(last["reconstructed"], other["reconstructed"]), "the decoder goes with the weights as trained"


def test_pictures_are_kept_of_one_seed_and_the_named_arms(images: Images, tmp_path: Path) -> None:
    run = Run(objective=mae(), stream=SampleStream(images, batch_size=4), steps=1, seed=3)
    cell = Cell("G1", "plain", lambda seed: run)
    draw_image_cell(cell, run, tmp_path, seed=0)
    draw_image_cell(cell, run, tmp_path, seed=3, arms=("J1",))
    assert not list(tmp_path.rglob("*.npz"))
    draw_image_cell(cell, run, tmp_path, seed=3)
    with np.load(tmp_path / "plain" / "G1.stills.npz", allow_pickle=False) as arrays:
        assert "reconstructed" in arrays


def test_masks_are_told_patch_by_patch() -> None:
    target = torch.tensor([[[1, 2], [3, 3]]])
    present = torch.tensor([[[True, True], [True, False]]])
    context, blocks = mask_planes(Mask(torch.tensor([[0, 5]]), target, present), 6)
    assert context.tolist() == [[True, False, False, False, False, True]]
    assert blocks[0].astype(int).tolist() == [[0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0]]


def test_a_filler_hides_nothing() -> None:
    target, present = torch.tensor([[[3, 3, 1]]]), torch.tensor([[[True, False, False]]])
    assert mask_planes(Mask(torch.tensor([[0]]), target, present), 4)[1].tolist() == [[[False, False, False, True]]]


def test_drawing_masks_does_not_move_training_on() -> None:
    objective = mae()
    draw_mask(objective, 4)
    assert int(objective.masks.step) == 0
    assert draw_mask(Untrained(encoder()), 4) is None


def test_attention_is_the_softmax_written_out(generator: torch.Generator) -> None:
    vit, x = encoder(), torch.rand(2, 1, 3, SIDE, SIDE, generator=generator)
    with torch.no_grad():
        found = attention_received(vit, x)
        z = vit.transformer.blocks[0](vit.embed(vit.patches(x)) + vit.positions)
        block = vit.transformer.blocks[1]
        q, k, _ = block.qkv(block.norm1(z)).chunk(3, dim=-1)
        total = torch.zeros(2, 16)
        for head in range(2):
            part = slice(12 * head, 12 * head + 12)
            for b in range(2):
                scores = q[b, :, part] @ k[b, :, part].T / 12**0.5
                total[b] += (scores.exp() / scores.exp().sum(1, keepdim=True)).mean(0) / 2
    torch.testing.assert_close(found, 16 * total)
    torch.testing.assert_close(found.mean(1), torch.ones(2))


def test_features_are_sklearns_components(generator: torch.Generator) -> None:
    fitted = torch.randn(20, 4, 6, generator=generator) * torch.tensor([5.0, 3, 2, 1, 0.5, 0.2])
    colours = patch_colours(fitted[:3], fitted=fitted)
    rows = fitted.flatten(0, 1).numpy()
    pca = PCA(3).fit(rows)
    along = pca.transform(fitted[:3].flatten(0, 1).numpy())
    for i, component in enumerate(pca.components_):
        upwards = np.sign(component[np.abs(component).argmax()])  # colours grow towards the largest weight
        shown = colours.reshape(-1, 3)[:, i].astype(float)
        inside = (shown > 0) & (shown < 255)
        assert np.corrcoef(shown[inside], upwards * along[inside, i])[0, 1] > 0.999


def test_neighbours_are_the_closest_by_cosine(generator: torch.Generator) -> None:
    known = torch.randn(30, 2, 5, generator=generator)
    labels = torch.randint(-1, 3, (30,), generator=generator)
    place, same = nearest(known[:4], known, labels=labels[:4], known=labels)
    pool = known.mean(1)
    pool = pool - pool.mean(0)
    for i in range(4):
        cosine = torch.nn.functional.cosine_similarity(pool[i][None], pool)
        assert place[i].tolist() == cosine.argsort(descending=True)[:5].tolist()
        assert place[i, 0] == i
    for i, j in np.ndindex(4, 5):
        own, other = int(labels[i]), int(labels[place[i, j]])
        assert int(same[i, j]) == (-1 if min(own, other) < 0 else own == other)


def test_linear_part_is_ridge_regression_from_each_token(generator: torch.Generator) -> None:
    x = torch.rand(40, 3, 8, 8, generator=generator)
    z = torch.randn(40, 4, 12, generator=generator) + patchify(x[:, None], (4, 4))[..., :12]
    decoder = fit_decoder(z[:30], x[:30], z[30:], x[30:], num_steps=1)
    rows, y = z[:30].flatten(0, 1), patchify(x[:30, None], (4, 4)).flatten(0, 1)
    mean, std = rows.mean(0), rows.std(0, correction=0)
    scale = y.std(0, correction=0)
    ridge = SklearnRidge(alpha=decoder.linear.lambda_)
    ridge.fit(((rows - mean) / std).numpy(), ((y - y.mean(0)) / scale).numpy())
    drawn = torch.as_tensor(ridge.predict(((z[30:].flatten(0, 1) - mean) / std).numpy())) * scale + y.mean(0)
    found = patchify(decoder(z[30:], is_linear=True)[:, None], (4, 4)).flatten(0, 1)
    torch.testing.assert_close(found, drawn.float().clamp(0, 1), atol=1e-4, rtol=1e-3)


def test_pixels_that_are_in_the_tokens_come_back(generator: torch.Generator) -> None:
    x = torch.rand(60, 1, 8, 8, generator=generator)
    tokens = patchify(x[:, None], (4, 4))
    noise = torch.randn(tokens.shape, generator=generator)
    held, lost = (fit_decoder(z[:40], x[:40], z[40:50], x[40:50], num_steps=20) for z in (tokens, noise))
    assert psnr(held(tokens[50:]), x[50:]) > 35
    assert psnr(lost(noise[50:]), x[50:]) < 13


def test_the_mlp_finds_what_is_not_linear(generator: torch.Generator) -> None:
    x = torch.rand(3000, 1, 2, 2, generator=generator)
    z = torch.cat([torch.sin(4 * x.flatten(1)), torch.cos(4 * x.flatten(1))], 1)[:, None]
    decoder = fit_decoder(z[:2500], x[:2500], z[2500:2750], x[2500:2750], num_steps=300)
    assert decoder.correction is not None
    assert psnr(decoder(z[2750:]), x[2750:]) > psnr(decoder(z[2750:], is_linear=True), x[2750:]) + 1


def test_psnr_is_its_definition() -> None:
    assert psnr(torch.zeros(4), torch.full((4,), 0.1)) == pytest.approx(20.0, abs=1e-5)
    assert psnr(torch.zeros(4), torch.zeros(4)) == float("inf")


def test_posthoc_scores_an_encoder_that_passes_pixels_through_higher(images: Images) -> None:
    stream = SampleStream(images, batch_size=4)
    pca = PixelPCA(3 * SIDE**2, dim=24)
    pca.fit(stream.held_out("train", 80).x)
    scores = posthoc(labelled_subjects(Untrained(pca), stream)["student"], num_steps=20)
    assert scores.keys() == {"posthoc_psnr", "posthoc_linear_psnr", "posthoc_pooled_psnr", "posthoc_mean_psnr"}
    blind = Untrained(PixelPCA(3 * SIDE**2, dim=24))  # projects everything on zero
    with torch.no_grad():
        assert scores["posthoc_psnr"] > scores["posthoc_mean_psnr"]
    assert posthoc(labelled_subjects(blind, stream)["student"], num_steps=5)["posthoc_psnr"] <= scores["posthoc_psnr"]
