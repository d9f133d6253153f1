"""I-JEPA, V-JEPA and their relatives against their equations in float64, and the properties that keep them honest.

The encoder is held against transformers.IJepaModel in test_hub.py (test_transformers_computes_what_our_encoder_does).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv3d

from jepalab.auditing import audit_objective, differences
from jepalab.backbones.attention import Transformer
from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.teachers import EMATeacher, FrozenTeacher, OwnTeacher, Teacher
from jepalab.backbones.vit import ViT
from jepalab.fit import fit
from jepalab.losses import distances
from jepalab.losses.distances import Distance, mean_absolute, mean_squared, smooth_l1
from jepalab.losses.regularisers import Gaussianity, VarianceCovariance
from jepalab.losses.sigreg import SIGReg
from jepalab.losses.targets import MeanOfLevels, SeveralLevels, Targets, output_level
from jepalab.masks import drawing
from jepalab.masks.blocks import Blocks
from jepalab.masks.causal import PastFuture
from jepalab.masks.drawing import MaskDrawer, mask_drawers
from jepalab.masks.random import RandomMask
from jepalab.masks.tubes import Tubes
from jepalab.objectives.mae import MAE
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.progress import COLLAPSED_STD, Moment
from jepalab.run import Run
from jepalab.types import Batch, Mask, MaskSampler, Objective, Space
from references64 import Predictor64, ViT64, agree, covariance64, layer_norm64, lively, sigreg64, variance64

GRID, PATCH, CHANNELS, NUM_PATCHES, DIM, DEPTH = (4, 5), (2, 2), 2, 20, 12, 2
NUM_SAMPLES = 3
CLIP_GRID, TUBELET = (2, 4, 4), (2, 2, 2)


@dataclass(frozen=True)
class FourBlocks:
    """Four blocks of up to three hidden tokens, overlapping, different for each sample; some filled up where padded."""

    padded: bool = False
    grid: tuple[int, ...] = GRID

    def __call__(self, num_samples: int, generator: torch.Generator) -> Mask:
        order = torch.stack([torch.randperm(NUM_PATCHES, generator=generator) for _ in range(num_samples)])
        context, hidden = order[:, :8].sort(1).values, order[:, 8:]
        target = torch.stack([hidden[:, 2 * block : 2 * block + 3] for block in range(4)], 1)
        lengths = torch.tensor([[3, 2, 1, 3], [1, 3, 3, 2], [2, 2, 2, 1], [1, 1, 1, 2]])[torch.arange(num_samples) % 4]
        present = torch.arange(3) < lengths.unsqueeze(-1)
        return Mask(context, target, present if self.padded else None)


def drawn(sampler: MaskSampler, num_samples: int = NUM_SAMPLES) -> Mask:
    """What a drawer of seed 0 draws at its first step."""
    return sampler(num_samples, torch.Generator().manual_seed(0))


def pictures(generator: torch.Generator, num_samples: int = NUM_SAMPLES) -> Tensor:
    return torch.rand(num_samples, 1, CHANNELS, 8, 10, generator=generator)


def clips(generator: torch.Generator, num_samples: int = NUM_SAMPLES) -> Tensor:
    return torch.rand(num_samples, 4, CHANNELS, 8, 8, generator=generator)


def small_vit(seed: int = 1, scale: float = 0.2, *, clip: bool = False) -> ViT:
    grid, patch = (CLIP_GRID, TUBELET) if clip else (GRID, PATCH)
    vit = ViT(grid, patch=patch, channels=CHANNELS, dim=DIM, depth=DEPTH, num_heads=2, mean=(0.4, 0.6), std=(0.5, 0.25))
    return lively(vit, seed=seed, scale=scale)


def small_predictor(
    out_dim: int = DIM,
    *,
    context: bool = False,
    scale: float = 0.2,
    clip: bool = False,
    num_mask_tokens: int = 1,
    dim: int = DIM,
) -> MaskedPredictor:
    predictor = MaskedPredictor(
        dim,
        out_dim,
        grid=CLIP_GRID if clip else GRID,
        width=8,
        depth=2,
        num_heads=2,
        context_dim=out_dim if context else None,
        num_mask_tokens=num_mask_tokens,
    )
    return lively(predictor, seed=2, scale=scale)


@dataclass(frozen=True)
class Variant:
    """A masked JEPA by its parts."""

    teacher: Literal["ema", "frozen", "own"] = "ema"
    targets: Targets = output_level
    reads: SeveralLevels | None = None
    distance: Distance = smooth_l1
    regulariser: Literal["vicreg", "sigreg"] | None = None
    context: bool = False
    masks: MaskSampler | tuple[MaskSampler, ...] = FourBlocks()
    untrained: bool = False

    @property
    def samplers(self) -> tuple[MaskSampler, ...]:
        return self.masks if isinstance(self.masks, tuple) else (self.masks,)

    @property
    def clip(self) -> bool:
        return self.samplers[0].grid == CLIP_GRID

    def inputs(self, generator: torch.Generator, num_samples: int = NUM_SAMPLES) -> Tensor:
        return (clips if self.clip else pictures)(generator, num_samples)

    @property
    def weights(self) -> dict[str, float]:
        """Unlike one another, so that none can take another's place."""
        terms = {None: [], "vicreg": ["variance", "covariance"], "sigreg": ["sigreg"]}[self.regulariser]
        names = [self.teacher, *([f"{self.teacher}_context"] if self.context else []), *terms]
        return dict(zip(names, (1.0, 0.5, 0.25), strict=False))

    def make(self) -> MaskedJEPA:
        scale = 0.0 if self.untrained else 0.2
        encoder = small_vit(scale=scale, clip=self.clip)
        teachers: dict[str, Callable[[], Teacher]] = {
            "ema": lambda: EMATeacher(encoder),
            "frozen": lambda: FrozenTeacher(small_vit(seed=3, scale=scale, clip=self.clip)),
            "own": OwnTeacher,
        }
        teacher = teachers[self.teacher]()
        if isinstance(teacher, EMATeacher):
            lively(teacher, seed=4, scale=scale)  # as after many steps: no longer the student
        width = DIM * (len(self.targets.levels) if isinstance(self.targets, SeveralLevels) else 1)
        return MaskedJEPA(
            encoder,
            predictor=small_predictor(
                width,
                context=self.context,
                scale=scale,
                clip=self.clip,
                num_mask_tokens=len(self.samplers),
                dim=DIM * (1 if self.reads is None else len(self.reads.levels)),
            ),
            masks=self.masks,
            teacher=teacher,
            targets=self.targets,
            reads=self.reads,
            distance=self.distance,
            regulariser={
                None: None,
                "vicreg": VarianceCovariance(),
                "sigreg": Gaussianity(SIGReg(num_directions=4, num_knots=7)),
            }[self.regulariser],
            weights=self.weights,
        )


