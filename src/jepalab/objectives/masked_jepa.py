"""Masked embedding prediction: I-JEPA (arXiv 2301.08243), V-JEPA (2404.08471), and by parts SALT, data2vec, V-JEPA 2.1.

The encoder sees the context alone; the predictor answers for each target block in a pass of its own; the targets are
embeddings of the *full* input, taken from the teacher's levels and layer-normed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.teachers import EMATeacher, Teacher
from jepalab.backbones.vit import ViT, take_blocks, take_tokens
from jepalab.losses.distances import Distance, smooth_l1
from jepalab.losses.regularisers import Regulariser
from jepalab.losses.targets import Targets, output_level
from jepalab.masks.drawing import mask_drawers
from jepalab.masks.random import RandomMask
from jepalab.types import Batch, Encoder, Mask, MaskSampler, Objective, PatchEncoder, Space


class MaskedJEPA(Objective):
    """The predicted embeddings of hidden tokens against the teacher's.

    masks        one sampler, or several that each hide part of every sample (V-JEPA: `Tubes.short_range` and
                 `Tubes.long_range`). The teacher reads the input once; the student and the predictor answer for each
                 mask in a pass of their own, the predictor with a mask token of its own; a term is the mean over the
                 masks of what it is for each.
    teacher      `EMATeacher` (published), `FrozenTeacher` (SALT) or `OwnTeacher`, which needs a regulariser.
    targets      which of the teacher's levels are predicted; the predictor answers in their width.
    reads        what of the student's own levels the predictor reads; its output if not said. Several levels side by
                 side (V-JEPA 2.1) make a predictor of as many times the width; its first layer fuses them.
    distance     smooth L1 (published code), squared or absolute.
    regulariser  terms on the student's embeddings of the full input against collapse, for `OwnTeacher` alone.
    weights      the teacher's name ("ema", "frozen", "own"); "ema_context" and so on with a predictor that answers for
                 the context too (each context token weighted by one over its distance to the nearest target, V-JEPA
                 2.1); and the regulariser's terms. The context's term is a weighted mean; V-JEPA 2.1 divides by the
                 number of tokens, so that its lambda is the weight here over the mean of one over the distance.
    """

    compares: ClassVar[Mapping[str, Space]] = {
        "ema": Space.EMA_EMBEDDING,
        "frozen": Space.FROZEN_EMBEDDING,
        "own": Space.OWN_EMBEDDING,
        "ema_context": Space.EMA_EMBEDDING,
        "frozen_context": Space.FROZEN_EMBEDDING,
        "own_context": Space.OWN_EMBEDDING,
        "variance": Space.STATISTIC,
        "covariance": Space.STATISTIC,
        "sigreg": Space.STATISTIC,
    }
    nearness: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        predictor: MaskedPredictor,
        masks: MaskSampler | Sequence[MaskSampler],
        teacher: Teacher,
        targets: Targets = output_level,
        reads: Targets | None = None,
        distance: Distance = smooth_l1,
        regulariser: Regulariser | None = None,
        weights: dict[str, float] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        samplers = (masks,) if isinstance(masks, MaskSampler) else tuple(masks)
        grids = {sampler.grid for sampler in samplers}
        if not isinstance(encoder, PatchEncoder) or grids != {encoder.grid}:
            raise ValueError(
                "A masked JEPA hides patches, so it needs an encoder of patches on the masks' grid "
                f"{' and '.join(map(str, sorted(grids))) or '(there are no masks)'}, got {type(encoder).__name__} on "
                f"{encoder.grid if isinstance(encoder, PatchEncoder) else 'no grid'}."
            )
        if predictor.grid != encoder.grid:
            raise ValueError(f"The encoder has a grid {encoder.grid}, the predictor was built for {predictor.grid}.")
        if predictor.num_mask_tokens < len(samplers):
            raise ValueError(
                f"Each of {len(samplers)} masks has a mask token of its own, the predictor has "
                f"{predictor.num_mask_tokens}; build it with num_mask_tokens={len(samplers)}."
            )
        if {*encoder.parameters()} & {*teacher.parameters()}:
            raise ValueError("The teacher is the student's own network; give it a copy, or use OwnTeacher.")
        if (teacher.space is Space.OWN_EMBEDDING) != (regulariser is not None):
            raise ValueError(
                "A JEPA that is its own teacher collapses without a regulariser, and any other teacher passes no "
                f"gradient on to one; got {type(teacher).__name__} and {type(regulariser).__name__}."
            )
        self.encoder, self.predictor, self.teacher = encoder, predictor, teacher
        self.masks, *further = mask_drawers(samplers, seed=seed)
        self.further_masks = nn.ModuleList(further)
        self.targets, self.reads, self.distance, self.regulariser = targets, reads, distance, regulariser
        self.context_term = None if predictor.answer_context is None else f"{teacher.name}_context"
        names = [teacher.name, *filter(None, [self.context_term]), *(regulariser.names if regulariser else ())]
        self.weights = dict.fromkeys(names, 1.0) if weights is None else weights
        if {*self.weights} != {*names}:
            raise ValueError(
                f"These parts have the terms {', '.join(names)}, got weights for {', '.join(self.weights)}."
            )
        nearness = torch.empty(0, 0) if self.context_term is None else _nearness(encoder.grid)
        self.register_buffer("nearness", nearness, persistent=False)

    def terms(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        masks = [draw(len(batch)) for draw in (self.masks, *self.further_masks)]
        levels = self.teacher(self.patch_encoder, batch.x)
        z_target = self.targets(levels)
        self._check_answers(z_target)
        each = [self._compare(batch.x, mask, z_target, which) for which, mask in enumerate(masks)]
        terms = {name: torch.stack([found[name] for found in each]).mean() for name in each[0]}
        if self.regulariser is not None:
            terms |= self.regulariser(levels[-1])
        return terms

    def _compare(
        self, x: Float[Tensor, "b t *obs"], mask: Mask, z_target: Float[Tensor, "b n d"], which: int
    ) -> dict[str, Float[Tensor, ""]]:
        """The terms of one of the masks."""
        z = self.see(x, mask)
        terms = {}
        if self.context_term is None:
            z_pred = self.predictor(z, mask, which)
        else:
            z_pred, context_pred = self.predictor.with_context(z, mask, which)
            seen = take_tokens(z_target, mask.context).unsqueeze(1).expand_as(context_pred)
            terms[self.context_term] = self.distance(context_pred, seen, self._weigh_context(mask))
        hidden = take_blocks(z_target, mask.target)
        weight = None if mask.present is None else mask.present.float()
        return terms | {self.teacher.name: self.distance(z_pred, hidden, weight)}

    def see(self, x: Float[Tensor, "b t *obs"], mask: Mask) -> Float[Tensor, "b k o"]:
        """What the predictor reads of the context."""
        if self.reads is None:
            return self.encoder(x, mask.context)
        return self.reads(self.patch_encoder.levels(x, mask.context))

    @property
    def patch_encoder(self) -> PatchEncoder:
        """The encoder, under the name of what it can do."""
        assert isinstance(self.encoder, PatchEncoder)
        return self.encoder

    def after_step(self, progress: float) -> None:
        self.teacher.follow(self.encoder, progress)

    def probed_encoders(self) -> dict[str, Encoder]:
        """The teacher where it follows the student, which I-JEPA (A.2) and V-JEPA hand over, and the student."""
        network = self.teacher.network()
        return ({} if network is None else {"teacher": network}) | super().probed_encoders()

    def _check_answers(self, z_target: Float[Tensor, "b n d"]) -> None:
        """ValueError unless the predictor answers in the targets' width, and there is a target for each patch."""
        num_patches, wide = prod(self.patch_encoder.grid), z_target.shape[-1]
        answers = filter(None, [self.predictor.answer, self.predictor.answer_context])
        widths = [answer.out_features for answer in answers]
        if z_target.shape[1] != num_patches or {*widths} != {wide}:
            raise ValueError(
                f"The teacher has {z_target.shape[1]} targets of width {wide} for {num_patches} patches, the predictor "
                f"answers in width {' and '.join(map(str, widths))}; build it with out_dim={wide}, and the teacher on "
                "the encoder's grid."
            )

    def _weigh_context(self, mask: Mask) -> Float[Tensor, "b g k"]:
        """One over the distance, in patches, of each context token to the nearest token of the block."""
        to_targets = self.nearness[mask.context[:, None, :, None], mask.target[:, :, None, :]]
        if mask.present is not None:
            to_targets = to_targets.masked_fill(~mask.present[:, :, None], 0.0)
        return to_targets.amax(-1)

    @classmethod
    def tiny(cls) -> tuple[Objective, Batch]:
        encoder = ViT((4, 4), patch=(2, 2), dim=12, depth=2, num_heads=2)
        predictor = MaskedPredictor(12, 12, grid=(4, 4), width=8, depth=2, num_heads=2)
        objective = cls(encoder, predictor=predictor, masks=RandomMask((4, 4)), teacher=EMATeacher(encoder))
        return objective, Batch(x=torch.rand(4, 1, 1, 8, 8))


def _nearness(grid: tuple[int, ...]) -> Float[Tensor, "n n"]:
    """One over the Euclidean distance of two places; a place is at distance 1 from itself."""
    axes = torch.meshgrid(*(torch.arange(float(size)) for size in grid), indexing="ij")
    places = torch.stack(axes, -1).reshape(-1, len(grid))
    return 1 / torch.cdist(places, places).clamp_min(1.0)
