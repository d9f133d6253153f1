"""Label efficiency, corruptions and token geometry against closed forms and independent computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from jepalab.backbones.pca import PixelPCA
from jepalab.data.images import Images
from jepalab.data.sample_stream import SampleStream
from jepalab.instruments.image_geometry import image_geometry
from jepalab.instruments.label_efficiency import (
    area_under,
    curve_of,
    draw_labels,
    efficiency_ratio,
    few_shots,
    label_efficiency,
    labels_needed,
)
from jepalab.instruments.labelled import LabelledSubject, labelled_subjects
from jepalab.instruments.robustness import CORRUPTIONS, blur, brightness, contrast, noise, pixelate, robustness
from jepalab.instruments.sample_geometry import token_geometry
from jepalab.objectives.untrained import Untrained


def make_subject(light: Tensor, labels: Tensor) -> LabelledSubject:
    """Pictures of 8 x 8 grey pixels of a given light, seen through four principal components."""
    generator = torch.Generator().manual_seed(0)
    x = light[:, None, None, None] + 0.1 * torch.randn(len(light), 8, 8, 1, generator=generator)
    images = Images(
        pixels=(255 * x).clamp(0, 255).round().to(torch.uint8).numpy(),
        labels=labels,
        names=[str(i) for i in range(int(labels.max()) + 1)],
        splits=torch.tensor([0, 0, 1, 2])[torch.arange(len(light)) % 4].to(torch.int8),
        skipped={},
        digest="drawn",
        source="a test",
    )
    encoder = PixelPCA(64, dim=4)
    encoder.fit(x.permute(0, 3, 1, 2)[:, None])
    return labelled_subjects(Untrained(encoder), SampleStream(images))["student"]


LABELS = torch.arange(240) // 4 % 2
EASY = make_subject(0.3 + 0.3 * LABELS, LABELS)


# ---------------------------------------------------------------- label efficiency


@given(st.integers(1, 6), st.integers(0, 20), st.integers(2, 5), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_draws_have_k_of_each_class(num_shots: int, draw: int, num_classes: int, seed: int) -> None:
    labels = torch.arange(8 * num_classes) % num_classes
    labels = 3 * labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    rows = draw_labels(labels, num_shots, draw)
    assert labels[rows].bincount(minlength=3 * num_classes)[::3].tolist() == [num_shots] * num_classes
    assert len(rows.unique()) == len(rows)
    assert torch.equal(rows, draw_labels(labels, num_shots, draw))


def test_draws_differ() -> None:
    labels = torch.arange(400) % 4
    seen = {tuple(draw_labels(labels, 5, draw).tolist()) for draw in range(10)}
    assert len(seen) == 10


def test_draws_are_shared_by_arms_with_other_embeddings() -> None:
    other = make_subject(torch.rand(240, generator=torch.Generator().manual_seed(3)), LABELS)
    assert torch.equal(EASY.train.index, other.train.index)
    for draw in range(3):
        assert torch.equal(draw_labels(EASY.train.labels, 2, draw), draw_labels(other.train.labels, 2, draw))


def test_penalty_comes_from_the_next_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted: list[tuple[tuple[float, ...], int]] = []

    class Recorder:
        def __init__(self, lambdas: tuple[float, ...] = (0.1, 1.0)) -> None:
            self.lambdas = lambdas

        def fit(self, z: Tensor, y: Tensor, z_validation: Tensor, y_validation: Tensor) -> Recorder:
            fitted.append((self.lambdas, len(y)))
            self.lambda_ = float(len(fitted)) if len(self.lambdas) > 1 else self.lambdas[0]
            return self

        def score(self, z: Tensor, y: Tensor) -> float:
            return self.lambda_

    monkeypatch.setattr("jepalab.instruments.label_efficiency.RidgeClassifier", Recorder)
    found = few_shots(EASY, shots=(2,), num_draws=3)
    assert [shot.lambda_ for shot in found] == [2.0, 3.0, 1.0]
    assert fitted[3:] == [((2.0,), 4), ((3.0,), 4), ((1.0,), 4)]


def test_label_efficiency_names_what_it_found() -> None:
    scores = label_efficiency(EASY, shots=(1, 10, 1000), num_draws=3)
    assert set(scores) == {"shot_1", "shot_10", "shot_all", "shot_all_labels", "shots_auc"}
    assert scores["shot_all_labels"] == 120
    assert scores["shot_1"] <= scores["shot_10"] <= scores["shot_all"] == 1
    expected = area_under({2: scores["shot_1"], 20: scores["shot_10"], 120: scores["shot_all"]})
    assert scores["shots_auc"] == pytest.approx(expected)
    assert curve_of(scores) == {1: scores["shot_1"], 10: scores["shot_10"]}


def test_area_of_straight_lines() -> None:
    assert area_under({1: 0.7, 8: 0.7}) == pytest.approx(0.7)
    assert area_under({2: 0.0, 4: 0.5, 8: 1.0}) == pytest.approx(0.5)
    # One octave at 1/2 on average and two at 1: (0.5 + 2) / 3.
    assert area_under({8: 1.0, 1: 0.0, 2: 1.0}) == pytest.approx(2.5 / 3)
    with pytest.raises(ValueError, match="at least 2 numbers of labels"):
        area_under({5: 0.5})


def test_labels_needed_between_points_lies_on_the_line_over_log2() -> None:
    curve = {1: 0.2, 4: 0.6, 16: 0.5, 64: 1.0}
    assert labels_needed(curve, 0.4) == pytest.approx(2)
    assert labels_needed(curve, 0.6) == pytest.approx(4)
    assert labels_needed(curve, 0.8) == pytest.approx(2**5)  # half of the way from 16 (0.6, the best so far) to 64
    assert labels_needed(curve, 0.1) == 1
    assert labels_needed(curve, 1.01) == math.inf


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_more_accuracy_needs_no_fewer_labels(accuracies: list[float], a: float, b: float) -> None:
    curve = {2**i: accuracy for i, accuracy in enumerate(accuracies)}
    low, high = sorted((a, b))
    assert labels_needed(curve, low) <= labels_needed(curve, high)
    assert math.isfinite(labels_needed(curve, max(accuracies)))


def test_ratio_of_a_shifted_curve_is_the_shift() -> None:
    """Arm a reaches every accuracy with a quarter of b's labels, in every seed: a ratio of 1/4 and no uncertainty."""
    numbers = [2**i for i in range(8)]
    a = [{n: 0.1 * math.log2(n) + offset for n in numbers} for offset in (0.2, 0.21, 0.25)]
    b = [{n: accuracy - 0.2 for n, accuracy in curve.items()} for curve in a]
    ratio = efficiency_ratio(a, b, 0.45, generator=np.random.default_rng(0))
    assert tuple(ratio) == pytest.approx((0.25, 0.25, 0.25))
    assert efficiency_ratio(b, a, 0.45, generator=np.random.default_rng(0)).estimate == pytest.approx(4)


