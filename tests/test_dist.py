"""Two processes with half a batch each are one process with the whole: values, gradients, trained weights."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.distributed
import torch.multiprocessing
from torch import Tensor, nn

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.predictor import SequencePredictor
from jepalab.backbones.reward import RewardHead
from jepalab.data.moving import MovingObject
from jepalab.data.sprites import dot
from jepalab.dist import (
    Engine,
    StepSeeded,
    close_process_group,
    mean_over_processes,
    num_cores,
    num_processes,
    rank,
    seeded,
)
from jepalab.fit import fit
from jepalab.losses.sigreg import SIGReg
from jepalab.losses.vicreg import spread
from jepalab.objectives.sigreg_jepa import SIGRegJEPA
from jepalab.run import Run

pytestmark = pytest.mark.dist

NUM_PROCESSES = 2
SECONDS_TO_WAIT = 120
SAMPLES = torch.randn(2, 16, 6, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.3, 1.5, 6) + 0.2
Term = Callable[[Tensor], Tensor]


class Regularised(nn.Module):
    """A linear map whose output pays a term over the batch; x is [n g d], split among processes along n."""

    def __init__(self, term: Term) -> None:
        super().__init__()
        self.linear, self.term = nn.Linear(6, 4), term
        with torch.no_grad():
            self.linear.weight.copy_(torch.randn(4, 6, generator=torch.Generator().manual_seed(1)))
            self.linear.bias.fill_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.term(self.linear(x).transpose(0, 1))


def draws(seed: int) -> Iterator[torch.Generator]:
    """The generators of two training steps."""
    each = StepSeeded(seed)
    return (each.draw() for _ in range(2))


def terms() -> dict[str, Term]:
    return {
        "sigreg": SIGReg(num_directions=8),
        "variance": lambda z: spread(z, target_std=4.0).variance,
        "covariance": lambda z: spread(z).covariance,
    }


def small_run() -> Run:
    """Three steps of a JEPA whose regulariser reads the whole batch."""
    torch.manual_seed(0)
    objective = SIGRegJEPA(
        ConvEncoder(8, dim=4),
        predictor=SequencePredictor(4, num_actions=2, width=8),
        weights={"predict": 1.0, "sigreg": 0.1},
        sigreg=SIGReg(num_directions=8, num_knots=5),
    )
    stream = MovingObject(sprites=dot(sigma=0.5), size=8, num_frames=3, clips_per_batch=16)
    return Run(objective, stream, steps=3, lr=1e-2, precision="fp32")


def compute() -> dict[str, Tensor]:
    """All that is compared below, from this process's share of the batch."""
    engine = Engine(device="cpu")
    found = {
        "world": torch.tensor([rank(), num_processes()]),
        "share": engine.share(torch.arange(8.0).view(8, 1)),
        "randn": torch.stack([torch.randn(2, 3, generator=generator) for generator in draws(5)]),
    }
    x = engine.share(SAMPLES.transpose(0, 1))
    mean = mean_over_processes(x.mean(0).requires_grad_())
    found["mean"] = mean.detach()
    part = torch.tensor(float(rank() + 1), requires_grad=True)
    (mean_over_processes(part**2) * 3).backward()
    assert part.grad is not None
    found["mean_gradient"] = part.grad
    counts = (x[..., 0] > 0.5).float()
    with seeded(2):
        head = RewardHead(6, width=8)
    found["reward"] = head.loss(x, {"reward": x[..., 1], "is_rewarded": counts}).detach()
    found["num rewarded"] = counts.sum()
    for name, term in terms().items():
        model = engine.distribute(Regularised(term))
        value = model(x)
        value.backward()
        found[name] = value.detach()
        found |= {f"{name} gradient {i}": p.grad for i, p in enumerate(model.parameters()) if p.grad is not None}
    run = small_run()
    fit(run, device="cpu")
    return found | {f"fit {name}": value.contiguous() for name, value in run.objective.state_dict().items()}


