"""The same numbers on a GPU as on the CPU, objective by objective; skipped where there is no GPU."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from jepalab.data.images import open_images
from jepalab.data.sample_stream import SampleStream
from jepalab.fit import fit
from jepalab.instruments.attentive import attentive
from jepalab.instruments.finetuning import finetuning
from jepalab.instruments.image_geometry import image_geometry
from jepalab.instruments.label_efficiency import label_efficiency
from jepalab.instruments.labelled import labelled_subjects
from jepalab.instruments.layers import layer_sweep
from jepalab.instruments.recognition import recognition
from jepalab.instruments.robustness import robustness
from jepalab.instruments.sgd_probe import sgd_probe
from jepalab.objectives import find_objectives
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.run import Run

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
OBJECTIVES = find_objectives()
TRAINED = [name for name, objective in OBJECTIVES.items() if objective.compares]


@pytest.fixture(autouse=True)
def exact_products() -> None:
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


@pytest.mark.parametrize("name", TRAINED)
def test_loss_and_gradient_agree_with_the_cpu(name: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        here, batch = OBJECTIVES[name].tiny()
    there = copy.deepcopy(here).cuda()
    loss, loss_there = here(batch), there(batch.map(lambda tensor: tensor.cuda()))
    torch.testing.assert_close(loss_there.total.cpu(), loss.total, rtol=1e-4, atol=1e-5)
    loss.total.backward()
    loss_there.total.backward()
    for (key, p), q in zip(here.named_parameters(), there.parameters(), strict=True):
        if p.grad is not None:
            assert q.grad is not None, key
            torch.testing.assert_close(q.grad.cpu(), p.grad, rtol=1e-3, atol=5e-3 * float(p.grad.abs().max()) + 1e-6)


def small_stream() -> SampleStream:
    generator = np.random.default_rng(0)
    labels = torch.arange(400) % 4
    pixels = generator.integers(0, 200, (400, 8, 8, 1), dtype=np.uint8) + (labels.numpy() * 12)[:, None, None, None]
    return SampleStream(labelled(pixels.astype(np.uint8), labels), batch_size=32)


def labelled(pixels: np.ndarray, labels: torch.Tensor) -> object:
    from dataclasses import replace

    images = open_images(pixels, size=8)
    return replace(
        images, labels=labels, names=list("abcd"), splits=(torch.arange(400) % 5 - 2).clamp_min(0).to(torch.int8)
    )


def test_training_and_every_instrument_run_on_the_gpu() -> None:
    stream = small_stream()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        objective, _ = MaskedJEPA.tiny()
    assert fit(Run(objective=objective, stream=stream, steps=5), device="cuda") > 0
    objective.cuda()
    subjects = labelled_subjects(objective, stream)
    assert {*subjects} == {"student", "teacher"}
    for instrument in (
        recognition,
        layer_sweep,
        label_efficiency,
        image_geometry,
        attentive,
        sgd_probe,
        finetuning,
        robustness,
    ):
        assert all(np.isfinite(value) for value in instrument(subjects["student"]).values()), instrument.__name__
    assert next(objective.parameters()).is_cuda
