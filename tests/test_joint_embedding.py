"""LeJEPA, VICReg and the supervised ceiling, and the networks that only they use: equations in float64, by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from torch import Tensor, nn

from jepalab.backbones.projector import Projector
from jepalab.backbones.resnet import ResNet
from jepalab.backbones.vit import ViT
from jepalab.losses.sigreg import SIGReg
from jepalab.objectives.lejepa import LeJEPA
from jepalab.objectives.supervised import Supervised
from jepalab.objectives.vicreg import VICReg
from jepalab.types import Batch, Encoder, Objective
from references64 import Projector64, ViT64, agree, covariance64, lively, sigreg64, variance64

NUM_SAMPLES, DIM, OUT = 6, 12, 4
PUBLISHED = {"invariance": 25.0, "variance": 25.0, "covariance": 1.0}


def small_vit() -> ViT:
    vit = ViT((2, 3), patch=(2, 2), channels=2, dim=DIM, depth=2, num_heads=2, mean=(0.4, 0.6), std=(0.5, 0.25))
    return lively(vit)


def small_projector() -> Projector:
    return lively(Projector(DIM, widths=(8, 10), out_dim=OUT), seed=2)


def small_lejepa(num_directions: int = 5, num_knots: int = 7) -> LeJEPA:
    sigreg = SIGReg(num_directions=num_directions, num_knots=num_knots)
    return LeJEPA(small_vit(), projector=small_projector(), sigreg=sigreg, weights={"predict": 0.7, "sigreg": 0.3})


def small_vicreg() -> VICReg:
    return VICReg(small_vit(), projector=small_projector(), weights=dict(PUBLISHED))


def views(number: int, generator: torch.Generator) -> list[Tensor]:
    return [torch.rand(NUM_SAMPLES, 1, 2, 4, 6, generator=generator) for _ in range(number)]


def seen_as(pictures: list[Tensor]) -> Batch:
    return Batch(x=pictures[0], views=tuple(pictures[1:]))


def project64(objective: LeJEPA | VICReg, pictures: list[Tensor]) -> tuple[nn.Module, Tensor]:
    """Every view's projected mean token [v b o]; batch normalisation sees all views at once, as LeJEPA's code does."""
    assert isinstance(objective.encoder, ViT)
    reference = nn.ModuleDict({"encoder": ViT64(objective.encoder), "projector": Projector64(objective.projector)})
    z = reference["projector"](reference["encoder"](torch.cat(pictures)).mean(1))
    return reference, z.view(len(pictures), NUM_SAMPLES, OUT)


# ---------------------------------------------------------------------------------------------------------- LeJEPA


@pytest.mark.parametrize("number", [2, 3])
def test_lejepa_is_its_equation(number: int, generator: torch.Generator) -> None:
    """2511.08544, algorithm 2: each view against the mean of all, and SIGReg of each view's batch."""
    objective, pictures = small_lejepa(), views(number, generator)
    reference, z = project64(objective, pictures)
    centre = sum(z, torch.zeros(())) / number
    predict = torch.stack([(view - centre).square().mean() for view in z]).mean()
    sigreg = torch.stack([sigreg64(view, num_directions=5, num_knots=7) for view in z]).mean()
    agree(objective, seen_as(pictures), reference, 0.7 * predict + 0.3 * sigreg)


def test_lejepas_sigreg_is_the_integral_view_by_view(generator: torch.Generator) -> None:
    """N times the integral over [-3, 3] of |ecf(t) - exp(-t^2/2)|^2 exp(-t^2/2), by adaptive quadrature in numpy."""
    objective, pictures = small_lejepa(num_directions=3, num_knots=2001), views(2, generator)
    with torch.no_grad():
        got = objective.terms(seen_as(pictures))["sigreg"].item()
        _, z = project64(objective, pictures)
    directions = torch.randn(OUT, 3, generator=torch.Generator().manual_seed(0)).double().numpy()
    values = []
    for view in z.numpy():
        for direction in directions.T / np.linalg.norm(directions, axis=0)[:, None]:
            sample = view @ direction

            def integrand(t: float, sample: np.ndarray = sample) -> float:
                return abs(np.exp(1j * t * sample).mean() - math.exp(-(t**2) / 2)) ** 2 * math.exp(-(t**2) / 2)

            values.append(NUM_SAMPLES * quad(integrand, -3, 3)[0])
    assert got == pytest.approx(np.mean(values), rel=1e-4)


