"""Image instruments: extraction, what chooses without the test split, and probes against scikit-learn and PyTorch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from jaxtyping import Float, Int
from sklearn import linear_model
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from jepalab.backbones.vit import ViT
from jepalab.data.augmentation import Crop
from jepalab.data.images import Images
from jepalab.data.sample_stream import SampleStream
from jepalab.dist import autocast
from jepalab.instruments.attentive import AttentiveProbe, attentive, train_probes
from jepalab.instruments.finetuning import LAYER_DECAY, accuracy, finetune, finetuning, rate_shares
from jepalab.instruments.finetuning_shots import finetuning_shots
from jepalab.instruments.image_geometry import image_geometry
from jepalab.instruments.label_efficiency import draw_labels, few_shots, label_efficiency
from jepalab.instruments.labelled import (
    FrozenSamples,
    LabelledSubject,
    Tokens,
    class_index,
    freeze,
    labelled_subjects,
    observe,
    split_index,
    tokens,
)
from jepalab.instruments.layers import layer_sweep
from jepalab.instruments.probes import LAMBDAS
from jepalab.instruments.recognition import LogisticClassifier, read_out, recognition
from jepalab.instruments.robustness import CORRUPTIONS, robustness
from jepalab.instruments.sgd_probe import sgd_probe, train_heads
from jepalab.instruments.transfer import transfer, transfer_scores
from jepalab.objectives.untrained import Untrained
from jepalab.types import Encoder


def draw_images(num: int = 300, *, size: int = 8, channels: int = 1, num_classes: int = 3) -> Images:
    """The class is the brightness of the picture, under noise; every seventh picture has no label."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(num_classes, (num,), generator=generator)
    light = 60 + 60 * labels[:, None, None, None] + 30 * torch.randn(num, size, size, channels, generator=generator)
    labels[::7] = -1
    splits = torch.arange(num).remainder(5).clamp(max=4)
    splits = torch.tensor([0, 0, 0, 1, 2])[splits].to(torch.int8)
    return Images(
        pixels=light.clamp(0, 255).to(torch.uint8).numpy(),
        labels=labels,
        names=[str(i) for i in range(num_classes)],
        splits=splits,
        skipped={},
        digest="drawn",
        source="a test",
    )


IMAGES = draw_images()