LIBRARYS = Blocks(GRID, target_scale=(0.1, 0.3))
BOTH_RANGES = (Tubes.short_range(CLIP_GRID), Tubes.long_range(CLIP_GRID))
VARIANTS = {
    "smooth L1": Variant(),
    "L2": Variant(distance=mean_squared),
    "L1": Variant(distance=mean_absolute),
    "filled up": Variant(masks=FourBlocks(padded=True)),
    "library's blocks": Variant(masks=LIBRARYS),
    "frozen": Variant(teacher="frozen", distance=mean_absolute),
    "data2vec": Variant(targets=MeanOfLevels(2), masks=FourBlocks(padded=True)),
    "levels": Variant(targets=SeveralLevels((0, 1))),
    "context": Variant(context=True, masks=FourBlocks(padded=True)),
    "levels and context": Variant(targets=SeveralLevels((1, 0)), context=True, distance=mean_squared),
    "own and VICReg": Variant(teacher="own", regulariser="vicreg", masks=FourBlocks(padded=True)),
    "own and SIGReg": Variant(teacher="own", regulariser="sigreg", distance=mean_squared),
    "three masks": Variant(masks=(FourBlocks(padded=True), LIBRARYS, FourBlocks()), context=True),
    "V-JEPA": Variant(masks=BOTH_RANGES, distance=mean_absolute),
    "levels read": Variant(reads=SeveralLevels((1, 0)), masks=FourBlocks(padded=True)),
    "V-JEPA 2.1": Variant(
        masks=BOTH_RANGES,
        distance=mean_absolute,
        targets=SeveralLevels((0, 1)),
        reads=SeveralLevels((0, 1)),
        context=True,
    ),
    "causal V-JEPA": Variant(masks=tuple(replace(sampler, num_seen_times=1) for sampler in BOTH_RANGES)),
    "past and future": Variant(masks=PastFuture(CLIP_GRID, num_context=16), distance=mean_absolute),
    "VICReg and V-JEPA's masks": Variant(teacher="own", regulariser="vicreg", masks=BOTH_RANGES),
}


def blocks_of(mask: Mask) -> list[tuple[int, int, Tensor]]:
    """Each sample's blocks: which sample, which block, and the tokens that are present."""
    found = []
    for i in range(len(mask.target)):
        for block in range(mask.target.shape[1]):
            target = mask.target[i, block]
            found.append((i, block, target if mask.present is None else target[mask.present[i, block]]))
    return found


def targets64(targets: Targets, levels: list[Tensor]) -> Tensor:
    if isinstance(targets, MeanOfLevels):  # data2vec, section 3.3: the mean of the normalised top blocks
        total = sum((layer_norm64(level) for level in levels[-targets.num_levels :]), torch.zeros(()))
        return layer_norm64(total / targets.num_levels)
    if isinstance(targets, SeveralLevels):  # V-JEPA 2.1: a LayerNorm for each level, side by side
        return torch.cat([layer_norm64(levels[level]) for level in targets.levels], -1)
    return layer_norm64(levels[-1])


