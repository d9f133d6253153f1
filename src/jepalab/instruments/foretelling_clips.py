"""How wrong a model of patches of clips is about each next time, told all that came before it, as in its training.

The model's window stands still until what is asked for lies beyond it, and then slides so that this is its last time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from jepalab.backbones.vit import ViT, take_blocks, take_tokens
from jepalab.masks.causal import DrawnPast, PastFuture
from jepalab.objectives.denoise_hidden import DenoiseHidden
from jepalab.objectives.mae import MAE
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.objectives.next_token import NextToken
from jepalab.types import Mask, MaskSampler, Objective

# One fixed draw of noise at each of these levels, the same for all clips, so that it cancels between the two of a pair.
NOISE_LEVELS = (0.2, 0.4, 0.6, 0.8)

# From (mask, the number q of first targets asked for) to the squared error of each of these [b q]; and from a window
# [b t c h w] to that, so that what does not depend on the mask is computed once.
Errors = Callable[[Mask, int], Tensor]
Wrong = Callable[[Tensor], Errors]


@dataclass(frozen=True, eq=False)
class MaskedFuture:
    """A model of masked clips, shown all times before one and asked for that one and, as in training, for later ones.

    Only the error of the one counts. Masks are those of `DrawnPast`: a model that was trained on them is judged on what
    it knows; one that was trained on others, such as V-JEPA's tubes, is not.

    encoder    whose grid is (time, rows, columns).
    num_asked  times that are asked for at once, as in `DrawnPast`.
    """

    encoder: ViT
    wrong: Wrong
    num_asked: int | None = None

    def errors(self, x: Float[Tensor, "b t c h w"], *, context: int) -> Float[Tensor, "b s"]:
        """One error for each time of the grid, from frame `context` on; ValueError for what is not in whole patches."""
        grid, per_time, found = self.encoder.grid, prod(self.encoder.grid[1:]), []
        for window, times in _windows(x, self.encoder, context):
            wrong = self.wrong(window)
            for time in times:
                past = PastFuture(grid, num_context=time * per_time, num_asked=self.num_asked)
                mask = past(len(x), torch.Generator()).map(lambda tensor: tensor.to(x.device))
                found.append(wrong(mask, per_time).mean(1))
        return torch.stack(found, 1)


@dataclass(frozen=True, eq=False)
class NextTokens:
    """Autoregression over patches: the negative log-likelihood of a time's patches, each given all before it, in nats.

    Attention is strictly causal, the shortest of the prefixes of training; a nat counts for each number of a patch.
    """

    objective: NextToken

    def errors(self, x: Float[Tensor, "b t c h w"], *, context: int) -> Float[Tensor, "b s"]:
        """As `MaskedFuture.errors`."""
        encoder, found = self.objective.vit, []
        for window, times in _windows(x, encoder, context):
            nats = self._nats(window).unflatten(1, (encoder.grid[0], -1)).mean(2)
            found.append(nats[:, times.start : times.stop])
        return torch.cat(found, 1)

    def _nats(self, x: Float[Tensor, "b t c h w"]) -> Float[Tensor, "b n"]:
        causal = torch.ones(len(x), dtype=torch.long, device=x.device)  # a prefix of one patch
        likelihood = self.objective.logits(x, causal).log_softmax(-1)
        return -likelihood.gather(-1, self.objective.bins(x).unsqueeze(-1)).flatten(2).mean(2)


def future_of_jepa(objective: MaskedJEPA) -> MaskedFuture:
    """In embeddings: against the teacher's of the whole window."""

    def wrong(x: Tensor) -> Errors:
        z_target = objective.targets(objective.teacher(objective.patch_encoder, x))

        def errors(mask: Mask, num: int) -> Tensor:
            z_pred = objective.predictor(objective.see(x, mask), mask)[:, 0, :num]
            return (z_pred - take_tokens(z_target, mask.target[:, 0, :num])).square().mean(-1)

        return errors

    return MaskedFuture(_of_clips(objective), wrong, _num_asked(objective.masks.sampler))