@pytest.fixture
def _as_for_a_user() -> Iterator[None]:
    """Shape checks off, as they are outside the tests, so that our own messages are reached."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def make_vit() -> ViT:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ViT((2, 2), patch=(4, 4), channels=1, dim=16, depth=3, num_heads=2, mean=0.5, std=0.3)


def make_subject(images: Images = IMAGES) -> LabelledSubject:
    return labelled_subjects(Untrained(make_vit()), SampleStream(images))["student"]


class Flat(Encoder):
    """One token: the pixels themselves. It has no levels."""

    dim = 64

    def forward(
        self, x: Float[Tensor, "b t *obs"], keep: Int[Tensor, "b k"] | None = None, causal: bool = False
    ) -> Float[Tensor, "b n d"]:
        return x.flatten(2)


# ---------------------------------------------------------------- extraction


def test_subject_holds_pooled_levels_of_labelled_images_of_each_split() -> None:
    subject = make_subject()
    seen: list[int] = []
    for code, part in enumerate((subject.train, subject.validation, subject.test)):
        assert part.levels.shape == (len(part.labels), 3, 16)
        assert (IMAGES.labels[part.index] == part.labels).all()
        assert (part.labels >= 0).all()
        assert (IMAGES.splits[part.index] == code).all()
        assert len(part.index) == int(((IMAGES.splits == code) & (IMAGES.labels >= 0)).sum())
        seen += part.index.tolist()
    assert len(seen) == len(set(seen))
    x = torch.from_numpy(IMAGES.pixels[subject.test.index.numpy()]).permute(0, 3, 1, 2)[:, None].float() / 255
    # Read in bfloat16 products where these are fast, float32 sums: three digits, which no classifier here can tell from
    # seven.
    expected = [level.mean(dim=1) for level in subject.encoder.levels(x)]  # pyrefly: ignore[not-callable]
    torch.testing.assert_close(subject.test.levels, torch.stack(expected, dim=1), atol=1e-2, rtol=1e-2)
    with autocast(torch.device("cpu")):
        expected = [level.float().mean(dim=1) for level in subject.encoder.levels(x)]  # pyrefly: ignore[not-callable]
    torch.testing.assert_close(subject.test.levels, torch.stack(expected, dim=1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(subject.test.z, expected[-1], atol=1e-5, rtol=1e-5)


def test_tokens_are_those_of_the_pooled_embedding() -> None:
    subject = make_subject()
    found = tokens(subject, "validation", 7)
    torch.testing.assert_close(found.z.mean(dim=1), subject.validation.z[:7], atol=1e-5, rtol=1e-5)
    assert found.labels.tolist() == subject.validation.labels[:7].tolist()


def test_encoder_without_levels_has_one() -> None:
    part = freeze(Flat(), IMAGES, torch.arange(5))
    assert part.levels.shape == (5, 1, 64)


def test_a_smaller_share_reads_the_first_of_the_same_images() -> None:
    few = labelled_subjects(
        Untrained(make_vit()), SampleStream(IMAGES), share=0.5, num_samples=dict.fromkeys(NAMES, 20)
    )
    assert len(few["student"].train.index) == 10
    assert few["student"].train.index.tolist() == split_index(IMAGES, "train", 1000)[:10].tolist()


NAMES = ("train", "validation", "test")


def test_objective_is_left_as_it_was() -> None:
    objective = Untrained(make_vit())
    objective.train()
    objective.encoder.transformer.blocks[0].eval()
    was = [part.training for part in objective.modules()]
    labelled_subjects(objective, SampleStream(IMAGES))
    assert [part.training for part in objective.modules()] == was


def test_no_labels_is_an_error_that_says_what_to_do() -> None:
    unlabelled = replace(IMAGES, labels=torch.where(IMAGES.splits == 1, -1, IMAGES.labels))
    with pytest.raises(ValueError, match="at least 2 labelled samples in the validation split, got 0"):
        make_subject(unlabelled)


@pytest.mark.usefixtures("_as_for_a_user")
def test_nan_is_an_error_in_plain_words() -> None:
    objective = Untrained(make_vit())
    with torch.no_grad():
        objective.encoder.embed.weight.fill_(math.nan)
    with pytest.raises(ValueError, match="NaN or infinite; find the step where the training diverged"):
        labelled_subjects(objective, SampleStream(IMAGES))
    with pytest.raises(ValueError, match="NaN or infinite"):
        tokens(replace(make_subject(), encoder=objective.encoder), "test", 4)
    with pytest.raises(ValueError, match="a label and a place for each of 2 samples"):
        FrozenSamples(torch.zeros(2, 1, 3), torch.zeros(3).long(), torch.arange(2))


@pytest.mark.parametrize(("channels", "wanted"), [(1, 3), (3, 1), (3, 3), (1, 1)])
def test_pictures_are_brought_to_size_and_channels(channels: int, wanted: int) -> None:
    images = draw_images(4, size=16, channels=channels)
    x = observe(images, torch.arange(4), device=torch.device("cpu"), size=8, channels=wanted)
    assert x.shape == (4, 1, wanted, 8, 8)
    raw = torch.from_numpy(images.pixels).double() / 255
    if wanted == 1 and channels == 3:
        raw = raw @ torch.tensor([[0.299], [0.587], [0.114]], dtype=torch.float64)
    torch.testing.assert_close(
        x.mean(dim=(1, 3, 4)).double(), raw.mean(dim=(1, 2)).expand(-1, wanted), atol=5e-3, rtol=0
    )


def test_pictures_refuse_channels_that_cannot_be_converted() -> None:
    with pytest.raises(ValueError, match=r"1 channel .* or 3 .*; got 4"):
        observe(draw_images(4, channels=3), torch.arange(4), device=torch.device("cpu"), size=8, channels=4)


def test_a_stream_of_another_size_is_read_at_its_size() -> None:
    subject = labelled_subjects(Untrained(make_vit()), SampleStream(draw_images(size=12), size=8))["student"]
    assert subject.size == 8
    assert tokens(subject, "test", 3).z.shape == (3, 4, 16)
    for instrument, _ in INSTRUMENTS:
        instrument(subject)
    assert "lidar" in image_geometry(subject)
    assert "transfer_linear" in transfer(subject, images=IMAGES)


def test_class_that_training_has_not_seen_is_never_right() -> None:
    assert class_index(torch.tensor([3, 9, 4, 0, 5]), torch.tensor([3, 5])).tolist() == [0, -1, -1, -1, 1]


# ---------------------------------------------------------------- the test split chooses nothing

SMALL: dict[str, int] = dict.fromkeys(NAMES, 40)
JOINED_SCORES = {"linear_best_level", "linear_joined_levels"}


def joined_levels(subject: LabelledSubject) -> dict[str, float]:
    """`layer_sweep` of twice as many levels as there are, so that the last four can be joined."""
    parts = {name: subject.part(name) for name in NAMES}
    deep = {name: replace(part, levels=torch.cat([part.levels, part.levels**2], 1)) for name, part in parts.items()}
    return layer_sweep(replace(subject, **deep))  # pyrefly: ignore[bad-argument-type]


INSTRUMENTS: list[tuple[Callable[[LabelledSubject], dict[str, float]], set[str]]] = [
    (recognition, {"linear", "knn", "logistic"}),
    (partial(sgd_probe, num_epochs=4, batch_size=32), {"linear_sgd"}),
    (partial(attentive, num_samples=SMALL, num_epochs=3, batch_size=16), {"attentive"}),
    (partial(label_efficiency, shots=(1, 5), num_draws=3), {"shot_1", "shot_5", "shot_all", "shots_auc"}),
    (
        layer_sweep,
        {"linear_level_1", "linear_level_2", "linear_level_3", "linear_best_level", "linear_last_level"},
    ),
    (joined_levels, {*(f"linear_level_{level}" for level in range(1, 7)), "linear_last_level"} | JOINED_SCORES),
    (partial(finetuning, num_steps=6, batch_size=8, num_validation=20, num_test=20), {"finetuned"}),
    (
        partial(finetuning_shots, shots=(2, 5), num_steps=6, batch_size=8, num_validation=20, num_test=20),
        {"finetuned_shot_2", "finetuned_shot_5"},
    ),
    (
        robustness,
        {f"robust_{name}" for name in ("noise", "blur", "contrast", "brightness", "pixelate", "mean", "clean")}
        | {"robust_relative_drop"}
        | {f"severity_{name}_{i}" for name in CORRUPTIONS for i in (1, 2, 3)},
    ),
]


def name_of(value: Any) -> str:
    return getattr(getattr(value, "func", value), "__name__", "")


def with_garbage_for_test(subject: LabelledSubject) -> LabelledSubject:
    """The same subject, whose test images are other images, with random embeddings and random labels."""
    generator = torch.Generator().manual_seed(1)
    part = subject.test
    labels = torch.randint(3, part.labels.shape, generator=generator)
    levels = 100 * torch.randn(part.levels.shape, generator=generator)
    return replace(subject, test=FrozenSamples(levels, labels, part.index.flip(0)))


@pytest.mark.parametrize(("instrument", "scored_on_test"), INSTRUMENTS, ids=name_of)
def test_what_is_chosen_does_not_depend_on_the_test_split(
    instrument: Callable[[LabelledSubject], dict[str, float]], scored_on_test: set[str]
) -> None:
    subject = make_subject()
    scores, other = instrument(subject), instrument(with_garbage_for_test(subject))
    assert scored_on_test <= scores.keys()
    assert all(0 <= scores[name] <= 1 for name in scored_on_test - {"robust_relative_drop"})
    chosen = scores.keys() - scored_on_test
    assert chosen, "an instrument that says nothing about its choice cannot be checked"
    assert {name: scores[name] for name in chosen} == {name: other[name] for name in chosen}
    assert any(scores[name] != other.get(name) for name in scored_on_test)


@pytest.mark.parametrize(("instrument", "scored_on_test"), INSTRUMENTS, ids=name_of)
def test_the_same_twice_and_the_global_generator_untouched(
    instrument: Callable[[LabelledSubject], dict[str, float]], scored_on_test: set[str]
) -> None:
    subject, state = make_subject(), torch.get_rng_state()
    first = instrument(subject)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert instrument(subject) == first


def test_penalties_of_draws_do_not_depend_on_the_test_split() -> None:
    subject = make_subject()
    found, other = few_shots(subject, shots=(1, 5)), few_shots(with_garbage_for_test(subject), shots=(1, 5))
    assert [shot.lambda_ for shot in found] == [shot.lambda_ for shot in other]
    assert len({shot.lambda_ for shot in found}) > 1


def test_lidar_sees_the_crops_that_the_run_trains_with() -> None:
    subject, narrow, wide = make_subject(), Crop(scale=(0.1, 0.1)), Crop(scale=(0.9, 1.0))
    of_run = labelled_subjects(subject.objective, SampleStream(IMAGES, augmentation=narrow))["student"]
    assert image_geometry(of_run)["lidar"] == image_geometry(of_run, crop=narrow)["lidar"]
    assert image_geometry(of_run, crop=wide)["lidar"] != image_geometry(of_run)["lidar"]


def test_geometry_reads_no_label() -> None:
    subject = make_subject()
    scrambled = replace(subject.test, labels=subject.test.labels.flip(0))
    assert image_geometry(subject) == image_geometry(replace(subject, test=scrambled))


def test_one_class_is_an_error() -> None:
    subject = make_subject()
    one = replace(subject.train, labels=torch.zeros_like(subject.train.labels))
    for instrument, _ in INSTRUMENTS:
        with pytest.raises(ValueError, match=r"(?i)at least 2 classes"):
            instrument(replace(subject, train=one))


# ---------------------------------------------------------------- linear read-outs and neighbours


def draw_rows(n: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Six features of unequal scale, three overlapping classes named 2, 5 and 7."""
    generator = torch.Generator().manual_seed(seed)
    place = torch.randint(3, (n,), generator=generator)
    centre = 1.2 * torch.randn(3, 6, generator=torch.Generator().manual_seed(9))
    z = (centre[place] + torch.randn(n, 6, generator=generator)) * torch.logspace(-1, 1, 6) + 3
    return z, torch.tensor([2, 5, 7])[place]


