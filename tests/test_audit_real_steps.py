"""The audit sees through what real training code does around a loss, and leaves no trace in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, default_collate

from audit_cases import Case, audited, driving, run
from audit_ways import COMPILED, WAYS, World
from jepalab.audit.report import Audit, Family, Space, TargetLearning

Way = Callable[[World], Case]


def plain_case() -> Case:
    world = World()
    return world.case(lambda x, x_next: world.loss(x, x_next))


@pytest.fixture(scope="module")
def plain() -> Audit:
    return audited(plain_case())


def without_numbers(verdict: str) -> str:
    return re.sub(r"[\d.]+ ?%", "%", verdict)


def kinds(result: Audit) -> set[tuple[object, ...]]:
    """What the terms that matter compare, without how many calls it took to write it."""
    return {
        (term.space, term.process, term.family, term.target_learning, term.stop_gradient, term.novelty)
        for term in driving(result)
    }


def assert_same(result: Audit, plain: Audit, *, same_weights: bool = True) -> None:
    assert kinds(result) == kinds(plain)
    assert result.verdict.startswith("mixed (")
    assert result.mixture.keys() == plain.mixture.keys()
    assert result.unexplained < 0.05
    if same_weights:
        assert without_numbers(result.verdict) == without_numbers(plain.verdict)
        assert dict(result.mixture) == pytest.approx(dict(plain.mixture), abs=0.03)
        assert dict(result.parameters) == dict(plain.parameters)


def test_plain_step(plain: Audit) -> None:
    """What all others are held against."""
    assert kinds(plain) == {
        (Space.EMA_EMBEDDING, "regress", Family.JEPA, TargetLearning.EMA, True, 1.0),
        (Space.INPUT, "regress", Family.GENERATIVE, TargetLearning.NONE, False, 1.0),
    }
    assert plain.verdict.startswith("mixed (")
    assert set(plain.mixture) == {Family.JEPA, Family.GENERATIVE}
    assert sum(plain.mixture.values()) == pytest.approx(1)
    assert plain.parameters["online"] == 416 + 272 + 136
    assert plain.parameters["ema"] == 416
    assert [(average.order, round(average.momentum, 4)) for average in plain.averages] == [("after", 0.95)]
    assert plain.averages[0].residual < 1e-3
    assert not [finding for finding in plain.findings if finding.weight != "note"]


@pytest.mark.parametrize("way", [*WAYS, *COMPILED], ids=lambda way: way.__name__)
def test_step_runs_without_an_audit(way: Way) -> None:
    case = way(World())
    before = case.modules["encoder"].get_parameter(next(iter(case.modules["encoder"].state_dict()))).clone()
    run(case)
    assert not torch.equal(before, next(case.modules["encoder"].parameters()))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_verdict_does_not_depend_on_how_it_is_written(way: Way, plain: Audit) -> None:
    assert_same(audited(way(World())), plain)


@pytest.mark.parametrize("way", COMPILED, ids=lambda way: way.__name__)
def test_compiled_module_runs_eagerly_or_is_refused(way: Way, plain: Audit) -> None:
    try:
        result = audited(way(World()))
    except ValueError as error:
        if not re.search("torch.compile.*(disable|without)", str(error), re.DOTALL):
            raise
    else:
        assert_same(result, plain)


@pytest.mark.parametrize("container", [dict, tuple])
def test_terms_carry_the_names_the_step_gives_them(container: type, plain: Audit) -> None:
    world = World()

    class Terms(NamedTuple):
        loss: Tensor
        latent: Tensor
        pixel: Tensor

    def step(x: Tensor, x_next: Tensor) -> Any:
        latent, pixel = world.terms(x, x_next)
        named = Terms(latent + 0.3 * pixel, latent, pixel)
        return named._asdict() if container is dict else named

    result = audited(world.case(step))
    assert_same(result, plain)
    assert {term.name: term.space for term in result.terms} == {"latent": Space.EMA_EMBEDDING, "pixel": Space.INPUT}


# --- batches ----------------------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    x: Tensor
    x_next: Tensor


@dataclass
class Record:
    x: Tensor
    x_next: Tensor


def collate_records(rows: list[dict[str, Tensor]]) -> Record:
    return Record(**default_collate(rows))


@pytest.mark.parametrize("holder", [dict, Pair, Record], ids=lambda holder: holder.__name__)
def test_batches_come_in_any_container(holder: type, plain: Audit) -> None:
    world = World()
    rows: list[Any] = [{"x": x, "x_next": x_next} for x, x_next in zip(world.x, world.x_next, strict=True)]
    if holder is Pair:
        rows = [Pair(**row) for row in rows]
    loader = DataLoader(rows, batch_size=6, collate_fn=collate_records if holder is Record else None)  # type: ignore[arg-type]
    batch = next(iter(loader))
    assert isinstance(batch, holder)

    def step(batch: Any) -> Tensor:
        return world.loss(batch["x"], batch["x_next"]) if holder is dict else world.loss(batch.x, batch.x_next)

    assert_same(audited(world.case(step, batch)), plain)


# --- networks ---------------------------------------------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.attend = nn.Linear(8, 16), nn.MultiheadAttention(16, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        z = self.embed(x)
        return z + self.attend(z, z, z, need_weights=False)[0]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(8, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.normalise, self.project = nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.normalise(self.embed(x).mT).mT.relu())


def transformer() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
    return nn.Sequential(nn.Linear(8, 16), nn.TransformerEncoder(layer, 2))


@pytest.mark.parametrize("teacher_evaluates", [False, True])
@pytest.mark.parametrize("network", [Attention, Recurrent, Normalised, transformer], ids=lambda f: f.__name__)
def test_networks_of_torch(network: Callable[[], nn.Module], teacher_evaluates: bool, plain: Audit) -> None:
    """A transformer that evaluates without gradients takes a fused path: one call for a whole layer."""
    torch.manual_seed(0)
    world = World(network())
    if teacher_evaluates:
        world.teacher.eval()
    result = audited(world.case(lambda x, x_next: world.loss(x, x_next)))
    assert_same(result, plain, same_weights=False)
    assert [average.order for average in result.averages] == ["after"]


def test_tied_weights(plain: Audit) -> None:
    """The decoder is the encoder's first layer turned round: one parameter on both ways."""
    world = World()
    first = world.encoder.get_submodule("0")
    assert isinstance(first, nn.Linear)

    def step(x: Tensor, x_next: Tensor) -> Tensor:
        predicted = world.predictor(world.encoder(x))
        with torch.no_grad():
            target = world.teacher(x_next)
        return F.mse_loss(predicted, target) + 0.3 * F.mse_loss(F.linear(predicted, first.weight.mT), x_next)

    case = world.case(step)
    case.modules = {name: module for name, module in case.modules.items() if name != "decoder"}
    assert_same(audited(case), plain, same_weights=False)


@pytest.mark.dist
@pytest.mark.filterwarnings("ignore:.*barrier.*")
def test_distributed_data_parallel(tmp_path: Path, plain: Audit) -> None:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        world = World()
        world.encoder = DistributedDataParallel(world.encoder)
        assert_same(audited(world.case(lambda x, x_next: world.loss(x, x_next))), plain)
        run(world.case(lambda x, x_next: world.loss(x, x_next)))
    finally:
        torch.distributed.destroy_process_group()
