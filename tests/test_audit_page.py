"""What the audit prints and draws: every fact is there, nothing overlaps, nothing foreign gets in as markup."""

from __future__ import annotations

from dataclasses import replace

from jepalab.audit.report import (
    Arrow,
    Audit,
    Average,
    Box,
    Confirmation,
    Drawing,
    Family,
    Finding,
    Place,
    Process,
    Side,
    Space,
    TargetLearning,
    Term,
)


def side(*roots: str, stage: str = "raw", entry: str = "none", gradient: bool = False, discrete: bool = False) -> Side:
    return Side(roots, stage, entry, gradient, discrete)


PREDICTION = side("x", stage="online", entry="raw", gradient=True)
PIXELS = Term(
    name="pixels",
    op="mse_loss",
    place=Place("mae.py", 88, "forward_loss", "loss = F.mse_loss(prediction, target)"),
    called_from=None,
    prediction=PREDICTION,
    target=side("x"),
    space=Space.INPUT,
    process=Process.REGRESS,
    target_learning=TargetLearning.NONE,
    stop_gradient=False,
    novelty=1.0,
    share=1.0,
    early=1.0,
    late=1.0,
    family=Family.GENERATIVE,
    label="GENERATIVE-INPUT",
)
LATENT = replace(
    PIXELS,
    name="latent",
    op="smooth_l1_loss",
    place=Place("src/ijepa/train.py", 412, "loss_fn", "loss = F.smooth_l1_loss(z, h)"),
    called_from=Place("src/ijepa/train.py", 431, "train_step", "loss = loss_fn(z, h)"),
    target=side("x", stage="ema", entry="raw"),
    space=Space.EMA_EMBEDDING,
    target_learning=TargetLearning.EMA,
    stop_gradient=True,
    novelty=0.5,
    family=Family.JEPA,
    label="EMBEDDING-PREDICTION (EMA)",
)


def ijepa() -> Audit:
    boxes = (
        Box("x", "x", "input", "4 x 3 x 224 x 224"),
        Box("keep", "gather", "operation", "context tokens"),
        Box("encoder", "VisionTransformer", "online", "encoder, 5,524,416"),
        Box("predictor", "Predictor", "online", "predictor, 1,200,000"),
        Box("positions", "positions", "constant"),
        Box("teacher", "VisionTransformer", "ema", "momentum 0.996"),
        Box("pick", "layer_norm, gather", "operation", "target tokens"),
        Box("latent", "smooth_l1_loss", "comparison", "train.py:412"),
        Box("loss", "loss", "loss"),
    )
    arrows = (
        Arrow("x", "keep"),
        Arrow("keep", "encoder"),
        Arrow("encoder", "predictor"),
        Arrow("positions", "predictor"),
        Arrow("predictor", "latent", share=1.0),
        Arrow("x", "teacher"),
        Arrow("teacher", "pick", stopped=True),
        Arrow("pick", "latent", stopped=True),
        Arrow("latent", "loss", share=1.0),
    )
    return Audit(
        verdict="JEPA-style",
        mixture={"JEPA-style": 1.0},
        why="The encoder learns to predict the embedding of patches it has not seen. The target is made by a slow copy "
        "of itself, so nothing asks for the pixels.",
        terms=(LATENT,),
        averages=(Average("target_encoder", "encoder", 0.996, 3.1e-7, "after"),),
        confirmations=(
            Confirmation(
                "footprint", "latent", True, "6 of 12 perturbed patches change the target and not the prediction."
            ),
            Confirmation(
                "constant encoder", "latent", None, "The loss falls, but the slow copy cannot be held constant."
            ),
        ),
        parameters={"online": 6_724_416, "ema": 5_524_416, "frozen": 75_264},
        encoder="encoder",
        num_steps=10,
        drawing=Drawing(boxes, arrows),
        title="I-JEPA",
    )


def mae() -> Audit:
    boxes = (
        Box("x", "x", "input", "8 x 3 x 224 x 224"),
        Box("mask", "random mask", "noise"),
        Box("patches", "patchify", "operation"),
        Box("encoder", "ViTMAEModel", "online", "85,798,656"),
        Box("decoder", "ViTMAEDecoder", "online", "26,007,808"),
        Box("pixels", "mse_loss", "comparison", "mae.py:88"),
        Box("loss", "loss", "loss"),
    )
    pairs = [("x", "encoder"), ("mask", "encoder"), ("encoder", "decoder"), ("x", "patches"), ("patches", "pixels")]
    arrows = [Arrow(*pair) for pair in pairs] + [
        Arrow("decoder", "pixels", share=1.0),
        Arrow("pixels", "loss", share=1.0),
    ]
    return Audit(
        verdict="generative",
        mixture={"generative": 1.0},
        why="The step predicts patches of the input that were hidden from the encoder. What it is held against is the "
        "input itself, pixel by pixel.",
        terms=(PIXELS,),
        parameters={"online": 111_806_464},
        encoder="vit",
        num_steps=10,
        drawing=Drawing(boxes, tuple(arrows)),
        title="ViTMAE (transformers)",
    )