TRAIN, VALIDATION, TEST = draw_rows(200, seed=0), draw_rows(80, seed=1), draw_rows(90, seed=2)


def frozen(rows: tuple[Tensor, Tensor]) -> FrozenSamples:
    return FrozenSamples(rows[0][:, None], rows[1], torch.arange(len(rows[0])))


@pytest.mark.parametrize("strength", [0.003, 0.1, 3.0])
def test_logistic_agrees_with_sklearn(strength: float) -> None:
    ours = LogisticClassifier((strength,), largest_gradient=1e-7).fit(*TRAIN, *VALIDATION)
    mean, std = TRAIN[0].double().mean(dim=0), TRAIN[0].double().std(dim=0, correction=0)
    standard: Any = ((TRAIN[0].double() - mean) / std).numpy()
    theirs = linear_model.LogisticRegression(C=strength, tol=1e-10, max_iter=10_000).fit(standard, TRAIN[1].numpy())
    # A multinomial model is free to shift all classes together; the penalty fixes that for weights, not intercepts.
    np.testing.assert_allclose(ours.weights_.T.numpy(), theirs.coef_, atol=2e-4)
    shift = ours.intercept_.numpy() - theirs.intercept_
    np.testing.assert_allclose(shift - shift.mean(), 0, atol=2e-4)


