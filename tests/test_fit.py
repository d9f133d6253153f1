"""The loop: schedules and decay in closed form, what it counts, what it refuses, what it leaves alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.vit import ViT
from jepalab.data.moving import MovingObject
from jepalab.endings import DivergedError
from jepalab.fit import fit
from jepalab.instruments.geometry import collapse_meters, std_over_samples
from jepalab.masks.random import RandomMask
from jepalab.objectives import find_objectives
from jepalab.objectives.mae import MAE
from jepalab.progress import ALARMS, COLLAPSED_STD, Moment, sum_up_alarms
from jepalab.recipes.bench import Bench, Training, World
from jepalab.recipes.sequences import next_frame, pixel_pca, salt_jepa
from jepalab.records import RunFolder
from jepalab.run import Run
from jepalab.types import Batch, Encoder, Objective, Space
from small_runs import small_run, small_stream

OBJECTIVES = find_objectives()


@dataclass
class Listed:
    """A stream that lists the steps it is asked for, with pixels that are not numbers at one of them."""

    stream: MovingObject = field(default_factory=small_stream)
    poisoned: int = -1
    asked: list[int] = field(default_factory=list)

    @property
    def clips_per_batch(self) -> int:
        return self.stream.clips_per_batch

    @property
    def frames_per_batch(self) -> int:
        return self.stream.frames_per_batch

    def batch(self, step: int) -> Batch:
        self.asked.append(step)
        batch = self.stream.batch(step)
        return replace(batch, x=batch.x * math.nan) if step == self.poisoned else batch

    def held_out(self, split: str, num_clips: int) -> Batch:
        return self.stream.held_out(split, num_clips)  # pyrefly: ignore[bad-argument-type]


class Flat(Encoder):
    """One linear map of a frame's pixels, with dropout where wanted."""

    def __init__(self, num_pixels: int = 64, *, dim: int = 5, dropout: float = 0.0) -> None:
        super().__init__()
        self.dim, self.linear, self.dropout = dim, nn.Linear(num_pixels, dim), nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "b t *obs"], keep: Int[Tensor, "b k"] | None = None, causal: bool = False
    ) -> Float[Tensor, "b n d"]:
        return self.dropout(self.linear(x.flatten(2)))


class Small(Objective):
    """Makes embeddings small: the least objective there is."""

    compares: ClassVar[Mapping[str, Space]] = {"size": Space.STATISTIC}

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder, self.weights = encoder, {"size": 1.0}

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        return {"size": self.encoder(batch.x).square().mean()}

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        return cls(Flat()), small_stream().batch(0)


class Slope(Small):
    """Constant gradients: 1 on a vector, 0 on a matrix, or infinite on the vector."""

    def __init__(self, *, steepness: str = "constant") -> None:
        super().__init__(Flat().requires_grad_(False))
        self.vector, self.matrix = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.ones(2, 2))
        self.steepness = steepness

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        steep = {"constant": self.vector, "infinite": (self.vector - self.vector.detach()).sqrt()}[self.steepness]
        return {"size": steep.sum() + 0.0 * self.matrix.sum()}


def run_of(objective: Objective, *, steps: int = 20, lr: float = 1e-2) -> Run:
    return Run(objective, Listed(), steps=steps, lr=lr, precision="fp32")


def weights_of(objective: Objective) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in objective.state_dict().items()}


def assert_equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_learning_rate_warms_up_then_follows_a_cosine_to_a_hundredth() -> None:
    run = replace(small_run(steps=100), lr=0.5, warmup=0.1)
    assert [run.lr_at(step) for step in range(10)] == pytest.approx([0.05 * (step + 1) for step in range(10)])
    assert run.lr_at(10) == pytest.approx(0.5)
    assert run.lr_at(55) == pytest.approx(0.5 * (0.01 + 0.99 / 2))
    assert run.lr_at(40) == pytest.approx(0.5 * (0.01 + 0.99 * 0.75))  # a third of the way: (1 + cos 60 degrees) / 2
    assert run.lr_at(100) == pytest.approx(0.005)
    rates = [run.lr_at(step) for step in range(10, 101)]
    assert rates == sorted(rates, reverse=True)
    assert replace(run, warmup=0.0).lr_at(0) == 0.5