def dreamer() -> Audit:
    reward = replace(
        PIXELS,
        name="reward",
        op="cross_entropy",
        place=Place("dreamer.py", 190, "loss", "F.cross_entropy(logits, twohot)"),
        target=side("reward"),
        space=Space.REWARD,
        process=Process.CLASSIFY_TOKEN,
        share=0.31,
        early=0.44,
        late=0.22,
        family=Family.SUPERVISED,
        label="REWARD",
    )
    latent = replace(
        LATENT,
        name="dynamics",
        op="kl_divergence",
        place=Place("dreamer.py", 201, "loss", "kl_divergence(post, prior)"),
        called_from=None,
        target=side("x_next", stage="online", entry="raw"),
        space=Space.OWN_EMBEDDING,
        target_learning=TargetLearning.JOINT,
        novelty=1.0,
        share=0.066,
        early=0.02,
        late=0.09,
        label="EMBEDDING-PREDICTION (self)",
        anti_collapse=("stop-gradient", "reconstruction"),
    )
    back = replace(latent, name="representation", share=0.004, early=0.001, late=0.006, family=Family.REGULARISER)
    pixels = replace(PIXELS, share=0.62, early=0.54, late=0.68, place=Place("dreamer.py", 177, "loss", "(x - p) ** 2"))
    boxes = (
        Box("x", "x", "input", "16 x 64 x 3 x 64 x 64"),
        Box("action", "action", "input"),
        Box("reward_in", "reward", "input"),
        Box("encoder", "ConvEncoder", "online", "1.2 M"),
        Box("rssm", "RSSM", "online", "posterior"),
        Box("prior", "RSSM prior", "online", "from h alone"),
        Box("sample", "one_hot sample", "noise"),
        Box("z", "straight-through", "operation"),
        Box("decoder", "ConvDecoder", "online"),
        Box("head", "RewardHead", "online"),
        Box("twohot", "two-hot of symlog", "operation"),
        Box("pixels", "mse_loss", "comparison", "dreamer.py:177"),
        Box("reward", "cross_entropy", "comparison", "dreamer.py:190"),
        Box("dynamics", "KL(sg q, p)", "comparison", "dreamer.py:201"),
        Box("representation", "KL(q, sg p)", "comparison", "dreamer.py:202"),
        Box("loss", "loss", "loss"),
    )
    arrows = (
        Arrow("x", "encoder"),
        Arrow("encoder", "rssm"),
        Arrow("action", "rssm"),
        Arrow("action", "prior"),
        Arrow("rssm", "z"),
        Arrow("sample", "z"),
        Arrow("z", "decoder"),
        Arrow("z", "head"),
        Arrow("decoder", "pixels", share=0.62),
        Arrow("x", "pixels"),
        Arrow("head", "reward", share=0.31),
        Arrow("reward_in", "twohot"),
        Arrow("twohot", "reward"),
        Arrow("rssm", "dynamics", stopped=True),
        Arrow("prior", "dynamics", share=0.066),
        Arrow("rssm", "representation", share=0.004),
        Arrow("prior", "representation", stopped=True),
        Arrow("pixels", "loss", share=0.62),
        Arrow("reward", "loss", share=0.31),
        Arrow("dynamics", "loss", share=0.066),
        Arrow("representation", "loss", share=0.004),
    )
    return Audit(
        verdict="mixed (generative 62 %, supervised 31 %, JEPA-style 7 %)",
        mixture={"generative": 0.62, "supervised": 0.31, "JEPA-style": 0.07},
        why="Most of what the encoder learns comes from drawing the frame again, and a third from the reward. "
        "Predicting its own next embedding moves it little.",
        terms=(pixels, reward, latent, back),
        findings=(
            Finding("small-term", "note", "representation gives the encoder less than 1 % of its gradient."),
            Finding(
                "privileged",
                "warning",
                "reward reaches the encoder's gradient: features depend on the task.",
                reward.place,
            ),
        ),
        confirmations=(Confirmation("target shuffle", "pixels", True, "The loss rises from 0.91 to 1.84."),),
        parameters={"online": 12_431_872, "idle": 512},
        encoder="encoder",
        num_steps=10,
        drawing=Drawing(boxes, arrows),
        title="Dreamer-like world model",
    )


