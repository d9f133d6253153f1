"""Every way to train a frame encoder on clips of a moving object: one function an arm, each returning a `Run`.

All arms of one seed start from the same encoder weights and see the same clips in the same order.
"""

from __future__ import annotations

from dataclasses import replace

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.pca import PixelPCA
from jepalab.backbones.teachers import OwnTeacher
from jepalab.compare.cells import Judging
from jepalab.dist import seeded
from jepalab.instruments.diagnosis import geometry
from jepalab.instruments.state import rollout, state
from jepalab.losses.distances import mean_squared
from jepalab.losses.regularisers import VarianceCovariance
from jepalab.losses.sigreg import SIGReg
from jepalab.losses.vicreg import within_clips
from jepalab.masks.random import RandomMask
from jepalab.objectives.autoencoder import Autoencoder
from jepalab.objectives.ema_jepa import EMAJEPA
from jepalab.objectives.frozen_jepa import FrozenJEPA
from jepalab.objectives.inverse_dynamics import InverseDynamics
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.objectives.next_frame import NextFrame
from jepalab.objectives.sigreg_jepa import SIGRegJEPA
from jepalab.objectives.supervised import Supervised
from jepalab.objectives.untrained import Untrained
from jepalab.objectives.vicreg_jepa import VICRegJEPA
from jepalab.recipes.bench import DIM, SIZE, Bench
from jepalab.run import Run, split_steps

JUDGING = Judging(instruments=(state, rollout, geometry))


def vicreg_jepa(bench: Bench, *, spread: float = 1.0) -> Run:
    """JEPA + VICReg: next-embedding prediction with variance and covariance terms over the batch (Sobal et al. 2022).

    Args:
        bench: what every arm shares.
        spread: weight of the variance and covariance terms against the prediction's.
    """
    weights = {"predict": 1.0, "variance": spread, "covariance": spread}
    return bench.run(VICRegJEPA(bench.encoder(), predictor=bench.predictor(), weights=weights))


def within_clip_jepa(bench: Bench, *, spread: float = 1.0) -> Run:
    """JEPA + VICReg within clips: the same terms on deviations from each clip's mean (after arXiv 2606.07770).

    Args:
        bench: what every arm shares.
        spread: weight of the variance and covariance terms against the prediction's.
    """
    weights = {"predict": 1.0, "variance": spread, "covariance": spread}
    objective = VICRegJEPA(bench.encoder(), predictor=bench.predictor(), weights=weights, grouping=within_clips)
    return bench.run(objective)


def difference_jepa(bench: Bench, *, spread: float = 1.0) -> Run:
    """JEPA + VICReg that sees frame differences alone, so that what stays cannot be encoded.

    Args:
        bench: what every arm shares.
        spread: weight of the variance and covariance terms against the prediction's.
    """
    weights = {"predict": 1.0, "variance": spread, "covariance": spread}
    return bench.run(VICRegJEPA(bench.differences(), predictor=bench.predictor(), weights=weights))


def masked_frame_jepa(bench: Bench, *, spread: float = 1.0) -> Run:
    """Masked JEPA: the embeddings of hidden frames from those of the visible ones, with VICReg's terms; no actions.

    Args:
        bench: what every arm shares.
        spread: weight of the variance and covariance terms against the prediction's.
    """
    encoder = bench.frames()
    objective = MaskedJEPA(
        encoder,
        predictor=bench.masked_predictor(),
        masks=RandomMask(encoder.grid, share=0.5),
        teacher=OwnTeacher(),
        distance=mean_squared,
        regulariser=VarianceCovariance(),
        weights={"own": 1.0, "variance": spread, "covariance": spread},
        seed=bench.seed,
    )
    return bench.run(objective)


def sigreg_jepa(bench: Bench, *, sigreg: float = 0.1) -> Run:
    """JEPA + SIGReg: next-embedding prediction with one Gaussianity term (LeWorldModel, arXiv 2603.19312).

    Args:
        bench: what every arm shares.
        sigreg: weight of the N-scaled statistic.
    """
    weights = {"predict": 1.0, "sigreg": sigreg}
    objective = SIGRegJEPA(
        bench.encoder(), predictor=bench.predictor(), weights=weights, sigreg=SIGReg(seed=bench.seed)
    )
    return bench.run(objective)