def test_every_step_takes_its_learning_rate_and_only_matrices_decay() -> None:
    """Under a constant gradient AdamW moves by the learning rate itself, and decay multiplies what has no gradient."""
    run = replace(run_of(objective := Slope()), weight_decay=0.3, warmup=0.2)
    fit(run, device="cpu")
    rates = [run.lr_at(step) for step in range(run.steps)]
    assert objective.vector.item() == pytest.approx(-sum(rates), rel=1e-5)
    decayed = math.prod(1 - rate * 0.3 for rate in rates)
    torch.testing.assert_close(objective.matrix.detach(), torch.full((2, 2), decayed))


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if OBJECTIVES[name].compares])
def test_every_trained_parameter_is_in_one_group_and_only_matrices_decay(name: str) -> None:
    objective, _ = OBJECTIVES[name].tiny()
    decayed, spared = replace(run_of(objective), weight_decay=0.3).make_optimizer().param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    assert all(p.ndim > 1 for p in decayed["params"])
    tokens = [p for name, p in objective.named_parameters() if name.endswith("mask_token")]
    assert all(p.ndim <= 1 or any(p is token for token in tokens) for p in spared["params"])
    found = sorted(id(p) for p in (*decayed["params"], *spared["params"]))
    assert found == sorted(id(p) for p in objective.parameters() if p.requires_grad)


@pytest.mark.parametrize("num_mask_tokens", [1, 2])
def test_mask_tokens_do_not_decay_however_many_there_are(num_mask_tokens: int) -> None:
    encoder = ViT((4, 4), patch=(2, 2), dim=12, depth=2, num_heads=2)
    decoder = MaskedPredictor(12, 4, grid=(4, 4), width=8, depth=2, num_heads=2, num_mask_tokens=num_mask_tokens)
    objective = MAE(encoder, decoder=decoder, masks=[RandomMask((4, 4))] * num_mask_tokens)
    decayed, spared = replace(run_of(objective), weight_decay=0.3).make_optimizer().param_groups
    assert any(p is decoder.mask_token for p in spared["params"])
    assert not any(p is decoder.mask_token for p in decayed["params"])
    assert len(decayed["params"]) + len(spared["params"]) == len(list(objective.parameters()))


@pytest.mark.parametrize(("field_", "value"), [("steps", -1), ("lr", 0.0), ("warmup", 1.0), ("clip", math.nan)])
def test_settings_that_make_no_sense_are_refused(field_: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field_}={value}"):
        replace(small_run(), **{field_: value})


def test_flops_of_a_linear_map_in_closed_form() -> None:
    """Forward and the weight's gradient cost 2 n p d each; nobody asks for the gradient of the pixels."""
    num_frames, num_pixels, dim = 16 * 3, 64, 5
    assert run_of(Small(Flat())).count_flops() == 2 * (2 * num_frames * num_pixels * dim)


def test_flops_of_convolutions_in_closed_form() -> None:
    """2 x outputs x inputs of each: forward, for the weight's gradient and, but for the first layer, the input's."""
    layers = [(16 * 4 * 4, 1 * 9), (32 * 2 * 2, 16 * 9), (32 * 1 * 1, 32 * 9), (4, 32)]
    costs = [2 * 16 * 3 * outputs * inputs for outputs, inputs in layers]
    assert run_of(Small(ConvEncoder(8, dim=4))).count_flops() == 2 * costs[0] + 3 * sum(costs[1:])


@pytest.mark.parametrize("measure", ["count_flops", "time_step"])
@pytest.mark.parametrize("objective", ["ema", "sigreg"])
def test_measuring_a_step_leaves_no_trace(measure: str, objective: str) -> None:
    run = small_run(objective)
    before = weights_of(run.objective)
    assert getattr(run, measure)() > 0
    assert_equal(weights_of(run.objective), before)
    assert all(p.grad is None for p in run.objective.parameters())


def test_parameters_are_counted_by_what_they_are_for() -> None:
    run = small_run("ema")
    encoder = sum(p.numel() for p in run.objective.encoder.parameters())
    predictor = sum(p.numel() for p in run.objective.get_submodule("predictor").parameters())
    assert run.count_parameters() == {"encoder": encoder, "trained": encoder + predictor}