DISTANCES64: dict[Distance, Callable[[Tensor], Tensor]] = {
    smooth_l1: lambda e: torch.where(e.abs() < 1, e.square() / 2, e.abs() - 0.5),
    mean_squared: torch.square,
    mean_absolute: torch.abs,
}


class Clip64(ViT64):
    """A ViT of clips: the convolution strides through time too."""

    def tokens(self, x: Tensor) -> Tensor:
        frames = (x.double() - self.mean[:, None, None]) / self.std[:, None, None]
        kernel = self.embed.weight.view(-1, self.channels, *self.patch)
        tubelets = conv3d(frames.transpose(1, 2), kernel, self.embed.bias, stride=self.patch)
        return tubelets.flatten(2).mT + self.positions


class Asked64(Predictor64):
    """With one of its mask tokens, a row each if there are several."""

    def ask(self, z: Tensor, context: Tensor, target: Tensor, which: int) -> tuple[Tensor, Tensor | None]:
        mask_token = self.mask_token if self.mask_token.ndim == 1 else self.mask_token[which]
        seen = self.embed(z) + self.positions[context]
        tokens = self.transformer(torch.cat([seen, mask_token + self.positions[target]])[None])[0]
        here = None if self.answer_context is None else self.answer_context(tokens[: len(context)])
        return self.answer(tokens[len(context) :]), here


def nearest(place: int, others: list[int], grid: tuple[int, ...]) -> float:
    """Euclidean distance of a place of the grid to the nearest of others."""
    here, there = np.unravel_index(place, grid), np.unravel_index(np.array(others), grid)
    return float(min(np.sqrt(sum((axis - at) ** 2 for axis, at in zip(there, here, strict=True)))))


def masks_of(variant: Variant) -> list[Mask]:
    """What an objective of seed 0 draws at its first step."""
    return [draw(NUM_SAMPLES) for draw in mask_drawers(variant.samplers)]


def derive(variant: Variant, objective: MaskedJEPA, x: Tensor) -> tuple[nn.Module, Tensor]:
    """I-JEPA's equation 1 (2301.08243; distance and layer norm as in the published code), block by block.

    With several masks their mean, as in V-JEPA's published code (2404.08471).
    """
    vit64 = Clip64 if variant.clip else ViT64
    reference = nn.ModuleDict({"encoder": vit64(objective.encoder), "predictor": Asked64(objective.predictor)})  # type: ignore[arg-type]
    encoder, predictor = reference["encoder"], reference["predictor"]
    assert isinstance(encoder, ViT64)
    assert isinstance(predictor, Asked64)
    if variant.teacher == "own":
        levels = encoder.levels(x)
    else:
        with torch.no_grad():
            levels = vit64(objective.teacher.encoder).levels(x)  # type: ignore[arg-type]
    wanted, distance = targets64(variant.targets, levels), DISTANCES64[variant.distance]
    of_masks, of_contexts = [], []
    for which, mask in enumerate(masks_of(variant)):
        z, rows, context_rows, nearness = encoder(x, mask.context), [], [], []
        if variant.reads is not None:
            z = targets64(variant.reads, encoder.levels(x, mask.context))
        for i, _, target in blocks_of(mask):
            there, here = predictor.ask(z[i], mask.context[i], target, which)
            rows.append(distance(there - wanted[i, target]).mean(1))
            if here is not None:
                grid = variant.samplers[which].grid
                context_rows.append(distance(here - wanted[i, mask.context[i]]).mean(1))
                nearness.append(torch.tensor([1 / nearest(int(k), target.tolist(), grid) for k in mask.context[i]]))
        of_masks.append(torch.cat(rows).mean())
        if variant.context:
            weights = torch.cat(nearness).double()
            of_contexts.append((torch.cat(context_rows) * weights).sum() / weights.sum())
    terms = [sum(each, torch.zeros(())) / len(each) for each in (of_masks, of_contexts) if each]
    places = levels[-1].transpose(0, 1)
    if variant.regulariser == "vicreg":
        terms += [torch.stack([term(place) for place in places]).mean() for term in (variance64, covariance64)]
    if variant.regulariser == "sigreg":
        terms.append(torch.stack([sigreg64(place, num_directions=4, num_knots=7) for place in places]).mean())
    total = sum((w * term for w, term in zip(variant.weights.values(), terms, strict=True)), torch.zeros(()))
    return reference, total


# ------------------------------------------------------------------------------------------------------- predictor


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("context", [False, True])
def test_predictor_is_a_transformer_over_context_and_mask_tokens(
    padded: bool, context: bool, generator: torch.Generator
) -> None:
    """Each block on its own, as if there were no other, and as if nothing filled it up."""
    predictor, mask = small_predictor(7, context=context), drawn(FourBlocks(padded))
    z = torch.randn(NUM_SAMPLES, 8, DIM, generator=generator)
    reference = Predictor64(predictor)
    with torch.no_grad():
        there, here = predictor.with_context(z, mask) if context else (predictor(z, mask), None)
        assert there.shape == (NUM_SAMPLES, 4, 3, 7)
        for i, block, target in blocks_of(mask):
            wanted, wanted_here = reference(z[i].double(), mask.context[i], target)
            torch.testing.assert_close(there[i, block, : len(target)].double(), wanted, rtol=0, atol=1e-5)
            if here is not None:
                assert wanted_here is not None
                torch.testing.assert_close(here[i, block].double(), wanted_here, rtol=0, atol=1e-5)


