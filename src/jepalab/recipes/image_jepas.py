"""Predicting embeddings of still pictures: one function an arm, each returning a `Run`.

All arms of one seed start from the same encoder weights and see the same pictures in the same order; those with one
view see the same crops too. LeJEPA and VICReg need several augmented views, which is another treatment of the data.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from jepalab.backbones.projector import Projector
from jepalab.backbones.teachers import EMATeacher, FrozenTeacher, OwnTeacher
from jepalab.data.augmentation import Views
from jepalab.dist import seeded
from jepalab.losses.distances import Distance, mean_absolute, mean_squared, smooth_l1
from jepalab.losses.regularisers import Gaussianity, VarianceCovariance
from jepalab.losses.sigreg import SIGReg
from jepalab.losses.targets import MeanOfLevels
from jepalab.objectives.lejepa import LeJEPA
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.objectives.vicreg import VICReg
from jepalab.recipes.image_bench import JUDGING, Backbone, ImageBench, SamplerName
from jepalab.recipes.image_generative import mae
from jepalab.run import Run, split_steps

__all__ = ["JUDGING", "dense_jepa", "hidden_jepa", "ijepa", "ijepa_sigreg", "ijepa_vicreg", "lejepa", "salt", "vicreg"]

DISTANCES: dict[str, Distance] = {"smooth-l1": smooth_l1, "l2": mean_squared, "l1": mean_absolute}


def ijepa(
    bench: ImageBench,
    *,
    momentum: float = 0.996,
    masks: SamplerName = "blocks",
    distance: Literal["smooth-l1", "l2", "l1"] = "smooth-l1",
) -> Run:
    """I-JEPA: embeddings of hidden blocks, of a slowly moving teacher that sees the whole picture (arXiv 2301.08243).

    Args:
        bench: what every arm shares.
        momentum: of the teacher after the first step; it rises to .9999.
        masks: multi-block; the official sampler with its bias, to measure what it costs; or random tokens.
        distance: between prediction and target.
    """
    encoder = bench.encoder()
    objective = MaskedJEPA(
        encoder,
        predictor=bench.predictor(encoder.dim),
        masks=bench.sampler(masks),
        teacher=EMATeacher(encoder, momentum=momentum),
        distance=DISTANCES[distance],
        seed=bench.seed,
    )
    return bench.run(objective)


def ijepa_vicreg(bench: ImageBench, *, spread: float = 1.0) -> Run:
    """I-JEPA's masks and predictor with VICReg's terms in place of the teacher; gradient on both sides.

    Args:
        bench: what every arm shares.
        spread: weight of the variance and covariance terms against the prediction's.
    """
    encoder = bench.encoder()
    objective = MaskedJEPA(
        encoder,
        predictor=bench.predictor(encoder.dim),
        masks=bench.sampler(),
        teacher=OwnTeacher(),
        regulariser=VarianceCovariance(),
        weights={"own": 1.0, "variance": spread, "covariance": spread},
        seed=bench.seed,
    )
    return bench.run(objective)


def ijepa_sigreg(bench: ImageBench, *, sigreg: float = 0.02) -> Run:
    """I-JEPA's masks and predictor with SIGReg in place of the teacher; gradient on both sides (as arXiv 2511.08544).

    Args:
        bench: what every arm shares.
        sigreg: weight of the N-scaled statistic.
    """
    encoder = bench.encoder()
    objective = MaskedJEPA(
        encoder,
        predictor=bench.predictor(encoder.dim),
        masks=bench.sampler(),
        teacher=OwnTeacher(),
        regulariser=Gaussianity(SIGReg(seed=bench.seed)),
        weights={"own": 1.0, "sigreg": sigreg},
        seed=bench.seed,
    )
    return bench.run(objective)


def hidden_jepa(bench: ImageBench, *, num_levels: int = 3) -> Run:
    """I-JEPA with hidden-layer targets: the mean of the teacher's last levels (as data2vec, arXiv 2202.03555).

    The teacher's momentum is .996 at first, and not tuned as ijepa's is.

    Args:
        bench: what every arm shares.
        num_levels: how many of the teacher's last levels are averaged.
    """
    encoder = bench.encoder()
    objective = MaskedJEPA(
        encoder,
        predictor=bench.predictor(encoder.dim),
        masks=bench.sampler(),
        teacher=EMATeacher(encoder),
        targets=MeanOfLevels(num_levels),
        seed=bench.seed,
    )
    return bench.run(objective)


def dense_jepa(bench: ImageBench, *, context: float = 0.5) -> Run:
    """I-JEPA with a loss on the context too, weighted by nearness to the targets (V-JEPA 2.1).

    The teacher's momentum is .996 at first, and not tuned as ijepa's is.

    Args:
        bench: what every arm shares.
        context: weight of the loss at the context's places against that at the targets.
    """
    encoder = bench.encoder()
    objective = MaskedJEPA(
        encoder,
        predictor=bench.predictor(encoder.dim, context_dim=encoder.dim),
        masks=bench.sampler(),
        teacher=EMATeacher(encoder),
        weights={"ema": 1.0, "ema_context": context},
        seed=bench.seed,
    )
    return bench.run(objective)


def salt(bench: ImageBench, *, teacher_share: float = 0.5) -> Run:
    """SALT: an encoder is trained on pixels first, then frozen; its embeddings are the targets (arXiv 2509.24317).

    Both are trained on blocks: the paper's teacher of pixels has 72.5 with multi-block masks, 70.7 with random tubes.

    Args:
        bench: what every arm shares.
        teacher_share: steps the teacher trains on pixels, as a share of the student's; both together are the run's.
    """
    own, before = split_steps(bench.schedule.steps, teacher_share)
    first = mae(replace(bench.with_schedule(steps=before), seed=bench.seed + 1_000), masks="blocks")
    encoder, teacher = bench.encoder(), bench.encoder()
    objective = MaskedJEPA(
        encoder,
        predictor=bench.predictor(encoder.dim),
        masks=bench.sampler(),
        teacher=FrozenTeacher(teacher),
        seed=bench.seed,
    )

    def on(steps: int) -> Run:
        return salt(bench.with_schedule(steps=steps), teacher_share=teacher_share)

    def prepare() -> None:
        teacher.load_state_dict(first.objective.encoder.state_dict())

    return replace(bench.run(objective), steps=own, first=first, prepare=prepare, remake=on)


def lejepa(bench: ImageBench, *, sigreg: float = 0.05, num_views: int = 2, backbone: Backbone = "vit") -> Run:
    """LeJEPA: augmented views predict each other, SIGReg keeps them from collapsing (arXiv 2511.08544).

    Smaller than published: two views of the whole size, where the paper has two global and six local ones; a projector
    512-512-64, where it has 2048-2048 and 16 to 512 outputs.

    Args:
        bench: what every arm shares.
        sigreg: the paper's lambda: the share of SIGReg in the loss.
        num_views: views of each picture.
        backbone: the transformer, or a residual network.
    """
    encoder = bench.backbone(backbone)
    with seeded(bench.seed + 1):
        projector = Projector(encoder.dim)
    weights = {"predict": 1 - sigreg, "sigreg": sigreg}
    objective = LeJEPA(encoder, projector=projector, sigreg=SIGReg(seed=bench.seed), weights=weights)
    return bench.run(objective, stream=bench.stream(num_views=num_views, augmentation=Views()))


def vicreg(bench: ImageBench, *, invariance: float = 25.0, backbone: Backbone = "vit") -> Run:
    """VICReg: two augmented views get one embedding that varies and does not repeat itself (arXiv 2105.04906).

    Args:
        bench: what every arm shares.
        invariance: weight of the distance between the views; variance has 25 and covariance 1, as published.
        backbone: the transformer, or a residual network.
    """
    encoder = bench.backbone(backbone)
    with seeded(bench.seed + 1):
        projector = Projector(encoder.dim)
    weights = {"invariance": invariance, "variance": 25.0, "covariance": 1.0}
    objective = VICReg(encoder, projector=projector, weights=weights)
    return bench.run(objective, stream=bench.stream(num_views=2, augmentation=Views()))