def test_loss_that_is_no_number_names_step_term_and_checkpoint(tmp_path: Path) -> None:
    run = replace(small_run("sigreg", steps=20), stream=Listed(poisoned=7))
    with pytest.raises(DivergedError, match=r"at step 7: predict, sigreg\. There is no checkpoint yet"):
        fit(run, device="cpu")
    run = replace(small_run("sigreg", steps=20), stream=Listed(poisoned=7))
    with pytest.raises(DivergedError, match=r"at step 7: predict, sigreg\. Last good checkpoint: .*step-000006\."):
        fit(run, folder=tmp_path, device="cpu", save_every=3)


def test_gradient_that_is_no_number_never_reaches_the_weights(tmp_path: Path) -> None:
    run = run_of(Slope(steepness="infinite"))
    with pytest.raises(DivergedError, match="at step 0: its gradient"):
        fit(run, folder=tmp_path, device="cpu", save_every=1)
    assert all(value.isfinite().all() for value in weights_of(run.objective).values())
    assert RunFolder(tmp_path).latest() is None


def test_resumed_run_asks_for_the_steps_it_has_not_seen(tmp_path: Path) -> None:
    def give_up(moment: Moment) -> None:
        if moment.step == 8:
            raise TimeoutError

    first, second = Listed(), Listed()
    with pytest.raises(TimeoutError):
        fit(replace(small_run(steps=12), stream=first), folder=tmp_path, device="cpu", save_every=3, watch=give_up)
    fit(replace(small_run(steps=12), stream=second), folder=tmp_path, device="cpu")
    assert first.asked == list(range(8))
    assert second.asked == list(range(6, 12))


def test_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    fit(small_run(steps=3), folder=tmp_path, device="cpu")
    with pytest.raises(ValueError, match=r"other settings: lr 0\.01 \(now 0\.5\).*Choose another folder"):
        fit(replace(small_run(steps=3), lr=0.5), folder=tmp_path, device="cpu")
    with pytest.raises(ValueError, match="steps 3"):
        fit(small_run(steps=4), folder=tmp_path, device="cpu")
    fit(small_run(steps=3), folder=tmp_path, device="cpu")


def test_watch_sees_every_step_with_its_terms_and_meters() -> None:
    seen: list[Moment] = []
    run = small_run("ema", steps=30)
    fit(run, device="cpu", watch=seen.append)
    assert [moment.step for moment in seen] == list(range(1, 31))
    assert [moment.frames for moment in seen] == [48 * step for step in range(1, 31)]
    assert seen[0].terms.keys() == {"predict"}
    assert [i for i in range(1, 30) if seen[i].meters != seen[i - 1].meters] == [25]
    one, last = small_run("ema", steps=1), []
    fit(one, device="cpu", watch=last.append)
    seen_by = [encoder(one.stream.batch(0).x).detach() for encoder in one.objective.probed_encoders().values()]
    own, teachers = ([collapse_meters(z.flatten(0, 1)), std_over_samples(z)] for z in seen_by)
    assert last[0].meters == own[0] | {
        "std_samples": own[1],
        "teacher_std": teachers[0]["std"],
        "teacher_std_samples": teachers[1],
    }


