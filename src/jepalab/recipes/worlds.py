"""World models: embedding prediction and pixel prediction on the same encoder, predictor and recorded walks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jepalab.backbones.teachers import EMATeacher, FrozenStudent, OwnTeacher
from jepalab.compare.cells import Judging
from jepalab.losses.distances import layer_normed
from jepalab.losses.reconstruction import Reconstruction
from jepalab.losses.regularisers import Gaussianity, Regulariser, Slowness, VarianceCovariance
from jepalab.losses.sigreg import SIGReg
from jepalab.objectives.autoencoder import Autoencoder
from jepalab.objectives.diffusion_world import DiffusionWorld
from jepalab.objectives.frame_world import FrameWorld
from jepalab.objectives.jepa_world import JEPAWorld
from jepalab.objectives.pixel_world import PixelWorld
from jepalab.recipes.stored_encoder import StoredEncoder, fit_frames
from jepalab.recipes.world_bench import WorldBench
from jepalab.recipes.world_judging import acting, acting_subjects, understanding
from jepalab.recipes.world_rewards import with_rewards
from jepalab.run import Run
from jepalab.types import Encoder

NUM_FITTED = 512  # frames whose principal components a frozen encoder is projected onto
JUDGING = Judging(
    instruments=(understanding, acting),
    subjects=acting_subjects,
    chief=(
        *("position_r2", "geodesic_rank", "cross_ever_wide", "cross_end_wide", "same_ever_wide"),
        *("all_ever_wide", "all_end_wide", "block_ever_wide", "agent_ever_wide"),
    ),
)


def sigreg_world(bench: WorldBench, *, sigreg: float = 0.1, slowness: float = 10.0, inverse: float = 1.0) -> Run:
    """JEPA + SIGReg, slowness and inverse dynamics (newer eb_jepa, arXiv 2602.03604).

    With slowness 0 and inverse 0 it has the two losses of LeWorldModel (arXiv 2603.19312).

    Args:
        bench: what every arm shares.
        sigreg: weight of the N-scaled statistic.
        slowness: weight of the squared difference of consecutive embeddings; 0 leaves the term out.
        inverse: weight of telling the action from two embeddings; 0 leaves the term out.
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
    reconstruct: float = 0.0,
    rewarded: float = 0.0,
) -> Run:
    """JEPA + VICReg, slowness and inverse dynamics (PLDM, arXiv 2502.14819; eb_jepa, 2602.03604).

    Args:
        bench: what every arm shares.
        variance: weight of the hinge on each dimension's standard deviation.
        covariance: weight of the squared covariances.
        slowness: weight of the squared difference of consecutive embeddings.
        inverse: weight of telling the action from two embeddings.
        reconstruct: weight of frames decoded from their embeddings, as LeWorldModel's control has it; 0 leaves it out.
        rewarded: share of the walks whose rewards, the nearness of an open door, a head has to tell; 0 leaves it out.
    """
    weights = {"own": 1.0, "variance": variance, "covariance": covariance, "slowness": slowness, "inverse": inverse}
    run = _jepa(
        bench, [VarianceCovariance(), Slowness()], weights | {"reconstruct": reconstruct, "reward": float(rewarded > 0)}
    )
    return replace(run, stream=with_rewards(bench.stream(), rewarded)) if rewarded else run


def ema_world(bench: WorldBench, *, momentum: float = 0.99, slowness: float = 1.0, inverse: float = 1.0) -> Run:
    """JEPA + EMA teacher: layer-normed embeddings of a slowly moving copy, slowness and inverse dynamics.

    Args:
        bench: what every arm shares.
        momentum: of the teacher at the first step; it rises to 0.996 and no further, for plans compare what the
            predictor says, in the teacher's space, with goals in the student's.
        slowness: weight of the squared difference of consecutive embeddings over their variance, which nothing else
            here holds up; 0 leaves the term out.
        inverse: weight of telling the action from two embeddings.
    """
    encoder, felt = bench.encoder(), bench.felt()
    objective = JEPAWorld(
        encoder,
        predictor=bench.predictor(felt=felt),
        teacher=EMATeacher(encoder, momentum=momentum, final_momentum=max(momentum, 0.996)),
        unroll=bench.unroll(),
        regularisers=[Slowness(relative=True)] if slowness else [],
        inverse=bench.inverse(),
        normalise=layer_normed,
        proprio=felt,
        weights={"ema": 1.0, "inverse": inverse} | ({"slowness": slowness} if slowness else {}),
    )
    return bench.run(objective)