def test_lejepa_does_not_know_the_order_of_its_views(generator: torch.Generator) -> None:
    objective, pictures = small_lejepa().eval(), views(3, generator)
    objective.projector.train()
    with torch.no_grad():
        first = objective.terms(seen_as(pictures))
        for order in ((1, 2, 0), (2, 1, 0)):
            turned = objective.terms(seen_as([pictures[i] for i in order]))
            for name, value in first.items():
                torch.testing.assert_close(turned[name], value, rtol=1e-5, atol=0)
        other = objective.terms(seen_as([pictures[0], pictures[1].flip(0), pictures[2]]))
    assert not torch.isclose(other["predict"], first["predict"], rtol=1e-2)  # which picture a view shows does matter


@pytest.mark.parametrize("build", [small_lejepa, small_vicreg])
def test_one_view_is_refused(build: Callable[[], Objective], generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match=r"got 1; use a stream with num_views"):
        build()(seen_as(views(1, generator)))


# ---------------------------------------------------------------------------------------------------------- VICReg


def test_vicreg_is_its_equations(generator: torch.Generator) -> None:
    """2105.04906, equations 1 to 6, with lambda = mu = 25 and nu = 1.

    As in the authors' code, s is averaged over the width too, and the two variances are averaged where the paper adds
    them; the covariances are added.
    """
    objective, pictures = small_vicreg(), views(2, generator)
    reference, (one, other) = project64(objective, pictures)
    s = (one - other).square().sum() / NUM_SAMPLES / OUT
    v = (variance64(one) + variance64(other)) / 2
    c = covariance64(one) + covariance64(other)
    assert min(float(s.detach()), float(v.detach()), float(c.detach())) > 1e-3
    agree(objective, seen_as(pictures), reference, 25 * s + 25 * v + 1 * c)


def test_vicreg_reads_two_views_and_no_more(generator: torch.Generator) -> None:
    objective, pictures = small_vicreg(), views(3, generator)
    with torch.no_grad():
        assert torch.equal(objective(seen_as(pictures)).total, objective(seen_as(pictures[:2])).total)