def test_what_fills_a_block_up_changes_nothing(generator: torch.Generator) -> None:
    predictor, mask = small_predictor(context=True), drawn(FourBlocks(padded=True))
    assert mask.present is not None
    z = torch.randn(NUM_SAMPLES, 8, DIM, generator=generator)
    other = replace(mask, target=torch.where(mask.present, mask.target, (mask.target + 7) % NUM_PATCHES))
    assert not torch.equal(other.target, mask.target)
    before, after = predictor.with_context(z, mask), predictor.with_context(z, other)
    assert torch.equal(before[0][mask.present], after[0][mask.present])
    assert torch.equal(before[1], after[1])
    assert torch.equal(predictor(z, mask)[mask.present], predictor(z, other)[mask.present])


@pytest.mark.parametrize("padded", [False, True])
def test_blocks_do_not_see_each_other(padded: bool, generator: torch.Generator) -> None:
    predictor, mask = small_predictor(context=True), drawn(FourBlocks(padded))
    z = torch.randn(NUM_SAMPLES, 8, DIM, generator=generator)
    moved = replace(mask, target=mask.target.clone())
    moved.target[:, 1] = (moved.target[:, 1] + 3) % NUM_PATCHES
    others = torch.tensor([0, 2, 3])
    for before, after in zip(predictor.with_context(z, mask), predictor.with_context(z, moved), strict=True):
        assert torch.equal(before[:, others], after[:, others])
        assert (before[:, 1] - after[:, 1]).abs().amax((1, 2)).min() > 1e-3
    assert torch.equal(predictor(z, mask)[:, others], predictor(z, moved)[:, others])


