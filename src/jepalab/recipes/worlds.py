"""World models: embedding prediction and pixel prediction on the same encoder, predictor and recorded walks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from jepalab.backbones.teachers import EMATeacher, FrozenStudent, OwnTeacher
from jepalab.compare.cells import Judging
from jepalab.fit import fit
from jepalab.losses.distances import layer_normed
from jepalab.losses.regularisers import Gaussianity, Regulariser, Slowness, VarianceCovariance
from jepalab.losses.sigreg import SIGReg
from jepalab.objectives.autoencoder import Autoencoder
from jepalab.objectives.diffusion_world import DiffusionWorld
from jepalab.objectives.frame_world import FrameWorld
from jepalab.objectives.jepa_world import JEPAWorld
from jepalab.objectives.pixel_world import PixelWorld
from jepalab.recipes.world_bench import WorldBench
from jepalab.recipes.world_judging import Planning, acting, acting_subjects, understanding
from jepalab.run import Run
from jepalab.types import Encoder

JUDGING = Judging(
    instruments=(understanding, acting),
    subjects=partial(acting_subjects, planning=Planning(cross_room=40, same_room=20, num_steps=100)),
    chief=(
        *("position_r2", "geodesic_rank", "cross_ever_wide", "cross_end_wide", "same_ever_wide"),
        *("all_ever_wide", "all_end_wide"),
    ),
)


def sigreg_world(bench: WorldBench, *, sigreg: float = 0.1, slowness: float = 10.0, inverse: float = 1.0) -> Run:
    """JEPA + SIGReg: one Gaussianity term against collapse (LeWorldModel, arXiv 2603.19312; newer eb_jepa).

    Args:
        bench: what every arm shares.
        sigreg: weight of the N-scaled statistic.
        slowness: weight of the squared difference of consecutive embeddings.
        inverse: weight of telling the action from two embeddings.
    """
    guards: list[Regulariser] = [Gaussianity(SIGReg(seed=bench.seed)), Slowness()]
    return _jepa(bench, guards, {"own": 1.0, "sigreg": sigreg, "slowness": slowness, "inverse": inverse})


def vicreg_world(
    bench: WorldBench,
    *,
    variance: float = 1.0,
    covariance: float = 1.0,
    slowness: float = 100.0,
    inverse: float = 1.0,
) -> Run:
    """JEPA + VICReg, slowness and inverse dynamics (PLDM, arXiv 2502.14819; eb_jepa, 2602.03604).

    Args:
        bench: what every arm shares.
        variance: weight of the hinge on each dimension's standard deviation.
        covariance: weight of the squared covariances.
        slowness: weight of the squared difference of consecutive embeddings.
        inverse: weight of telling the action from two embeddings.
    """
    weights = {"own": 1.0, "variance": variance, "covariance": covariance, "slowness": slowness, "inverse": inverse}
    return _jepa(bench, [VarianceCovariance(), Slowness()], weights)


def ema_world(bench: WorldBench, *, momentum: float = 0.99, inverse: float = 1.0) -> Run:
    """JEPA + EMA teacher: layer-normed embeddings of a slowly moving copy, and inverse dynamics.

    Args:
        bench: what every arm shares.
        momentum: of the teacher at the first step; it rises to 0.996 and no further, for plans compare what the
            predictor says, in the teacher's space, with goals in the student's.
        inverse: weight of telling the action from two embeddings.
    """
    encoder, felt = bench.encoder(), bench.felt()
    objective = JEPAWorld(
        encoder,
        predictor=bench.predictor(felt=felt),
        teacher=EMATeacher(encoder, momentum=momentum, final_momentum=max(momentum, 0.996)),
        unroll=bench.unroll(),
        inverse=bench.inverse(),
        normalise=layer_normed,
        proprio=felt,
        weights={"ema": 1.0, "inverse": inverse},
    )
    return bench.run(objective)


def inverse_world(bench: WorldBench, *, inverse: float = 1.0) -> Run:
    """JEPA kept from collapse by inverse dynamics alone (SMWM, arXiv 2606.20104).

    Args:
        bench: what every arm shares.
        inverse: weight of telling the action from two embeddings.
    """
    return _jepa(bench, [], {"own": 1.0, "inverse": inverse})


def pixel_world(bench: WorldBench, *, slowness: float = 0.0, latent: float = 0.0) -> Run:
    """Generative: frames decoded from embeddings, encoded and foreseen (a deterministic RSSM without rewards).

    Args:
        bench: what every arm shares.
        slowness: weight of the squared difference of consecutive embeddings; 0 leaves the term out.
        latent: weight of the predicted embeddings against the encoder's; 0 leaves the term out.
    """
    weights = {"reconstruct": 1.0, "predict": 1.0, "own": latent, "slowness": slowness}
    objective = PixelWorld(
        bench.encoder(),
        predictor=bench.predictor(),
        decoder=bench.decoder(),
        scale=bench.scale(),
        unroll=bench.unroll(),
        regularisers=[Slowness()] if slowness else [],
        weights={name: weight for name, weight in weights.items() if weight},
        seed=bench.seed,
    )
    return bench.run(objective)


def pixel_latent_world(bench: WorldBench, *, latent: float = 1.0) -> Run:
    """Generative with a latent loss: pixels as in pixel-world, and the predicted embeddings against the encoder's.

    Args:
        bench: what every arm shares.
        latent: weight of the latent term.
    """
    return pixel_world(bench, latent=latent)


def frozen_autoencoder_world(bench: WorldBench, *, decoder_share: float = 0.5) -> Run:
    """Dynamics on a frozen auto-encoder: frames are reconstructed first, then embeddings predicted.

    Args:
        bench: what every arm shares.
        decoder_share: of the steps that go to the auto-encoder.
    """

    def on(steps: int) -> Run:
        longer = replace(bench, training=replace(bench.training, steps=steps))
        return frozen_autoencoder_world(longer, decoder_share=decoder_share)

    steps = max(1, round(decoder_share * bench.training.steps))
    encoder, scale = bench.encoder(), bench.scale()
    first = replace(bench.run(Autoencoder(encoder, decoder=bench.decoder(), scale=scale)), steps=steps)
    run = replace(_frozen(bench, encoder), steps=bench.training.steps - steps)

    def prepare() -> float:
        encoder.requires_grad_(True)
        flops = first.steps * first.count_flops()
        fit(first, device="cpu")
        encoder.requires_grad_(False)
        return flops

    return replace(run, prepare=prepare, remake=on)


def frame_world(bench: WorldBench, *, decoder_width: int = 16) -> Run:
    """Generative, in pixels: the next frame from the last one it saw or drew; plans compare pictures.

    Args:
        bench: what every arm shares.
        decoder_width: channels of the decoder's cells.
    """
    objective = FrameWorld(
        bench.encoder(), predictor=bench.predictor(), decoder=bench.decoder(decoder_width), scale=bench.scale()
    )
    return bench.run(objective)


def diffusion_world(bench: WorldBench, *, decoder_width: int = 16) -> Run:
    """Generative, by denoising: the next frame is drawn out of noise; plans compare pictures (after DIAMOND).

    Args:
        bench: what every arm shares.
        decoder_width: channels of the decoder's cells.
    """
    objective = DiffusionWorld(
        bench.encoder(),
        predictor=bench.predictor(),
        noisy_encoder=bench.encoder(another=4),
        decoder=bench.decoder(decoder_width),
        scale=bench.scale(),
        seed=bench.seed,
    )
    return bench.run(objective)


def random_encoder_world(bench: WorldBench) -> Run:
    """Dynamics on a random encoder that does not learn: the floor under every representation."""
    return _frozen(bench, bench.encoder())


def shuffled_world(bench: WorldBench, *, slowness: float = 100.0) -> Run:
    """JEPA + VICReg whose actions are those of other windows: a control that cannot plan.

    Args:
        bench: what every arm shares.
        slowness: weight of the squared difference of consecutive embeddings.
    """
    run = vicreg_world(bench, slowness=slowness)
    return replace(run, stream=replace(bench.stream(), relabel="shuffled"))


def _jepa(bench: WorldBench, guards: Sequence[Regulariser], weights: dict[str, float]) -> Run:
    parts, felt = [guard for guard in guards if any(weights[name] for name in guard.names)], bench.felt()
    named = {"own", *(name for part in parts for name in part.names)} | ({"inverse"} if weights["inverse"] else set())
    kept = {name: weight for name, weight in weights.items() if name in named}
    return bench.run(
        JEPAWorld(
            bench.encoder(),
            predictor=bench.predictor(felt=felt),
            teacher=OwnTeacher(),
            unroll=bench.unroll(),
            regularisers=parts,
            inverse=bench.inverse() if "inverse" in kept else None,
            proprio=felt,
            weights=kept,
        )
    )


def _frozen(bench: WorldBench, encoder: Encoder) -> Run:
    felt = bench.felt()
    return bench.run(
        JEPAWorld(
            encoder,
            predictor=bench.predictor(felt=felt),
            teacher=FrozenStudent(encoder),
            unroll=bench.unroll(),
            proprio=felt,
        )
    )