def future_of_mae(objective: MAE) -> MaskedFuture:
    """In pixels, as they are or normalised patch by patch, as in its training."""

    def wrong(x: Tensor) -> Errors:
        patches = objective.vit.patches(x)

        def errors(mask: Mask, num: int) -> Tensor:
            truth = objective.target(take_tokens(patches, mask.target[:, 0, :num]))
            said = objective.decoder(objective.encoder(x, mask.context), mask)[:, 0, :num]
            return (said - truth).square().mean(-1)

        return errors

    return MaskedFuture(_of_clips(objective), wrong, _num_asked(objective.masks.sampler))


def imagination_of_mae(objective: MAE) -> MaskedFuture:
    """In its own latent: its embeddings of past and next patches, with the prediction in place of the next and without.

    With `norm_pixels` the prediction is told each patch's true mean and variance.
    """

    def wrong(x: Tensor) -> Errors:
        def errors(mask: Mask, num: int) -> Tensor:
            seen = torch.cat([mask.context, mask.target[:, 0, :num]], 1)
            imagined, true = (objective.encoder(clip, seen) for clip in (objective.reconstruct(x, mask), x))
            return (imagined - true)[:, mask.context.shape[1] :].square().mean(-1)

        return errors

    return MaskedFuture(_of_clips(objective), wrong, _num_asked(objective.masks.sampler))


def future_of_denoiser(objective: DenoiseHidden) -> MaskedFuture:
    """In pixels: the clean patches that its answer implies, over NOISE_LEVELS, whichever of the three it predicts.

    Where training asks for several times at once, it sees the later ones too, behind their noise.
    """

    def wrong(x: Tensor) -> Errors:
        patches = objective.vit.patches(x)

        def errors(mask: Mask, num: int) -> Tensor:
            clean, z, found = take_blocks(patches, mask.target), objective.encoder(x, mask.context), []
            generator = torch.Generator().manual_seed(0)
            for t in NOISE_LEVELS:
                noise = torch.randn(clean.shape[1:], generator=generator).to(clean)
                noisy, level = (1 - t) * clean + t * noise, clean.new_full((len(x),), t)
                answer = objective.decoder(z, noisy, level, mask)
                said = objective.predict.to_clean(answer, noisy, level[:, None, None, None])
                found.append((said - clean)[:, 0, :num].square().mean(-1))
            return torch.stack(found).mean(0)

        return errors

    return MaskedFuture(_of_clips(objective), wrong, _num_asked(objective.masks.sampler))


def tokens_of(objective: NextToken) -> NextTokens:
    """In nats of the next patches' intensities."""
    _of_clips(objective)
    return NextTokens(objective)


def _windows(x: Float[Tensor, "b t c h w"], encoder: ViT, context: int) -> Iterator[tuple[Tensor, range]]:
    """Each window that the model sees, and which of its times are foretold there; together, all from `context` on."""
    times, depth = encoder.grid[0], encoder.patch[0]
    window = times * depth
    if context % depth or not 0 < context <= window - depth or x.shape[1] < window or x.shape[1] % depth:
        raise ValueError(
            f"This model sees {window} frames, {depth} to a patch: wanted a context of {depth} to "
            f"{window - depth} frames and clips of {window} or more, both in whole patches, got context={context} "
            f"and clips of {x.shape[1]} frames."
        )
    yield x[:, :window], range(context // depth, times)
    for end in range(window + depth, x.shape[1] + 1, depth):
        yield x[:, end - window : end], range(times - 1, times)


def _num_asked(sampler: MaskSampler) -> int | None:
    return sampler.num_asked if isinstance(sampler, (DrawnPast, PastFuture)) else None


def _of_clips(objective: Objective) -> ViT:
    encoder: object = objective.encoder
    if not isinstance(encoder, ViT) or len(encoder.grid) != 3:
        raise ValueError(
            f"wanted a model of clips, a ViT on a grid (time, rows, columns), got {type(encoder).__name__}"
            f"{f' on {encoder.grid}' if isinstance(encoder, ViT) else ''}; a model of still pictures foretells nothing"
        )
    return encoder