def test_ratio_of_curves_that_do_not_get_there() -> None:
    good, bad = [{1: 0.0, 4: 1.0}] * 3, [{1: 0.0, 4: 0.1}] * 3
    assert tuple(efficiency_ratio(good, bad, 0.5, generator=np.random.default_rng(0))) == (0, 0, 0)
    assert tuple(efficiency_ratio(bad, good, 0.5, generator=np.random.default_rng(0))) == (math.inf,) * 3
    assert math.isnan(efficiency_ratio(bad, bad, 0.5, generator=np.random.default_rng(0)).estimate)
    alone = efficiency_ratio(good[:1], good[:1], 0.5, generator=np.random.default_rng(0))
    assert alone.estimate == 1
    assert math.isnan(alone.low)


def test_bounds_hold_the_truth_as_often_as_they_say() -> None:
    """Twelve seeds an arm, noise shared by none: 90 % intervals of a true ratio of 1/2 cover it about 90 % of times."""
    numbers, generator, hits = [2**i for i in range(8)], np.random.default_rng(0), 0
    for _ in range(100):
        a, b = (
            [{n: 0.1 * (math.log2(n) + head) + offset for n in numbers} for offset in generator.normal(0, 0.03, 12)]
            for head in (1, 0)
        )
        ratio = efficiency_ratio(a, b, 0.45, level=0.9, num_resamples=200, generator=generator)
        hits += ratio.low <= 0.5 <= ratio.high
    assert 78 <= hits <= 97


