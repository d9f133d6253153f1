"""In which precision matrix products run: bfloat16 where the device multiplies it, float32 where it would crawl."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from jepalab import dist
from jepalab.dist import Engine, autocast, resolve
from jepalab.objectives.masked_jepa import MaskedJEPA

CPU = torch.device("cpu")
Pretend = Callable[..., None]


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the processor one that has these instructions."""

    def has(**instructions: bool) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions, raising=False)
        dist._multiplies_bfloat16.cache_clear()

    yield has
    dist._multiplies_bfloat16.cache_clear()


def product() -> torch.dtype:
    return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


@pytest.mark.parametrize("instructions", ["avx512_bf16", "amx_bf16", "bf16"])
def test_bfloat16_is_taken_where_it_is_multiplied(instructions: str, pretend: Pretend) -> None:
    pretend(**{instructions: True})
    assert Engine(device="cpu").precision == "bf16"
    with autocast(CPU):
        assert product() == torch.bfloat16


@pytest.mark.parametrize("instructions", [{}, {"avx2": True}, {"avx512_f": True, "avx512_bf16": False}])
def test_processors_without_it_stay_in_float32(instructions: dict[str, bool], pretend: Pretend) -> None:
    pretend(**instructions)
    engine = Engine(device="cpu")
    assert engine.precision == "fp32"
    with engine.autocast():
        assert product() == torch.float32
    assert resolve("auto", torch.device("meta")) == "fp32"


def test_what_is_asked_for_is_done(pretend: Pretend) -> None:
    pretend(avx2=True)
    with Engine(device="cpu", precision="bf16").autocast():
        assert product() == torch.bfloat16
    pretend(avx512_bf16=True)
    with Engine(device="cpu", precision="fp32").autocast():
        assert product() == torch.float32


def test_metal_is_taken_where_it_is_asked_for_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert Engine().device.type == "cpu"


def test_older_torch_is_asked_for_its_one_instruction_set(monkeypatch: pytest.MonkeyPatch, pretend: Pretend) -> None:
    pretend()
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    for known, expected in [(True, "bf16"), (False, "fp32")]:
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda known=known: known)
        dist._multiplies_bfloat16.cache_clear()
        assert resolve("auto", CPU) == expected


def test_losses_of_ijepa_agree_in_both_precisions() -> None:
    """Over two dozen steps, of small matrices, since a processor without the instructions takes its time."""

    def losses(precision: dist.Precision) -> torch.Tensor:
        with dist.seeded(0):
            objective, batch = MaskedJEPA.tiny()
        optimizer = torch.optim.AdamW(objective.parameters(), lr=3e-3)
        found = []
        with Engine(device="cpu", precision=precision) as engine:
            for step in range(1, 25):
                with engine.autocast():
                    loss = objective(batch).total
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                objective.after_step(step / 24)
                found.append(loss.detach().float())
        return torch.stack(found)

    exact, coarse = losses("fp32"), losses("bf16")
    assert not torch.equal(exact, coarse)
    torch.testing.assert_close(coarse, exact, rtol=0.05, atol=0.01)
    assert exact[-1] < exact[0]