def ema_jepa(bench: Bench, *, momentum: float = 0.99) -> Run:
    """JEPA + EMA teacher: layer-normed targets of a slowly moving copy, smooth-L1 (as I-JEPA, arXiv 2301.08243).

    Args:
        bench: what every arm shares.
        momentum: of the teacher after the first step; it rises to .9999.
    """
    return bench.run(EMAJEPA(bench.encoder(), predictor=bench.predictor(), momentum=momentum))


def frozen_jepa(bench: Bench, *, width: int = 128) -> Run:
    """JEPA + frozen random teacher: a latent target that nobody learned (isolates "latent" from "co-learned").

    Args:
        bench: what every arm shares.
        width: of the predictor.
    """
    mean, std = bench.stream().statistics()
    with seeded(bench.seed + 4):
        teacher = ConvEncoder(dim=DIM, mean=mean, std=std)
    objective = FrozenJEPA(bench.encoder(), teacher=teacher, predictor=bench.predictor(width))
    return bench.run(objective)


def salt_jepa(bench: Bench, *, teacher_share: float = 0.5) -> Run:
    """JEPA + frozen pixel-trained teacher: next-frame pixels first, their embedding as target after (SALT, 2509.24317).

    Args:
        bench: what every arm shares.
        teacher_share: steps the teacher trains on pixels, as a share of the student's; both together are the run's.
    """
    own, before = split_steps(bench.training.steps, teacher_share)
    first = next_frame(replace(bench, training=replace(bench.training, steps=before), seed=bench.seed + 1_000))
    teacher = bench.encoder()
    objective = FrozenJEPA(bench.encoder(), teacher=teacher, predictor=bench.predictor())

    def on(steps: int) -> Run:
        return salt_jepa(replace(bench, training=replace(bench.training, steps=steps)), teacher_share=teacher_share)

    def prepare() -> None:
        teacher.load_state_dict(first.objective.encoder.state_dict())

    return replace(bench.run(objective), steps=own, first=first, prepare=prepare, remake=on)


def next_frame(bench: Bench, *, width: int = 32) -> Run:
    """Generative: the next frame's pixels, decoded from the predicted embedding.

    Args:
        bench: what every arm shares.
        width: channels of the decoder's cells.
    """
    return bench.run(NextFrame(bench.encoder(), predictor=bench.predictor(), decoder=bench.decoder(width)))


def autoencoder(bench: Bench, *, width: int = 32) -> Run:
    """Generative control: the present frame's pixels from its own embedding; it predicts nothing.

    Args:
        bench: what every arm shares.
        width: channels of the decoder's cells.
    """
    return bench.run(Autoencoder(bench.encoder(), decoder=bench.decoder(width)))


def inverse_dynamics(bench: Bench, *, width: int = 128) -> Run:
    """Inverse dynamics: the action from two consecutive embeddings.

    Args:
        bench: what every arm shares.
        width: of the head that reads the action.
    """
    return bench.run(InverseDynamics(bench.encoder(), inverse=bench.inverse(width)))


def inverse_jepa(bench: Bench, *, inverse: float = 1.0) -> Run:
    """JEPA + VICReg + inverse dynamics (PLDM, arXiv 2502.14819).

    Args:
        bench: what every arm shares.
        inverse: weight of the inverse-dynamics term.
    """
    weights = {"predict": 1.0, "variance": 1.0, "covariance": 1.0, "inverse": inverse}
    objective = VICRegJEPA(bench.encoder(), predictor=bench.predictor(), weights=weights, inverse=bench.inverse())
    return bench.run(objective)


def supervised(bench: Bench, *, label: float = 0.1) -> Run:
    """Supervised ceiling: position and class from labels.

    Args:
        bench: what every arm shares.
        label: weight of the cross-entropy of the class against the squared error of the position.
    """
    weights, num_outputs = {"position": 1.0, "class": label}, {"position": 2, "class": bench.stream().num_classes}
    objective = Supervised(bench.encoder(), num_outputs=num_outputs, weights=weights)
    return bench.run(objective)


def random_encoder(bench: Bench) -> Run:
    """Floor: the encoder as it was initialised."""
    return replace(bench.run(Untrained(bench.encoder())), steps=0)


def pixel_pca(bench: Bench) -> Run:
    """Floor: the first principal components of raw pixels."""
    stream, pca = bench.stream(), PixelPCA(SIZE**2, dim=DIM)

    def prepare() -> None:
        pca.fit(stream.held_out("train", 1024).x)

    return replace(bench.run(Untrained(pca)), steps=0, prepare=prepare)