def work(number: int, folder: Path) -> None:
    """One of the processes."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'meeting'}",
        rank=number,
        world_size=NUM_PROCESSES,
        timeout=timedelta(seconds=SECONDS_TO_WAIT),
    )
    found = compute()
    safetensors.torch.save_file(found, folder / f"{number}.safetensors")
    close_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """What each of the processes found, after all of them ended cleanly."""
    folder = tmp_path_factory.mktemp("ranks")
    context = torch.multiprocessing.spawn(work, (folder,), NUM_PROCESSES, join=False)
    assert context is not None
    deadline = time.monotonic() + SECONDS_TO_WAIT
    try:
        while not context.join(timeout=1):
            assert time.monotonic() < deadline, f"not done after {SECONDS_TO_WAIT} s"
    finally:
        for process in context.processes:
            process.kill()
    assert [process.exitcode for process in context.processes] == [0] * NUM_PROCESSES
    return [safetensors.torch.load_file(folder / f"{number}.safetensors") for number in range(NUM_PROCESSES)]


@pytest.fixture(scope="module")
def alone() -> dict[str, Tensor]:
    """What one process finds."""
    return compute()


def test_processes_know_each_other_and_share_the_rows(ranks: list[dict[str, Tensor]]) -> None:
    assert [found["world"].tolist() for found in ranks] == [[0, 2], [1, 2]]
    assert [found["share"].flatten().tolist() for found in ranks] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_random_numbers_are_shared_and_fresh_at_each_step(ranks: list[dict[str, Tensor]]) -> None:
    assert torch.equal(ranks[0]["randn"], ranks[1]["randn"])
    assert torch.equal(ranks[0]["randn"][0], torch.randn(2, 3, generator=next(draws(5))))
    assert not torch.equal(ranks[0]["randn"][0], ranks[0]["randn"][1])
    assert not torch.equal(torch.randn(2, 3, generator=next(draws(6))), ranks[0]["randn"][0])


def test_mean_and_its_gradient(ranks: list[dict[str, Tensor]], alone: dict[str, Tensor]) -> None:
    """Of L = 3 mean(p^2) each process gets dL/dmean x dp^2/dp; DDP's average then makes it the whole gradient."""
    for number, found in enumerate(ranks):
        torch.testing.assert_close(found["mean"], alone["mean"], rtol=1e-6, atol=1e-6)
        assert found["mean_gradient"].item() == pytest.approx(3 * 2 * (number + 1))


@pytest.mark.parametrize("name", terms())
def test_regularisers_see_the_whole_batch(name: str, ranks: list[dict[str, Tensor]], alone: dict[str, Tensor]) -> None:
    keys = [key for key in alone if key.split()[0] == name]
    assert len(keys) == 3
    assert alone[name] > 0.1
    assert alone[f"{name} gradient 0"].abs().max() > 1e-2
    for found in ranks:
        for key in keys:
            torch.testing.assert_close(found[key], alone[key], rtol=1e-5, atol=1e-5)


def test_rewards_weigh_alike_wherever_they_are(ranks: list[dict[str, Tensor]], alone: dict[str, Tensor]) -> None:
    """The mean of the processes' losses, whose gradients are averaged, is the loss of the whole batch."""
    counts = [float(found["num rewarded"]) for found in ranks]
    assert len({*counts}) == 2
    assert sum(counts) == alone["num rewarded"]
    torch.testing.assert_close(torch.stack([found["reward"] for found in ranks]).mean(), alone["reward"])


def test_training_gives_the_same_weights(ranks: list[dict[str, Tensor]], alone: dict[str, Tensor]) -> None:
    start = small_run().objective.state_dict()
    keys = [f"fit {name}" for name in start]
    assert sum(not torch.equal(alone[f"fit {name}"], value) for name, value in start.items()) > 10
    for found in ranks:
        assert {key for key in found if key.startswith("fit ")} == set(keys)
        for key in keys:
            torch.testing.assert_close(found[key], alone[key], rtol=0, atol=1e-5)
    assert all(torch.equal(ranks[0][key], ranks[1][key]) for key in keys)


def test_batch_must_divide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jepalab.dist.num_processes", lambda: 3)
    with pytest.raises(ValueError, match="batch of 8 clips cannot be shared by 3"):
        Engine(device="cpu").share(torch.zeros(8, 1))


def _control_groups(place: Path, **files: str) -> Path:
    for name, text in files.items():
        (place / name.replace("__", "/")).parent.mkdir(parents=True, exist_ok=True)
        (place / name.replace("__", "/")).write_text(text)
    return place


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, 64),
        ({"cpu.max": "max 100000\n"}, 64),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu__cpu.cfs_quota_us": "-1\n", "cpu__cpu.cfs_period_us": "100000\n"}, 64),
        ({"cpu__cpu.cfs_quota_us": "400000\n", "cpu__cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu.max": "nonsense\n"}, 64),
    ],
)
def test_a_container_is_given_no_more_cores_than_its_quota(
    files: dict[str, str], found: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jepalab.dist.CONTROL_GROUPS", _control_groups(tmp_path, **files))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert num_cores() == found


def test_affinity_counts_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jepalab.dist.CONTROL_GROUPS", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert num_cores() == 2