@pytest.mark.parametrize("padded", [False, True])
def test_answering_for_the_last_tokens_alone_is_the_full_computation(padded: bool, generator: torch.Generator) -> None:
    predictor, mask = small_predictor(context=True).double(), drawn(FourBlocks(padded))
    z = torch.randn(NUM_SAMPLES, 8, DIM, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(predictor(z, mask), predictor.with_context(z, mask)[0], rtol=0, atol=1e-6)
    transformer = lively(Transformer(8, depth=2, num_heads=2)).double()
    tokens = torch.randn(2, 6, 8, generator=generator, dtype=torch.float64).requires_grad_()
    sees = torch.rand(2, 6, 6, generator=generator) < 0.5
    sees |= torch.eye(6, dtype=torch.bool)
    few, full = transformer(tokens, sees=sees, num_last=2), transformer(tokens, sees=sees)[:, -2:]
    torch.testing.assert_close(few, full, rtol=0, atol=1e-12)
    one, other = (torch.autograd.grad(answer.pow(3).sum(), tokens)[0] for answer in (few, full))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_a_second_answer_has_to_be_built_in(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="context_dim"):
        small_predictor().with_context(torch.randn(NUM_SAMPLES, 8, DIM, generator=generator), drawn(FourBlocks()))


# ------------------------------------------------------------------------------------------------------- equations


@pytest.mark.parametrize("name", VARIANTS)
def test_loss_and_gradients_are_those_of_the_equation(name: str, generator: torch.Generator) -> None:
    variant = VARIANTS[name]
    objective, x = variant.make(), variant.inputs(generator)
    agree(objective, Batch(x=x), *derive(variant, objective, x))


def test_the_variants_reach_both_sides_of_the_corner_and_fill_blocks_up(generator: torch.Generator) -> None:
    """Else smooth L1 could be a square, and the mask's `present` could be lost, and the equations would still hold."""
    errors: list[Tensor] = []

    def noted(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        errors.append((prediction - target).abs())
        return smooth_l1(prediction, target, weight)

    replace(VARIANTS["smooth L1"], distance=noted).make()(Batch(x=pictures(generator)))
    assert 0.1 < (errors[0] < 1).float().mean() < 0.9
    for sampler in (LIBRARYS, *BOTH_RANGES[:1]):
        present = drawn(sampler).present
        assert present is not None
        assert not present.all()


def test_levels_are_chosen_and_averaged_by_their_definitions(generator: torch.Generator) -> None:
    levels = [torch.randn(2, 3, 4, generator=generator, dtype=torch.float64) * 3**i + i for i in range(4)]
    for targets in (output_level, MeanOfLevels(1), MeanOfLevels(3), SeveralLevels((0, 3)), SeveralLevels((-1, 1, 2))):
        torch.testing.assert_close(targets(levels).double(), targets64(targets, levels), rtol=0, atol=1e-5)
    for wrong in (MeanOfLevels(0), MeanOfLevels(5), SeveralLevels((4,)), SeveralLevels(()), SeveralLevels((0, -5))):
        with pytest.raises(ValueError, match="This teacher has 4 levels, got"):
            wrong(levels)


def test_context_weighs_one_over_its_distance_to_the_block() -> None:
    """By hand on 3 x 3 places: context 0, 1, 4, 6; the blocks {8}, {2, 5}, and {3} filled up with 8."""
    mask = Mask(
        torch.tensor([[0, 1, 4, 6]]),
        torch.tensor([[[8, 8], [2, 5], [3, 8]]]),
        torch.tensor([[[True, False], [True, True], [True, False]]]),
    )
    weights: list[Tensor] = []

    def noted(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        if prediction.shape[2] == 4:
            assert weight is not None
            weights.append(weight)
        return smooth_l1(prediction, target, weight)

    class Given:
        grid = (3, 3)

        def __call__(self, num_samples: int, generator: torch.Generator) -> Mask:
            return mask

    encoder = ViT((3, 3), patch=(2, 2), dim=DIM, depth=1, num_heads=2)
    predictor = MaskedPredictor(DIM, DIM, grid=(3, 3), width=8, depth=1, num_heads=2, context_dim=DIM)
    teacher = EMATeacher(encoder)
    objective = MaskedJEPA(encoder, predictor=predictor, masks=Given(), teacher=teacher, distance=noted)
    objective(Batch(x=torch.zeros(1, 1, 1, 6, 6)))
    wanted = [
        [1 / math.sqrt(8), 1 / math.sqrt(5), 1 / math.sqrt(2), 1 / 2],
        [1 / 2, 1, 1, 1 / math.sqrt(5)],
        [1, 1 / math.sqrt(2), 1, 1],
    ]
    torch.testing.assert_close(weights[0], torch.tensor([wanted]), rtol=1e-6, atol=0)


def test_hidden_pixels_reach_the_targets_and_never_the_prediction(generator: torch.Generator) -> None:
    wanted: list[Tensor] = []
    answers: list[Tensor] = []

    def noted(levels: list[Tensor]) -> Tensor:
        wanted.append(output_level(levels))
        return wanted[-1]

    objective = replace(VARIANTS["filled up"], targets=noted).make().eval()  # type: ignore[arg-type]
    objective.predictor.register_forward_hook(lambda module, inputs, output: answers.append(output))
    x, mask = pictures(generator), drawn(FourBlocks())
    hidden = torch.ones(NUM_SAMPLES, NUM_PATCHES, dtype=torch.bool).scatter_(1, mask.context, False)
    pixels = hidden.view(NUM_SAMPLES, *GRID).repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None, None]
    with torch.no_grad():
        for picture in (x, torch.where(pixels, 1 - x, x), torch.where(pixels, x, 1 - x)):
            objective(Batch(x=picture))
    assert torch.equal(answers[0], answers[1])
    assert (answers[0] - answers[2]).abs().amax((1, 2, 3)).min() > 1e-2
    # A token of the teacher knows every patch of the picture: its own, the hidden ones, those of the context.
    for changed in (wanted[1], wanted[2]):
        assert (wanted[0] - changed).abs().amax(2).min() > 1e-3


# --------------------------------------------------------------------------------------------------- several masks


def test_a_sequence_of_one_sampler_is_that_sampler(generator: torch.Generator) -> None:
    variant, x = VARIANTS["context"], pictures(generator)
    alone, listed = variant.make(), replace(variant, masks=(FourBlocks(padded=True),)).make()
    assert alone.state_dict().keys() == listed.state_dict().keys()
    assert not [key for key in alone.state_dict() if "further" in key], "checkpoints of before have no such entries"
    listed.load_state_dict(alone.state_dict())
    for _ in range(2):
        losses = [objective(Batch(x=x)) for objective in (alone, listed)]
        assert torch.equal(losses[0].total, losses[1].total)
        losses[0].total.backward()
        losses[1].total.backward()
    for one, other in zip(alone.parameters(), listed.parameters(), strict=True):
        assert (one.grad is None and other.grad is None) or torch.equal(one.grad, other.grad)  # type: ignore[arg-type]


def test_the_teacher_reads_a_clip_once_and_the_student_once_for_each_mask(generator: torch.Generator) -> None:
    objective, x = VARIANTS["V-JEPA"].make(), clips(generator)
    reads: list[str] = []
    objective.teacher.register_forward_hook(lambda *_: reads.append("teacher"))
    objective.encoder.register_forward_hook(lambda *_: reads.append("student"))
    objective.predictor.register_forward_hook(lambda *_: reads.append("predictor"))
    objective(Batch(x=x))
    assert reads == ["teacher", "student", "predictor", "student", "predictor"]
    assert [int(draw.step) for draw in (objective.masks, *objective.further_masks)] == [1, 1]
    assert [type(draw) for draw in objective.children() if isinstance(draw, MaskDrawer)] == [MaskDrawer]


def test_every_mask_trains_the_mask_token_of_its_own(generator: torch.Generator) -> None:
    """V-JEPA 2's released training reaches one of ten."""
    objective = VARIANTS["V-JEPA"].make()
    objective(Batch(x=clips(generator))).total.backward()
    token = objective.predictor.mask_token
    assert token.shape == (2, 8)
    assert token.grad is not None
    assert token.grad.abs().amax(1).min() > 1e-6


def test_a_long_clip_has_no_table_of_distances_unless_its_context_is_answered_for() -> None:
    """18 432 tokens, as of 64 frames of 384 pixels, would have one of 1.4 GB."""
    assert VARIANTS["V-JEPA"].make().nearness.numel() == 0
    assert VARIANTS["V-JEPA 2.1"].make().nearness.shape == (32, 32)


# -------------------------------------------------------------------------------------------------------- teachers


def flat(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def test_ema_teacher_starts_as_the_student_and_moves_by_the_closed_form(generator: torch.Generator) -> None:
    encoder = small_vit()
    teacher = EMATeacher(encoder, momentum=0.9, final_momentum=0.98)
    objective = MaskedJEPA(encoder, predictor=small_predictor(), masks=FourBlocks(), teacher=teacher)
    assert torch.equal(flat(teacher), flat(encoder))
    assert not {*encoder.parameters()} & {*teacher.parameters()}
    wanted = flat(encoder).double()
    for progress, momentum in ((0.0, 0.9), (0.5, 0.94), (1.0, 0.98)):
        lively(encoder, seed=int(10 * progress))
        objective(Batch(x=pictures(generator)))
        torch.testing.assert_close(flat(teacher).double(), wanted, rtol=0, atol=1e-6)  # no step, no move
        objective.after_step(progress)
        wanted = momentum * wanted + (1 - momentum) * flat(encoder).double()
        torch.testing.assert_close(flat(teacher).double(), wanted, rtol=0, atol=1e-6)
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    probed = objective.probed_encoders()
    assert [*probed] == ["teacher", "student"], "the teacher is evaluated, as published"
    assert probed["student"] is encoder
    assert probed["teacher"] is teacher.encoder


def test_default_momentum_is_the_published_start() -> None:
    teacher = EMATeacher(small_vit())
    assert (teacher.momentum, teacher.final_momentum) == (0.996, 0.9999)
    for wrong in ((-0.1, 0.5), (0.9, 1.1)):
        with pytest.raises(ValueError, match="between 0"):
            EMATeacher(small_vit(), momentum=wrong[0], final_momentum=wrong[1])


class Pictures:
    """A stream of random pictures, new ones at each step."""

    clips_per_batch = frames_per_batch = 16

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def batch(self, step: int) -> Batch:
        return Batch(x=torch.rand(16, *self.shape, generator=torch.Generator().manual_seed(step)))

    def held_out(self, split: str, num_clips: int) -> Batch:
        return self.batch(-1)


def test_fit_moves_the_teacher_once_a_step_after_the_optimizer() -> None:
    moves: list[tuple[float, Tensor]] = []

    class Noted(EMATeacher):
        def follow(self, student: nn.Module, progress: float) -> None:
            super().follow(student, progress)
            moves.append((progress, flat(student)))

    encoder = small_vit()
    teacher = Noted(encoder, momentum=0.5, final_momentum=0.7)
    objective = MaskedJEPA(encoder, predictor=small_predictor(), masks=FourBlocks(), teacher=teacher)
    wanted = flat(encoder)
    fit(Run(objective, Pictures((1, CHANNELS, 8, 10)), steps=4, precision="fp32"), device="cpu")
    assert [progress for progress, _ in moves] == [0.25, 0.5, 0.75, 1.0]
    assert torch.equal(moves[-1][1], flat(encoder))
    for (_, student), momentum in zip(moves, (0.55, 0.6, 0.65, 0.7), strict=True):
        assert not torch.equal(student, wanted)
        wanted = torch.lerp(wanted, student, 1 - momentum)
    torch.testing.assert_close(flat(teacher), wanted, rtol=0, atol=1e-6)


def test_frozen_teacher_never_moves_and_takes_no_gradient(generator: torch.Generator) -> None:
    objective, x = VARIANTS["frozen"].make(), pictures(generator)
    before = flat(objective.teacher)
    assert not any(parameter.requires_grad for parameter in objective.teacher.parameters())
    objective.requires_grad_(True)
    objective(Batch(x=x)).total.backward()
    assert all(parameter.grad is None for parameter in objective.teacher.parameters())
    torch.optim.AdamW(objective.parameters(), lr=1.0, weight_decay=1.0).step()
    for progress in (0.0, 1.0):
        objective.after_step(progress)
    assert torch.equal(flat(objective.teacher), before)
    assert {*objective.probed_encoders()} == {"student"}


@pytest.mark.parametrize("name", ["own and VICReg", "smooth L1"])
def test_only_its_own_teacher_passes_gradient_on(name: str, generator: torch.Generator) -> None:
    """The distance alone: its gradient with respect to the targets, and to the predictions."""
    sides: list[Tensor] = []

    def noted(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
        sides.extend((prediction, target))
        return mean_squared(prediction, target, weight)

    objective = replace(VARIANTS[name], distance=noted).make()
    objective(Batch(x=pictures(generator)))
    prediction, target = sides
    assert target.requires_grad == (name == "own and VICReg")
    for side in (prediction, *([target] if target.requires_grad else [])):
        (gradient,) = torch.autograd.grad(side.square().sum(), objective.encoder.get_parameter("embed.weight"))
        assert gradient.abs().max() > 1e-6
    assert {*objective.probed_encoders()} == {"student"} | ({"teacher"} if name == "smooth L1" else set())


def test_parts_that_do_not_fit_are_refused(generator: torch.Generator) -> None:
    encoder, predictor, masks = small_vit(), small_predictor(), FourBlocks()
    ema = EMATeacher(encoder)
    with pytest.raises(ValueError, match=r"own teacher collapses .* got OwnTeacher and NoneType"):
        MaskedJEPA(encoder, predictor=predictor, masks=masks, teacher=OwnTeacher())
    for teacher in (ema, FrozenTeacher(small_vit())):  # the term would be there, and do nothing
        with pytest.raises(ValueError, match="passes no gradient"):
            MaskedJEPA(encoder, predictor=predictor, masks=masks, teacher=teacher, regulariser=VarianceCovariance())
    for weights in ({}, {"own": 1.0}, {"ema": 1.0, "ema_context": 1.0}):
        with pytest.raises(ValueError, match="the terms ema, got weights for"):
            MaskedJEPA(encoder, predictor=predictor, masks=masks, teacher=ema, weights=weights)
    with pytest.raises(ValueError, match=r"the masks' grid \(5, 4\), got ViT on \(4, 5\)"):
        MaskedJEPA(encoder, predictor=predictor, masks=FourBlocks(grid=(5, 4)), teacher=ema)
    turned = MaskedPredictor(DIM, DIM, grid=(5, 4), width=8, depth=1, num_heads=2)
    with pytest.raises(ValueError, match=r"grid \(4, 5\), the predictor was built for \(5, 4\)"):
        MaskedJEPA(encoder, predictor=turned, masks=masks, teacher=ema)
    for none_or_two in ((), (masks, FourBlocks(grid=(5, 4)))):
        with pytest.raises(ValueError, match=r"the masks' grid (\(there are no masks\)|\(4, 5\) and \(5, 4\)), got"):
            MaskedJEPA(encoder, predictor=predictor, masks=none_or_two, teacher=ema)
    with pytest.raises(ValueError, match=r"Each of 2 masks .* the predictor has 1; build it with num_mask_tokens=2"):
        MaskedJEPA(encoder, predictor=predictor, masks=[masks, masks], teacher=ema)
    with pytest.raises(ValueError, match=r"grid \(4, 5\), the decoder was built for \(5, 4\)"):
        MAE(encoder, decoder=turned, masks=masks)
    other = small_vit()
    with pytest.raises(ValueError, match="student's own network"):
        MaskedJEPA(other, predictor=predictor, masks=masks, teacher=FrozenTeacher(other))


def test_answers_of_another_width_than_the_targets_are_refused(generator: torch.Generator) -> None:
    """An answer of width 1 would be compared with every number of the target, and nobody would know."""
    batch, encoder = Batch(x=pictures(generator)), small_vit()
    deep = SeveralLevels((0, 1))
    for out_dim, targets, width in ((1, output_level, 12), (DIM, deep, 24)):
        objective = MaskedJEPA(
            encoder,
            predictor=small_predictor(out_dim),
            masks=FourBlocks(),
            teacher=EMATeacher(encoder),
            targets=targets,
        )
        with pytest.raises(ValueError, match=f"out_dim={width}"):
            objective(batch)
    second = MaskedPredictor(DIM, DIM, grid=GRID, width=8, depth=1, num_heads=2, context_dim=3)
    objective = MaskedJEPA(encoder, predictor=second, masks=FourBlocks(), teacher=EMATeacher(encoder))
    with pytest.raises(ValueError, match="width 12 and 3"):
        objective(batch)
    finer = FrozenTeacher(ViT((8, 10), patch=(1, 1), channels=CHANNELS, dim=DIM, depth=1, num_heads=2))
    objective = MaskedJEPA(encoder, predictor=small_predictor(), masks=FourBlocks(), teacher=finer)
    with pytest.raises(ValueError, match="80 targets of width 12 for 20 patches"):
        objective(batch)


# ----------------------------------------------------------------------------------------------- audit and collapse


@pytest.mark.parametrize(
    "name",
    [
        "frozen",
        "own and VICReg",
        "own and SIGReg",
        "data2vec",
        "levels and context",
        "V-JEPA",
    ],
)
def test_the_audit_sees_what_each_variant_declares(name: str) -> None:
    """At their first weights; test_contract.py audits the published parts.

    Blocks of pictures are full: where some are filled up, both distances of a context loss come from one line, and the
    audit takes them for one term.
    """
    variant = replace(VARIANTS[name], untrained=True)
    variant = variant if variant.clip else replace(variant, masks=FourBlocks())

    class Shown(MaskedJEPA):
        """With these parts."""

        @classmethod
        def tiny(cls) -> tuple[Objective, Batch]:
            return variant.make(), Batch(x=variant.inputs(torch.default_generator, 4))

    found = audit_objective(Shown, steps=1)
    assert not differences(found, Shown)
    assert {term.name for term in found.terms} == {*variant.weights}
    space = {"ema": Space.EMA_EMBEDDING, "frozen": Space.FROZEN_EMBEDDING, "own": Space.OWN_EMBEDDING}[variant.teacher]
    seen = {term.name: str(term.space) for term in found.terms}
    assert seen == {term: str(space if term.startswith(variant.teacher) else Space.STATISTIC) for term in seen}
    assert found.unexplained < 1e-4
    assert not [finding for finding in found.findings if finding.weight == "error"]


def moments(teacher: Callable[[ViT], Teacher], **options: object) -> list[Moment]:
    """What is seen after the 1st, 26th and 51st step of a run on noise, in which there is nothing to predict."""
    torch.manual_seed(0)
    encoder = ViT((4, 4), patch=(2, 2), channels=3, dim=24, depth=2, num_heads=2)
    predictor = MaskedPredictor(24, 24, grid=(4, 4), width=24, depth=1, num_heads=2)
    masks, by = RandomMask((4, 4)), teacher(encoder)
    objective = MaskedJEPA(encoder, predictor=predictor, masks=masks, teacher=by, distance=mean_squared, **options)  # type: ignore[arg-type]
    seen: list[Moment] = []
    fit(Run(objective, Pictures((1, 3, 8, 8)), steps=51, lr=3e-2, precision="fp32"), device="cpu", watch=seen.append)
    return [seen[0], seen[25], seen[50]]


def test_collapse_is_called_by_its_name() -> None:
    """A teacher that is the student of a step ago lets both agree on a constant; the loss alone looks like success."""
    first, _, last = moments(lambda encoder: EMATeacher(encoder, momentum=0.0, final_momentum=0.0))
    assert last.terms["ema"] < 0.1 * first.terms["ema"]
    assert first.meters["std"] > 2 * COLLAPSED_STD
    assert last.meters["std"] < COLLAPSED_STD
    assert "COLLAPSING" in last.warn()
    assert "COLLAPSING" not in first.warn()


def test_a_variance_term_keeps_the_same_run_alive() -> None:
    weights = {"own": 1.0, "variance": 1.0, "covariance": 0.04}
    *_, last = moments(lambda encoder: OwnTeacher(), regulariser=VarianceCovariance(), weights=weights)
    assert last.meters["std"] > 5 * COLLAPSED_STD
    assert "COLLAPSING" not in last.warn()


# ------------------------------------------------------------------------------------------------------- processes


@pytest.mark.parametrize("name", ["filled up", "context", "three masks"])
def test_two_processes_draw_the_masks_of_one_and_their_losses_average_to_its(
    name: str, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of unlike length give the processes unlike numbers of targets, and each target must count the same."""
    objective, x = VARIANTS[name].make().eval(), pictures(generator, 6)
    drawers = [objective.masks, *objective.further_masks]
    whole, wanted = objective(Batch(x=x)), [draw(6) for draw in drawers]
    monkeypatch.setattr(drawing, "num_processes", lambda: 2)
    asked: list[list[Tensor]] = [[], []]
    masks, losses = [], []
    for reduces in (False, True):  # the first round collects what each process would send
        for number in range(2):
            monkeypatch.setattr(drawing, "rank", lambda number=number: number)
            means = iter([torch.stack(pair).mean(0) for pair in zip(*asked, strict=True)] if reduces else [])

            def reduce(value: Tensor, number: int = number, means=means, reduces: bool = reduces) -> Tensor:
                if reduces:
                    return next(means)
                asked[number].append(value)
                return value

            monkeypatch.setattr(distances, "mean_over_processes", reduce)
            loss = objective(Batch(x=x[3 * number : 3 * number + 3]))
            if reduces:
                losses.append(loss)
                masks.append([draw(3) for draw in drawers])
    for mask, parts in zip(wanted, zip(*masks, strict=True), strict=True):
        assert torch.equal(torch.cat([part.context for part in parts]), mask.context)
        assert torch.equal(torch.cat([part.target for part in parts]), mask.target)
    for term, value in whole.terms.items():
        torch.testing.assert_close((losses[0].terms[term] + losses[1].terms[term]) / 2, value, rtol=1e-6, atol=0)
    assert not torch.isclose(losses[0].total, losses[1].total, rtol=1e-3)