def test_ratio_refuses_curves_of_other_points() -> None:
    with pytest.raises(ValueError, match="the same numbers of labels"):
        efficiency_ratio([{1: 0.5}], [{2: 0.5}], 0.5, generator=np.random.default_rng(0))
    with pytest.raises(ValueError, match="pairs of curves, got 1 and 0"):
        efficiency_ratio([{1: 0.5}], [], 0.5, generator=np.random.default_rng(0))


# ---------------------------------------------------------------- corruptions


def test_blur_is_scipys(generator: torch.Generator) -> None:
    x = torch.rand(2, 3, 16, 16, generator=generator)
    found = blur(x, 1 / 8, generator)
    expected = gaussian_filter1d(x.numpy(), 2.0, axis=2, mode="nearest", radius=6)
    expected = gaussian_filter1d(expected, 2.0, axis=3, mode="nearest", radius=6)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)
    pillow = Image.fromarray((255 * x[0, 0]).round().byte().numpy()).filter(ImageFilter.GaussianBlur(2))
    inside = slice(4, 12)
    np.testing.assert_allclose(found[0, 0, inside, inside], np.asarray(pillow)[inside, inside] / 255, atol=0.03)


def test_pixelate_is_a_box_filter(generator: torch.Generator) -> None:
    x = torch.rand(2, 3, 16, 16, generator=generator)
    blocks = x.unflatten(2, (4, 4)).unflatten(4, (4, 4)).mean(dim=(3, 5))
    expected = blocks.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    torch.testing.assert_close(pixelate(x, 0.75, generator), expected)


def test_noise_contrast_and_brightness_do_what_their_strength_says(generator: torch.Generator) -> None:
    x = 0.4 + 0.2 * torch.rand(4, 3, 32, 32, generator=generator)
    assert (noise(x, 0.08, generator) - x).std() == pytest.approx(0.08, rel=0.03)
    weak = contrast(x, 0.75, generator)
    torch.testing.assert_close(weak.mean(dim=(1, 2, 3)), x.mean(dim=(1, 2, 3)))
    torch.testing.assert_close(weak.std(dim=(1, 2, 3)), 0.25 * x.std(dim=(1, 2, 3)))
    torch.testing.assert_close(brightness(x, 0.1, generator), x + 0.1)


@pytest.mark.parametrize("name", list(CORRUPTIONS))
def test_corruptions_stay_pictures_and_grow(name: str, generator: torch.Generator) -> None:
    corrupt, strengths = CORRUPTIONS[name]
    x = blur(torch.rand(4, 3, 32, 32, generator=generator), 1 / 16, generator)
    x = (x - x.amin()) / (x.amax() - x.amin())
    far = [float((corrupt(x, s, torch.Generator().manual_seed(0)) - x).square().mean()) for s in strengths]
    assert 0 < far[0] < far[1] < far[2]
    assert all(0 <= edge <= 1 for edge in corrupt(x, strengths[2], generator).aminmax())