class Places(Flat):
    """Embeds each frame by when it was, and by what it shows with a strength that training has no hand in."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.register_buffer("place", torch.eye(3, self.dim))

    def forward(
        self, x: Float[Tensor, "b t *obs"], keep: Int[Tensor, "b k"] | None = None, causal: bool = False
    ) -> Float[Tensor, "b t d"]:
        return self.place + self.strength * super().forward(x)


@pytest.mark.parametrize(("strength", "rings"), [(0.0, True), (1.0, False)])
def test_a_code_of_places_alone_is_a_collapse(strength: float, rings: bool, tmp_path: Path) -> None:
    seen: list[Moment] = []
    run = run_of(Small(Places(strength)), steps=30)
    fit(run, folder=tmp_path, device="cpu", watch=seen.append)
    assert seen[-1].meters["std"] > 5 * COLLAPSED_STD
    assert ("tokens say where they are, and nothing of the sample" in seen[-1].warn()) is rings
    alarms = sum_up_alarms(RunFolder(tmp_path).records())
    wanted = {"alarm": "std_samples", "what": ALARMS["std_samples"], "first": 1, "last": 26, "times": 2}
    assert alarms == ([wanted] if rings else [])


def test_to_watch_a_run_does_not_change_it() -> None:
    """Dropout draws random numbers: a meter that drew some would shift all that follow."""
    ends = []
    for watch in (None, lambda moment: None):
        torch.manual_seed(0)
        objective = Small(Flat(dropout=0.5))
        fit(run_of(objective, steps=30), device="cpu", watch=watch)
        ends.append(weights_of(objective))
    assert_equal(*ends)


def test_the_average_of_the_weights_is_that_of_its_formula_and_survives_a_stop(tmp_path: Path) -> None:
    """a <- a + 9 / (10 + t) (w - a) after step t, from the first weights."""
    run = small_run(steps=6)
    run.objective.keep_average()
    assert list(run.objective.probed_encoders()) == ["student", "average"]
    expected = {name: value.clone() for name, value in run.objective.encoder.named_parameters()}

    def follow(moment: Moment) -> None:
        for name, value in run.objective.encoder.named_parameters():
            expected[name].lerp_(value.detach(), 9 / (10 + moment.step))

    fit(run, folder=tmp_path, watch=follow, save_every=3, device="cpu")
    average = run.objective.average
    assert average is not None
    for name, value in average.named_parameters():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-7)
        assert not value.requires_grad
    assert any(
        not torch.equal(a, w) for a, w in zip(average.parameters(), run.objective.encoder.parameters(), strict=True)
    )
    again = small_run(steps=6)
    again.objective.keep_average()
    fit(again, folder=tmp_path, device="cpu")
    assert again.objective.average is not None
    for ours, theirs in zip(again.objective.average.parameters(), average.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    plain = small_run(steps=6)
    fit(plain, device="cpu")
    for ours, theirs in zip(plain.objective.encoder.parameters(), run.objective.encoder.parameters(), strict=True):
        assert torch.equal(ours, theirs), "keeping an average does not change the training"


def test_global_random_state_is_left_as_it_was() -> None:
    run = run_of(Small(Flat(dropout=0.5)), steps=2)
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    fit(run, device="cpu")
    assert torch.equal(torch.rand(4), wanted)


def test_run_without_steps_is_prepared_once_and_kept(tmp_path: Path) -> None:
    run = pixel_pca(Bench(world=World(thing="dot")))
    times = []
    prepare = run.prepare
    assert prepare is not None
    counted = replace(run, prepare=lambda: times.append(1) or prepare())
    assert fit(counted, folder=tmp_path, device="cpu") == 0.0
    components = weights_of(run.objective)["encoder.components"]
    torch.testing.assert_close(components.T @ components, torch.eye(components.shape[1]), rtol=0, atol=1e-5)
    again = pixel_pca(Bench(world=World(thing="dot")))
    fit(replace(again, prepare=counted.prepare), folder=tmp_path, device="cpu")
    assert times == [1]
    assert_equal(weights_of(again.objective), weights_of(run.objective))


def test_teacher_of_salt_is_trained_on_pixels_first_and_paid_for(tmp_path: Path) -> None:
    bench = Bench(world=World(thing="dot"), training=Training(steps=600, precision="fp32"))
    run = salt_jepa(bench, teacher_share=0.5).on_steps(6)
    pixels = next_frame(replace(bench, training=replace(bench.training, steps=2), seed=1_000))
    flops = pixels.count_flops()
    assert (run.steps, run.total(lambda _: 1.0)) == (4, 6)
    assert run.total(Run.count_flops) == 6 * run.mean_step(Run.count_flops) == 4 * run.count_flops() + 2 * flops
    seconds = fit(pixels, device="cpu")
    wanted = pixels.objective.encoder.state_dict()
    fit(run, folder=tmp_path, device="cpu")
    assert_equal(run.objective.get_submodule("teacher").state_dict(), wanted)
    told = RunFolder(tmp_path).description()
    assert told["prepare_flops"] == 2 * flops > 0
    assert 0 < told["prepare_seconds"] < 1 + 100 * seconds