def draw_skewed(n: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Twelve features that nearly repeat one another: their covariance spans six decades. Four overlapping classes."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(4, (n,), generator=generator)
    fixed = torch.Generator().manual_seed(7)
    centre, mixing = 0.7 * torch.randn(4, 12, generator=fixed), torch.randn(12, 12, generator=fixed)
    hidden = centre[label] + torch.randn(n, 12, generator=generator)
    return (hidden * torch.logspace(0, -3, 12)) @ torch.linalg.qr(mixing)[0], label


@pytest.mark.parametrize("strength", [0.1, 10.0, 1e4])
def test_logistic_converges_on_correlated_features(strength: float) -> None:
    """Against scikit-learn's Newton's method, where L-BFGS in the features' own coordinates creeps."""
    (z, label), validation = draw_skewed(400, seed=0), draw_skewed(100, seed=1)
    ours = LogisticClassifier((strength,), max_iterations=60).fit(z, label, *validation)
    assert ours.is_converged_
    mean, std = z.double().mean(dim=0), z.double().std(dim=0, correction=0)
    theirs = linear_model.LogisticRegression(C=strength, tol=1e-12, solver="newton-cg", max_iter=10_000)
    standard: Any = ((z.double() - mean) / std).numpy()
    theirs.fit(standard, label.numpy())
    held_out: Any = ((validation[0].double() - mean) / std).numpy()
    logits = ((validation[0].double() - mean) / std) @ ours.weights_ + ours.intercept_
    np.testing.assert_allclose(logits.softmax(dim=1).numpy(), theirs.predict_proba(held_out), atol=1e-3)


def test_logistic_says_when_it_has_not_converged() -> None:
    z, label = draw_skewed(400, seed=0)
    assert not LogisticClassifier((10.0,), max_iterations=3).fit(z, label, z, label).is_converged_


def test_logistic_chooses_on_validation() -> None:
    """From thirty rows, training accuracy rises with C while validation accuracy peaks before the end."""
    few, strengths = (TRAIN[0][:30], TRAIN[1][:30]), (1e-4, 1e-2, 1.0, 100.0)
    each = {c: LogisticClassifier((c,)).fit(*few, *VALIDATION) for c in strengths}
    best = max(strengths, key=lambda c: each[c].score(*VALIDATION))
    assert best != max(strengths, key=lambda c: each[c].score(*few))
    chosen = LogisticClassifier(strengths[::-1]).fit(*few, *VALIDATION)
    assert chosen.strength_ == best
    assert chosen.score(*VALIDATION) == each[best].score(*VALIDATION)


def test_read_out_agrees_with_sklearn() -> None:
    scores = read_out(frozen(TRAIN), frozen(VALIDATION), frozen(TEST))
    mean, std = TRAIN[0].double().mean(dim=0), TRAIN[0].double().std(dim=0, correction=0)
    train, test = (((z.double() - mean) / std).numpy() for z in (TRAIN[0], TEST[0]))
    ridge = linear_model.RidgeClassifier(alpha=scores["linear_lambda"]).fit(train, TRAIN[1].numpy())
    assert scores["linear"] == pytest.approx(ridge.score(test, TEST[1].numpy()))
    assert scores["linear_train"] == pytest.approx(ridge.score(train, TRAIN[1].numpy()))

    def weigh(distance: Any) -> Any:
        return np.exp((1 - distance) / 0.07)

    neighbours = KNeighborsClassifier(20, metric="cosine", weights=weigh, algorithm="brute")
    neighbours.fit(TRAIN[0].double().numpy(), TRAIN[1].numpy())
    assert scores["knn"] == pytest.approx(neighbours.score(TEST[0].double().numpy(), TEST[1].numpy()))


def test_layer_sweep_finds_the_level_that_knows_the_class() -> None:
    subject = make_subject()

    def only_the_second_level(part: FrozenSamples) -> FrozenSamples:
        levels = torch.randn(part.levels.shape, generator=torch.Generator().manual_seed(3))
        levels[:, 1, :3] += 4 * nn.functional.one_hot(part.labels, 3)
        return replace(part, levels=levels)

    parts = {name: only_the_second_level(getattr(subject, name)) for name in NAMES}
    scores = layer_sweep(replace(subject, **parts))  # pyrefly: ignore[bad-argument-type]
    assert scores["best_level"] == 2
    assert scores["linear_best_level"] == scores["linear_level_2"] > 0.9
    assert scores["linear_last_level"] == scores["linear_level_3"] < 0.6


def test_joined_levels_are_the_last_four_side_by_side_as_sklearn_reads_them() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = ViT((2, 2), patch=(4, 4), channels=1, dim=16, depth=5, num_heads=2, mean=0.5, std=0.3)
    subject = labelled_subjects(Untrained(encoder), SampleStream(IMAGES))["student"]
    assert subject.train.levels.shape[1] == 5
    # Blurred by noise, of each level its own: these pictures are so easy that any levels would score alike.
    dice, found = torch.Generator().manual_seed(0), {}
    for name in NAMES:
        levels = subject.part(name).levels
        noise = torch.randn(levels.shape, generator=dice) * 2 * subject.train.levels.std(0)
        found[name] = replace(subject.part(name), levels=levels + noise)
    subject = replace(subject, **found)
    joined = {
        name: np.concatenate([*part.levels.double().numpy().swapaxes(0, 1)[1:]], 1) for name, part in found.items()
    }
    mean, std = joined["train"].mean(0), joined["train"].std(0)
    z = {name: (each - mean) / std for name, each in joined.items()}
    ridges = [
        linear_model.RidgeClassifier(alpha=penalty).fit(z["train"], found["train"].labels.numpy())
        for penalty in LAMBDAS
    ]
    best = max(ridges, key=lambda ridge: ridge.score(z["validation"], found["validation"].labels.numpy()))
    wanted = best.score(z["test"], found["test"].labels.numpy())
    scores = layer_sweep(subject)
    assert scores["linear_joined_levels"] == pytest.approx(wanted)
    assert scores["linear_joined_levels"] != pytest.approx(scores["linear_last_level"])
    assert "linear_joined_levels" not in layer_sweep(make_subject()), "three levels are too few"


@pytest.mark.parametrize("rate", [0.03, 0.3])
def test_heads_take_the_steps_of_torch_sgd(rate: float) -> None:
    """Against autograd and torch.optim.SGD with the same batches, for one of several heads trained at once."""
    z, y = TRAIN[0].float(), class_index(TRAIN[1], torch.tensor([2, 5, 7]))
    settings: dict[str, Any] = {"num_classes": 3, "num_epochs": 3, "batch_size": 64}
    rates = [0.1, rate, 1.0]
    heads = train_heads(z, y, rates=rates, generator=torch.Generator().manual_seed(5), **settings)
    norm, layer = nn.BatchNorm1d(6, affine=False, eps=1e-6), nn.Linear(6, 3)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.SGD(layer.parameters(), lr=rate, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 9)
    generator = torch.Generator().manual_seed(5)
    for _ in range(3):
        for rows in torch.randperm(200, generator=generator).split(64)[:3]:
            optimizer.zero_grad()
            nn.functional.cross_entropy(layer(norm(z[rows])), y[rows]).backward()
            optimizer.step()
            schedule.step()
    torch.testing.assert_close(heads.weights[:, 1].T, layer.weight.detach(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(heads.bias[1], layer.bias.detach(), atol=1e-5, rtol=1e-4)
    predicted = layer(norm.eval()(TEST[0].float())).argmax(dim=1)
    assert torch.equal(heads.predict(TEST[0].float())[1], predicted)


def test_sgd_probe_comes_near_the_best_linear_read_out() -> None:
    subject = replace(make_subject(), train=frozen(TRAIN), validation=frozen(VALIDATION), test=frozen(TEST))
    scores = sgd_probe(subject, batch_size=64)
    assert scores["linear_sgd"] > read_out(subject.train, subject.validation, subject.test)["linear"] - 0.05


# ---------------------------------------------------------------- attentive probe


def test_attention_is_that_of_formed_keys_and_values(generator: torch.Generator) -> None:
    """Against the textbook: project every token to keys and values, then PyTorch's attention with one query."""
    probe = AttentiveProbe(128, num_classes=5)
    z = torch.randn(3, 7, 128, generator=generator)
    with torch.no_grad():
        for parameter in probe.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        tokens_normed = probe.norm_tokens(z)
        assert probe.num_heads == 2
        q = probe.to_query(probe.query).view(1, 2, 1, 64).expand(3, -1, -1, -1)
        keys, values = tokens_normed @ probe.to_key.T, probe.to_value(tokens_normed)
        k, v = (each.view(3, 7, 2, 64).transpose(1, 2) for each in (keys, values))
        expected = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(1)
        torch.testing.assert_close(probe.attend(z), expected, atol=1e-4, rtol=1e-4)


def test_attentive_parameters_are_counted() -> None:
    d, c = 16, 3
    attention = d + 2 * d + (d * d + d) + d * d + (d * d + d)  # query, norm, to_query, to_key, to_value
    mlp = 2 * d + (4 * d * d + 4 * d) + (4 * d * d + d)
    scores = attentive(make_subject(), num_samples=SMALL, num_epochs=1)
    assert scores["attentive_parameters"] == attention + mlp + d * c + c


def one_token_knows(n: int, *, seed: int) -> Tokens:
    """16 tokens in random order. One, marked by its first dimension, shows the class; the others take it out of the
    mean again, so that the mean token knows nothing."""
    generator = torch.Generator().manual_seed(seed)
    z = 0.1 * torch.randn(n, 16, 16, generator=generator)
    labels = torch.randint(3, (n,), generator=generator)
    code = 2 * nn.functional.one_hot(labels, 3).float()
    z[:, 0, 0] = 3
    z[:, 0, 1:4] += code
    z[:, 1:, 1:4] -= code[:, None] / 15
    place = torch.rand(n, 16, generator=generator).argsort(dim=1)
    return Tokens(z.gather(1, place[:, :, None].expand_as(z)), labels)


def test_attentive_probe_solves_what_mean_pooling_cannot() -> None:
    train, validation = one_token_knows(600, seed=0), one_token_knows(200, seed=1)
    pooled = [FrozenSamples(t.z.mean(1, keepdim=True), t.labels, torch.arange(len(t.z))) for t in (train, validation)]
    assert read_out(pooled[0], pooled[1], pooled[1])["linear"] < 0.45
    found = train_probes(
        train,
        validation,
        num_classes=3,
        rates=(1e-6, 3e-3, 1e-5),
        num_epochs=10,
        num_trial_epochs=2,
        batch_size=64,
        device=torch.device("cpu"),
        seed=0,
    )
    assert found.validation > 0.95
    assert found.rate == 3e-3


def test_only_the_rate_that_was_best_in_a_short_run_trains_to_the_end() -> None:
    train, validation = one_token_knows(300, seed=0), one_token_knows(100, seed=1)
    settings: dict[str, Any] = {"num_classes": 3, "batch_size": 64, "device": torch.device("cpu"), "seed": 0}
    settings |= {"num_epochs": 5, "num_trial_epochs": 2}
    several = train_probes(train, validation, rates=(1e-6, 3e-3), **settings)
    alone = train_probes(train, validation, rates=(3e-3,), **settings)
    assert several[1:] == alone[1:]
    assert torch.equal(several.probe.head.weight, alone.probe.head.weight)


def test_tokens_of_the_attentive_probe_are_bounded_in_bytes() -> None:
    subject = make_subject()
    size = 4 * tokens(subject, "train", 1).z.numel()
    found = attentive(subject, num_samples=SMALL, num_epochs=1, rates=(1e-3,), max_bytes=30 * size)
    assert found["attentive_labels"] == 30 < SMALL["train"]
    with pytest.raises(ValueError, match="at least 2 samples"):
        attentive(subject, num_samples=SMALL, max_bytes=size)


# ---------------------------------------------------------------- fine-tuning and transfer


def test_finetuning_learns_and_leaves_the_objective_alone() -> None:
    objective = Untrained(make_vit())
    subject = labelled_subjects(objective, SampleStream(IMAGES))["student"]
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    scores = finetuning(subject, num_steps=60, batch_size=32, rates=(1e-4, 1e-2))
    assert scores["finetuned"] > 0.8
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in objective.parameters())


class Blind(Flat):
    """One number of the picture that is the same for all: a head on it cannot learn, the layer before it can."""

    dim = 4

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 4)
        nn.init.zeros_(self.layer.weight)

    def forward(self, x: Tensor, keep: Tensor | None = None, causal: bool = False) -> Tensor:
        return self.layer(x.flatten(2) - 0.35)


def see_nothing() -> LabelledSubject:
    return labelled_subjects(Untrained(Blind()), SampleStream(draw_images(num_classes=2)))["student"]


def test_finetuning_moves_the_encoder_and_not_only_the_head() -> None:
    subject = see_nothing()
    assert subject.test.z.std(dim=0).max() == 0
    assert finetuning(subject, num_steps=40, batch_size=32, rates=(3e-2,))["finetuned"] > 0.9


def test_a_subject_knows_the_seed_of_its_run() -> None:
    stream = SampleStream(draw_images(num_classes=2), seed=5)
    assert labelled_subjects(Untrained(make_vit()), stream)["student"].seed == 5


def test_finetuning_tries_each_rate_briefly_and_trains_on_with_the_best() -> None:
    subject = see_nothing()
    settings: dict[str, Any] = {"num_steps": 20, "batch_size": 32}
    several = finetuning(subject, rates=(1e-6, 3e-2, 1e-5), num_trial_steps=40, **settings)
    alone = finetuning(subject, rates=(3e-2,), **settings)
    assert several == alone | {"finetuned_rate_edge": 1}
    assert several["finetuned_labels"] == min(20 * 32, len(subject.train.labels))


@pytest.mark.parametrize("run_seed", [0, 3])
def test_few_labels_are_the_only_ones_that_are_learned_from(run_seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And they are drawn anew for each seed of a run, the first as in `label_efficiency`."""
    subject, seen = replace(make_subject(), seed=run_seed), []
    monkeypatch.setattr(
        "jepalab.instruments.finetuning.observe",
        lambda samples, index, **options: seen.append(index) or observe(samples, index, **options),
    )
    brief = {"num_steps": 30, "batch_size": 8, "rates": (1e-2,)}
    scores = finetuning_shots(subject, shots=(3, 10_000), num_draws=2, **brief)
    assert scores.keys() == {"finetuned_shot_3", "finetuned_shot_3_validation"}, "no class has 10,000 labels"
    draws = [draw_labels(subject.train.labels, 3, draw) for draw in (2 * run_seed, 2 * run_seed + 1)]
    assert {*torch.cat(seen).tolist()} == {*subject.train.index[torch.cat(draws)].tolist()}
    assert scores["finetuned_shot_3"] > 0.6
    each = []
    for draw, rows in enumerate(draws, 2 * run_seed):
        part = FrozenSamples(
            *(value[rows] for value in (subject.train.levels, subject.train.labels, subject.train.index))
        )
        best = finetune(
            replace(subject, train=part),
            seed=draw,
            layer_decay=LAYER_DECAY,
            num_validation=1000,
            num_trial_steps=20,
            **brief,
        )
        each.append(accuracy(best.classifier, subject, "test", 2000))
    assert scores["finetuned_shot_3"] == pytest.approx(sum(each) / 2)


def test_rates_fall_with_depth() -> None:
    shares = rate_shares(make_vit(), 0.5)
    assert shares["embed.weight"] == 0.5**4
    assert shares["transformer.blocks.0.fc1.weight"] == 0.5**3
    assert shares["transformer.blocks.2.fc1.weight"] == 0.5
    assert shares["transformer.norm.weight"] == 1
    assert set(rate_shares(nn.Linear(2, 2), 0.5).values()) == {1.0}


def test_transfer_reads_out_a_second_set_of_images() -> None:
    other = draw_images(250, size=12, channels=3, num_classes=4)
    subject = make_subject()
    scores = transfer(subject, images=other)
    assert scores == transfer_scores(subject.encoder, other, size=8, channels=1)
    grey = observe(other, torch.arange(250), device=torch.device("cpu"), size=8, channels=1)
    small = replace(other, pixels=(grey[:, 0].permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy())
    direct = make_subject(small)
    same = read_out(direct.train, direct.validation, direct.test)
    assert scores["transfer_linear"] == pytest.approx(same["linear"], abs=0.05)
    assert scores["transfer_knn"] == pytest.approx(same["knn"], abs=0.05)


def test_transfer_of_its_own_images_is_recognition() -> None:
    subject = make_subject()
    scores = recognition(subject)
    again = transfer(subject, images=IMAGES)
    assert again["transfer_linear"] == scores["linear"]
    assert again["transfer_knn"] == scores["knn"]
    assert again["transfer_linear_lambda"] == scores["linear_lambda"]