def test_robustness_of_an_encoder_of_mean_light() -> None:
    """Light tells the class, so what leaves the mean alone costs nothing, and what adds light costs a lot."""
    scores = robustness(EASY)
    assert scores["robust_clean"] == 1
    assert scores["robust_blur"] == scores["robust_contrast"] == scores["robust_pixelate"] == 1
    assert scores["robust_brightness"] < 0.8
    five = ("noise", "blur", "contrast", "brightness", "pixelate")
    for name in five:
        each = [scores[f"severity_{name}_{i}"] for i in (1, 2, 3)]
        assert scores[f"robust_{name}"] == pytest.approx(sum(each) / 3)
    assert scores["severity_brightness_1"] > scores["severity_brightness_3"]
    assert scores["robust_mean"] == pytest.approx(sum(scores[f"robust_{name}"] for name in five) / 5)
    chance = float((EASY.test.labels == EASY.train.labels.mode().values).float().mean())
    assert scores["robust_relative_drop"] == pytest.approx((1 - scores["robust_mean"]) / (1 - chance))


def test_no_drop_from_chance() -> None:
    """With one number in all pictures, the probe names the largest class, and there is nothing to lose."""
    labels = (torch.arange(240) // 4 % 3).clamp(max=1)
    assert labels.float().mean() == pytest.approx(2 / 3)
    scores = robustness(make_subject(torch.full((240,), 0.5), labels))
    assert scores["robust_clean"] < 0.8
    assert ("robust_relative_drop" in scores) == (scores["robust_clean"] > 2 / 3)


# ---------------------------------------------------------------- geometry


def test_shares_of_known_variances(generator: torch.Generator) -> None:
    """Tokens are position (variance 4) + image (1) + noise (5): position explains 40 %, the image 10 %."""
    position = 2 * torch.randn(1, 60, 64, generator=generator)
    image = torch.randn(80, 1, 64, generator=generator)
    z = position + image + 5**0.5 * torch.randn(80, 60, 64, generator=generator) + 3
    found = token_geometry(z)
    assert found["position_share"] == pytest.approx(0.4, abs=0.02)
    assert found["image_share"] == pytest.approx(0.1, abs=0.02)
    assert found["token_std_positions"] == pytest.approx(9**0.5, rel=0.02)
    assert found["token_std_images"] == pytest.approx(6**0.5, rel=0.02)


def test_shares_at_the_ends(generator: torch.Generator) -> None:
    code = torch.randn(1, 9, 4, generator=generator).expand(5, -1, -1)
    assert token_geometry(code)["position_share"] == pytest.approx(1)
    assert token_geometry(code)["token_std_images"] == pytest.approx(0, abs=1e-6)
    assert token_geometry(code.transpose(0, 1))["image_share"] == pytest.approx(1)
    # Uncorrected, the mean of three rows of noise would explain a quarter of it.
    assert token_geometry(torch.randn(3, 500, 64, generator=generator))["position_share"] < 0.02
    assert token_geometry(torch.randn(500, 3, 64, generator=generator))["image_share"] < 0.02
    assert token_geometry(torch.ones(4, 4, 2)) == {}


def test_geometry_of_principal_components() -> None:
    """All pictures differ in light above all: one direction, near the pixels, that crops leave alone."""
    scores = image_geometry(EASY)
    assert 1 <= scores["rankme_centred"] < 4
    assert scores["effective_rank"] < 2.5
    assert scores["cka_with_pixels"] > 0.9
    assert "position_share" not in scores, "an encoder with one token has no positions"
    assert {"lidar", "uniformity", "rankme", "std"} <= scores.keys()
    assert 0 < scores["alignment"] < 0.5, "two crops of a picture, nearer than two of different ones would be"


def test_geometry_of_a_collapsed_encoder_leaves_out_what_is_undefined() -> None:
    encoder = PixelPCA(64, dim=4)
    scores = image_geometry(labelled_subjects(Untrained(encoder), SampleStream(EASY.samples))["student"])
    assert scores["rankme_centred"] == 0
    assert not {"cka_with_pixels", "alpha_req", "lidar"} & scores.keys()