def collapsing() -> Audit:
    place = Place(
        "/somewhere/very/deep/inside/a/repository/of/somebody/else/naive_latent_prediction.py", 1042, "f", "..."
    )
    term = replace(
        LATENT,
        name="loss",
        op="mse_loss",
        place=place,
        called_from=None,
        target=side("x_next", stage="online", entry="raw", gradient=True),
        space=Space.OWN_EMBEDDING,
        target_learning=TargetLearning.JOINT,
        stop_gradient=False,
        novelty=1.0,
        label="COLLAPSE-PRONE",
        ambiguous="With a stop-gradient on the target this would be EMBEDDING-PREDICTION (self); `stop_gradient` tells "
        "the two apart.",
    )
    boxes = (
        Box("x", "x", "input"),
        Box("next", "x_next", "input"),
        Box("encoder", "Encoder", "online", "shared"),
        Box("backbone", "DINOv2", "frozen", "21.6 M"),
        Box("head", "Adapter on frozen", "mixed"),
        Box("predictor", "MLP", "online"),
        Box("loss_op", "mse_loss", "comparison", "naive.py:1042"),
        Box("loss", "loss", "loss"),
    )
    pairs = ("x backbone", "next backbone", "backbone head", "head encoder", "encoder predictor", "predictor loss_op")
    arrows = [Arrow(*pair.split()) for pair in pairs]
    arrows += [Arrow("encoder", "loss_op", share=0.48), Arrow("loss_op", "loss", share=1.0)]
    return Audit(
        verdict="collapse-prone",
        mixture={"JEPA-style": 1.0},
        why="Both sides of the loss are learned and nothing stands against the constant. The easiest answer is an "
        "embedding that is the same for every input.",
        terms=(term,),
        findings=(
            Finding(
                "collapse", "error", "The target has a gradient and no term keeps the embeddings apart. " * 3, place
            ),
            Finding(
                "ema-order", "warning", "target_encoder moves before the optimizer's step, so it lags by one step."
            ),
        ),
        averages=(
            Average("target_encoder", "encoder", 0.99, 2e-3, "before"),
            Average("old_encoder", "encoder", 1.0, 0.0, "never"),
        ),
        confirmations=(
            Confirmation("constant encoder", "loss", False, "The loss does not reach its minimum, as it should."),
        ),
        parameters={"online": 1000, "frozen": 21_600_000},
        num_steps=1,
        unexplained=0.031,
        drawing=Drawing(boxes, tuple(arrows)),
        title='Naïve <latent> prediction & "friends"',
    )


def vae() -> Audit:
    kl = replace(
        PIXELS,
        name="kl",
        op="mean",
        target=None,
        space=Space.STATISTIC,
        process=Process.MATCH_STATISTIC,
        novelty=None,
        share=0.03,
        family=Family.REGULARISER,
        label="REGULARISER",
    )
    boxes = (
        Box("x", "x", "input", "128 x 784"),
        Box("eps", "randn_like", "noise"),
        Box("encoder", "Encoder", "online", "mu, log variance"),
        Box("z", "add", "operation", "mu + eps * sigma"),
        Box("decoder", "Decoder", "online"),
        Box("pixels", "mse_loss", "comparison", "vae.py:31"),
        Box("kl", "mean", "statistic", "vae.py:32"),
        Box("loss", "loss", "loss"),
    )
    pairs = ("x encoder", "encoder z", "eps z", "z decoder", "x pixels", "encoder kl")
    arrows = [Arrow(*pair.split()) for pair in pairs]
    arrows += [
        Arrow("decoder", "pixels", share=0.97),
        Arrow("pixels", "loss", share=0.97),
        Arrow("kl", "loss", share=0.03),
    ]
    return Audit(
        verdict="generative",
        mixture={"generative": 1.0},
        why="The step draws again the input it was given. A second term keeps the embedding near a fixed distribution.",
        terms=(replace(PIXELS, novelty=0.0, share=0.97), kl),
        parameters={"online": 650_000},
        encoder="encoder",
        num_steps=10,
        drawing=Drawing(boxes, tuple(arrows)),
        title="VAE",
    )


AUDITS = [ijepa(), mae(), dreamer(), collapsing(), vae()]