# -------------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("widths", [(), (8,), (8, 16)])
def test_projector_has_its_layers_and_shapes(widths: tuple[int, ...], generator: torch.Generator) -> None:
    projector = Projector(DIM, widths=widths, out_dim=5)
    sizes = (DIM, *widths)
    hidden = sum(before * after + 2 * after for before, after in zip(sizes, widths, strict=False))
    assert sum(p.numel() for p in projector.parameters()) == hidden + 5 * sizes[-1] + 5
    z = torch.randn(7, DIM, generator=generator)
    assert projector(z).shape == (7, projector.out_dim) == (7, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert projector(z).dtype == torch.float32
    lively(projector)
    torch.testing.assert_close(projector(z).double(), Projector64(projector)(z.double()), rtol=0, atol=1e-5)


def small_resnet() -> ResNet:
    return lively(ResNet(8, channels=2, widths=(8, 16), num_blocks=(1, 2), mean=(0.4, 0.6), std=(0.5, 0.25)))


def resnet64(network: ResNet, x: Tensor) -> Tensor:
    """Pre-activation residual blocks (1603.05027, figure 4e) with group normalisation (1803.08494, section 3)."""
    w = {name: value.double() for name, value in network.state_dict().items()}

    def normed(name: str, h: Tensor) -> Tensor:
        groups = h.reshape(len(h), 8, -1)
        centred = groups - groups.mean(2, keepdim=True)
        groups = centred / (centred.square().mean(2, keepdim=True) + 1e-5).sqrt()
        gain, offset = w[f"{name}.weight"][:, None, None], w[f"{name}.bias"][:, None, None]
        return (groups.view(h.shape) * gain + offset).clamp_min(0)

    h = (x[:, 0].double() - torch.tensor([0.4, 0.6]).double()[:, None, None]) / torch.tensor([0.5, 0.25])[:, None, None]
    h = F.conv2d(h, w["stem.weight"], padding=1)
    for number, stride in enumerate((1, 2, 1)):
        block = f"blocks.{number}"
        active = normed(f"{block}.norm1", h)
        skip = F.conv2d(active, w[f"{block}.shortcut.weight"], stride=stride) if stride == 2 else h
        inner = normed(f"{block}.norm2", F.conv2d(active, w[f"{block}.conv1.weight"], stride=stride, padding=1))
        h = skip + F.conv2d(inner, w[f"{block}.conv2.weight"], padding=1)
    h = normed("norm", h)
    return torch.stack([h[:, :, i, j] for i in range(4) for j in range(4)], 1)


def test_resnet_is_its_equations(generator: torch.Generator) -> None:
    network, x = small_resnet(), torch.rand(3, 1, 2, 8, 8, generator=generator)
    with torch.no_grad():
        z = network(x)
        assert (z.shape, z.dtype, network.dim) == ((3, 16, 16), torch.float32, 16)
        wanted = resnet64(network, x)
        torch.testing.assert_close(z.double(), wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def test_resnet_embeds_each_picture_without_its_neighbours(generator: torch.Generator) -> None:
    network, x = small_resnet(), torch.rand(4, 1, 2, 8, 8, generator=generator)
    for training in (True, False):
        network.train(training)
        with torch.no_grad():
            changed = network(torch.cat([x[:1], 1 - x[1:]]))
            assert torch.equal(network(x)[0], changed[0])
            assert not torch.isclose(network(x)[1:], changed[1:]).all()
            torch.testing.assert_close(network(x[:1]), network(x)[:1], rtol=1e-5, atol=1e-4)


def count(channels: int, widths: tuple[int, ...], num_blocks: tuple[int, ...]) -> int:
    """Weights of 3 x 3 kernels, 1 x 1 shortcuts where the width or the size changes, a gain and an offset a norm."""
    total, before = 9 * channels * widths[0], widths[0]
    for stage, (width, blocks) in enumerate(zip(widths, num_blocks, strict=True)):
        for block in range(blocks):
            changes = before != width or (stage > 0 and block == 0)
            total += 9 * before * width + 9 * width * width + 2 * before + 2 * width + changes * before * width
            before = width
    return total + 2 * before


@pytest.mark.parametrize(
    ("widths", "num_blocks"),
    [((8, 16), (1, 2)), ((16, 16, 24), (2, 1, 1)), ((8,), (3,)), ((64, 128, 256, 512), (2, 2, 2, 2))],
)
def test_resnet_has_the_parameters_of_its_formula(widths: tuple[int, ...], num_blocks: tuple[int, ...]) -> None:
    network = ResNet(16, widths=widths, num_blocks=num_blocks)
    assert sum(p.numel() for p in network.parameters()) == count(3, widths, num_blocks)
    if widths[-1] == 512:
        # ResNet-18 for CIFAR has 11,168,832 below its classifier, with a norm after the stem and after each of its
        # three shortcuts; here the first norm of a block is as wide as what comes in, and one comes last.
        norms_there = 2 * (64 + 4 * 64 + 4 * 128 + 4 * 256 + 4 * 512 + 128 + 256 + 512)
        norms_here = 2 * (4 * 64 + (64 + 3 * 128) + (128 + 3 * 256) + (256 + 3 * 512) + 512)
        assert count(3, widths, num_blocks) == 11_168_832 - norms_there + norms_here


def test_gradient_reaches_every_parameter_of_a_resnet(generator: torch.Generator) -> None:
    network = ResNet(8, channels=2, widths=(8, 16), num_blocks=(2, 1))
    z = network(torch.rand(3, 1, 2, 8, 8, generator=generator))
    (z * torch.randn(z.shape, generator=generator)).sum().backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]


def test_resnet_refuses_what_it_cannot_do(generator: torch.Generator) -> None:
    network = small_resnet()
    for shape in ((2, 1, 3, 8, 8), (2, 1, 2, 8, 4), (2, 2, 2, 8, 8)):
        with pytest.raises(ValueError, match=r"built for pictures \[b 1 2 8 8\], got"):
            network(torch.zeros(shape))
    x = torch.rand(2, 1, 2, 8, 8, generator=generator)
    with pytest.raises(ValueError, match="cannot leave patches out"):
        network(x, torch.zeros(2, 1, dtype=torch.int64))
    with pytest.raises(ValueError, match="cannot leave patches out"):
        network(x, causal=True)
    with pytest.raises(ValueError, match="widths that 8 divides"):
        ResNet(8, widths=(12,), num_blocks=(1,))
    with pytest.raises(ValueError, match="a size that 2 divides"):
        ResNet(7, widths=(8, 16), num_blocks=(1, 1))
    with pytest.raises(ValueError, match="block count for each of 2 stages"):
        ResNet(8, widths=(8, 16), num_blocks=(1,))


def joint(kind: str, encoder: Encoder) -> Objective:
    projector = Projector(encoder.dim, widths=(8,), out_dim=OUT)
    if kind == "lejepa":
        sigreg = SIGReg(num_directions=8)
        return LeJEPA(encoder, projector=projector, sigreg=sigreg, weights={"predict": 0.9, "sigreg": 0.1})
    if kind == "vicreg":
        return VICReg(encoder, projector=projector, weights=dict(PUBLISHED))
    return Supervised(encoder, num_outputs={"class": 3}, weights={"class": 1.0})


@pytest.mark.parametrize("kind", ["lejepa", "vicreg", "supervised"])
def test_a_step_down_the_gradient_of_a_resnet_lowers_the_loss(kind: str, generator: torch.Generator) -> None:
    torch.manual_seed(0)
    objective = joint(kind, ResNet(8, channels=2, widths=(8, 16), num_blocks=(1, 1)))
    x = torch.rand(2, NUM_SAMPLES, 1, 2, 8, 8, generator=generator)
    batch = Batch(x=x[0], views=(x[1],), factors={"class": torch.arange(NUM_SAMPLES).view(-1, 1) % 3})
    for module in objective.modules():
        if isinstance(module, SIGReg):
            module.eval()  # the same directions before and after
    loss = objective(batch).total
    loss.backward()
    parameters = [p for p in objective.parameters() if p.requires_grad]
    length = sum(float(p.grad.square().sum()) for p in parameters if p.grad is not None)
    assert all(p.grad is not None for p in parameters)
    before = loss.item()
    step = 1e-3 * before / length
    torch.optim.SGD(parameters, lr=step).step()
    assert before - objective(batch).total.item() == pytest.approx(1e-3 * before, rel=0.3)


# ------------------------------------------------------------------------------------------------------ supervised


def small_clips(generator: torch.Generator) -> tuple[ViT, Tensor]:
    """Three frames of 2 x 2 patches each."""
    encoder = ViT((3, 2, 2), patch=(1, 2, 2), channels=1, dim=DIM, depth=1, num_heads=2)
    return lively(encoder), torch.rand(4, 3, 1, 4, 4, generator=generator)


def test_supervised_is_squared_error_and_cross_entropy_of_each_frames_mean(generator: torch.Generator) -> None:
    encoder, x = small_clips(generator)
    num_outputs, weights = {"position": 2, "class": 3, "count": 5}, {"position": 1.0, "class": 0.5, "count": 0.25}
    objective = Supervised(encoder, num_outputs=num_outputs, weights=weights)
    factors = {
        "position": torch.rand(4, 3, 2, generator=generator),
        "class": torch.randint(3, (4, 3), generator=generator),
        "count": torch.randint(5, (4, 3), generator=generator),
    }
    loss = objective(Batch(x=x, factors=factors))
    with torch.no_grad():
        tokens = encoder(x).double()
        means = torch.stack([tokens[:, 4 * frame : 4 * frame + 4].sum(1) / 4 for frame in range(3)], 1)
        wanted: dict[str, float] = {}
        for name, head in objective.heads.items():
            assert isinstance(head, nn.Linear)
            answer, truth = means @ head.weight.double().T + head.bias.double(), factors[name]
            if name == "position":
                wanted[name] = float((answer - truth).square().mean())
                continue
            odds = [answer[i, t].exp()[truth[i, t]] / answer[i, t].exp().sum() for i in range(4) for t in range(3)]
            wanted[name] = -float(torch.stack(odds).log().mean())
    assert {name: value.item() for name, value in loss.terms.items()} == pytest.approx(wanted, rel=1e-5)
    total = sum(weights[name] * value for name, value in wanted.items())
    assert loss.total.item() == pytest.approx(total, rel=1e-5)
    assert objective.reads_factors == {"position", "class", "count"}


def test_supervised_knows_its_factors(generator: torch.Generator) -> None:
    encoder, _ = small_clips(generator)
    with pytest.raises(ValueError, match="reads position, class, count, got class, colour"):
        Supervised(encoder, num_outputs={"class": 2, "colour": 3}, weights={"class": 1.0, "colour": 1.0})


def test_unlabelled_pictures_count_nothing(generator: torch.Generator) -> None:
    """Class -1 is a picture that nobody labelled; a batch may hold such pictures alone."""
    encoder, x = small_clips(generator)
    objective = Supervised(encoder, num_outputs={"class": 3}, weights={"class": 1.0})
    classes = torch.randint(3, (4, 3), generator=generator)
    some = torch.where(torch.arange(4)[:, None] < 2, classes, -1)
    mixed = objective(Batch(x=x, factors={"class": some}))
    labelled = objective(Batch(x=x[:2], factors={"class": classes[:2]}))
    torch.testing.assert_close(mixed.total, labelled.total, rtol=1e-6, atol=0)
    nothing = objective(Batch(x=x, factors={"class": torch.full((4, 3), -1)}))
    nothing.total.backward()
    assert nothing.total == 0
    assert all(p.grad is not None and not p.grad.any() for p in objective.parameters())