def inverse_world(bench: WorldBench, *, slowness: float = 1.0, inverse: float = 1.0) -> Run:
    """JEPA kept from collapse by inverse dynamics alone (SMWM, arXiv 2606.20104), and slowness.

    Args:
        bench: what every arm shares.
        slowness: weight of the squared difference of consecutive embeddings over their variance, which nothing else
            here holds up; 0 leaves the term out.
        inverse: weight of telling the action from two embeddings.
    """
    return _jepa(bench, [Slowness(relative=True)], {"own": 1.0, "slowness": slowness, "inverse": inverse})


def pixel_world(bench: WorldBench, *, slowness: float = 1.0, latent: float = 0.0) -> Run:
    """Generative: frames decoded from embeddings, encoded and foreseen (a deterministic RSSM without rewards).

    Args:
        bench: what every arm shares.
        slowness: weight of the squared difference of consecutive embeddings over their variance, which nothing else
            here holds up; 0 leaves the term out.
        latent: weight of the predicted embeddings against the encoder's; 0 leaves the term out.
    """
    weights = {"reconstruct": 1.0, "predict": 1.0, "own": latent, "slowness": slowness}
    objective = PixelWorld(
        bench.encoder(),
        predictor=bench.predictor(),
        decoder=bench.decoder(),
        scale=bench.scale(),
        unroll=bench.unroll(),
        regularisers=[Slowness(relative=True)] if slowness else [],
        weights={name: weight for name, weight in weights.items() if weight},
        seed=bench.seed,
    )
    return bench.run(objective)


def pixel_latent_world(bench: WorldBench, *, slowness: float = 1.0, latent: float = 1.0) -> Run:
    """Generative with a latent loss: pixels as in pixel-world, and the predicted embeddings against the encoder's.

    Args:
        bench: what every arm shares.
        slowness: weight of the squared difference of consecutive embeddings over their variance, which nothing else
            here holds up; 0 leaves the term out.
        latent: weight of the latent term.
    """
    return pixel_world(bench, slowness=slowness, latent=latent)


def frozen_autoencoder_world(bench: WorldBench, *, slowness: float = 1.0, decoder_share: float = 0.5) -> Run:
    """Dynamics on a frozen auto-encoder: frames are reconstructed first, then embeddings predicted.

    Args:
        bench: what every arm shares.
        slowness: weight of the squared difference of consecutive embeddings over their variance while the
            auto-encoder learns; 0 leaves the term out.
        decoder_share: of the steps that go to the auto-encoder.
    """

    def on(steps: int) -> Run:
        longer = replace(bench, training=replace(bench.training, steps=steps))
        return frozen_autoencoder_world(longer, slowness=slowness, decoder_share=decoder_share)

    steps = max(1, round(decoder_share * bench.training.steps))
    encoder = bench.encoder()
    autoencoder = Autoencoder(
        bench.encoder(),
        decoder=bench.decoder(),
        scale=bench.scale(),
        regularisers=[Slowness(relative=True)] if slowness else [],
        weights={"reconstruct": 1.0} | ({"slowness": slowness} if slowness else {}),
    )

    def prepare() -> None:
        encoder.load_state_dict(autoencoder.encoder.state_dict())

    return replace(
        _frozen(bench, encoder),
        steps=bench.training.steps - steps,
        first=replace(bench.run(autoencoder), steps=steps),
        prepare=prepare,
        remake=on,
    )


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


def frozen_encoder_world(bench: WorldBench, *, given: StoredEncoder) -> Run:
    """Dynamics on your own frozen encoder of pictures (DINO-WM, arXiv 2411.04983, with one latent a frame).

    Args:
        bench: what every arm shares.
        given: the encoder.
    """
    frames = bench.stream().held_out("train", NUM_FITTED // 8).x
    return _frozen(bench, given.open(fit_frames(frames, NUM_FITTED), dim=bench.network.dim))


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
    heads = {name for name in ("inverse", "reconstruct", "reward") if weights.get(name)}
    named = {"own", *(name for part in parts for name in part.names)} | heads
    return bench.run(
        JEPAWorld(
            bench.encoder(),
            predictor=bench.predictor(felt=felt),
            teacher=OwnTeacher(),
            unroll=bench.unroll(),
            regularisers=parts,
            inverse=bench.inverse() if "inverse" in heads else None,
            reconstruct=_decoder_loss(bench) if "reconstruct" in heads else None,
            reward=bench.reward() if "reward" in heads else None,
            proprio=felt,
            weights={name: weight for name, weight in weights.items() if name in named},
        )
    )


def _decoder_loss(bench: WorldBench) -> Reconstruction:
    return Reconstruction(bench.decoder(), scale=bench.scale(), seed=bench.seed)


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
