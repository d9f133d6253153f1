"""V-JEPA 2 (arXiv 2506.09985) by the settings and the names of transformers' `VJEPA2Model`: encoder and predictor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from jepalab.backbones.attention import Block
from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.vit import ViT
from jepalab.hub.trunk import EPS, TrunkNames

BILINEAR = 2
PARTS = {"norm1": "norm1", "proj": "attention.proj", "norm2": "norm2", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}
QKV = ("attention.query", "attention.key", "attention.value")
TRUNK = TrunkNames(layer="encoder.layer", norm="encoder.layernorm", parts=PARTS, qkv=QKV)
PREDICTOR_TRUNK = TrunkNames(layer="predictor.layer", norm="predictor.layernorm", parts=PARTS, qkv=QKV)
PATCHES, EMBED = "encoder.embeddings.patch_embeddings.proj", "predictor.embeddings.predictor_embeddings"
MASK_TOKENS = "predictor.embeddings.mask_tokens"
MLP_RATIO = 4.0  # of our predictor
DEFAULTS: dict[str, Any] = {
    "patch_size": 16,
    "crop_size": 256,
    "frames_per_clip": 64,
    "tubelet_size": 2,
    "hidden_size": 1024,
    "in_chans": 3,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "mlp_ratio": 4.0,
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu",
    "pred_hidden_size": 384,
    "pred_num_attention_heads": 12,
    "pred_num_hidden_layers": 12,
    "pred_num_mask_tokens": 10,
    "pred_mlp_ratio": 4.0,
}


def describe_encoder(encoder: ViT, predictor: MaskedPredictor | None = None) -> dict[str, Any]:
    """The config.json of this encoder, and of its predictor or of one without layers. ValueError if theirs differs."""
    square = len({*encoder.grid[1:]}) == len({*encoder.patch[1:]}) == 1
    if len(encoder.grid) != 3 or not square or encoder.position_kind != "rope-tiled":
        raise ValueError(
            "V-JEPA 2 in transformers reads square clips by square patches, with positions 'rope-tiled'; got an "
            f"encoder on the grid {encoder.grid} with patch {encoder.patch} and positions {encoder.position_kind!r}."
        )
    tubelet, patch, _ = encoder.patch
    return {
        "architectures": ["VJEPA2Model"],
        "model_type": "vjepa2",
        "patch_size": patch,
        "crop_size": encoder.grid[1] * patch,
        "frames_per_clip": encoder.grid[0] * tubelet,
        "tubelet_size": tubelet,
        "hidden_size": encoder.dim,
        "in_chans": encoder.channels,
        "num_attention_heads": encoder.num_heads,
        "num_hidden_layers": encoder.depth,
        "mlp_ratio": encoder.mlp_ratio,
        "layer_norm_eps": EPS,
        "hidden_act": "gelu",
        "qkv_bias": True,
        "drop_path_rate": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pred_mlp_ratio": MLP_RATIO,
        **({"pred_num_hidden_layers": 0} if predictor is None else _describe_predictor(predictor, encoder)),
        "dtype": "float32",
    }


def _describe_predictor(predictor: MaskedPredictor, encoder: ViT) -> dict[str, Any]:
    widths = predictor.embed.in_features, predictor.answer.out_features
    alike = predictor.grid == encoder.grid and widths == (encoder.dim, encoder.dim)
    if not alike or predictor.position_kind != "rope-tiled" or predictor.answer_context is not None:
        raise ValueError(
            f"V-JEPA 2's predictor has positions 'rope-tiled' on the encoder's grid {encoder.grid}, and reads and "
            f"answers in width {encoder.dim}, for targets alone; got positions {predictor.position_kind!r} on the grid "
            f"{predictor.grid}, widths {' and '.join(map(str, widths))}."
        )
    block = predictor.transformer.blocks[0]
    assert isinstance(block, Block)
    return {
        "pred_hidden_size": predictor.width,
        "pred_num_attention_heads": block.num_heads,
        "pred_num_hidden_layers": len(predictor.transformer.blocks),
        "pred_num_mask_tokens": predictor.num_mask_tokens,
    }


def describe_processor(encoder: ViT) -> dict[str, Any]:
    """The video_preprocessor_config.json. Theirs always takes frames 256 / 224 times as wide, and crops the middle."""
    side = encoder.grid[1] * encoder.patch[1]
    return {
        "video_processor_type": "VJEPA2VideoProcessor",
        "do_resize": True,
        "size": {"shortest_edge": int(side * 256 / 224)},
        "resample": BILINEAR,
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": encoder.mean.tolist(),
        "image_std": encoder.std.tolist(),
    }


def build_encoder(config: Mapping[str, Any], *, mean: float | Sequence[float], std: float | Sequence[float]) -> ViT:
    """An untrained encoder as config.json describes it."""
    tubelet, patch = config["tubelet_size"], config["patch_size"]
    return ViT(
        _grid(config),
        patch=(tubelet, patch, patch),
        channels=config["in_chans"],
        dim=config["hidden_size"],
        depth=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        mlp_ratio=float(config["mlp_ratio"]),
        mean=mean,
        std=std,
        positions="rope-tiled",
    )


def build_predictor(config: Mapping[str, Any]) -> MaskedPredictor:
    """An untrained predictor with one mask token, else as config.json describes it."""
    if config["pred_mlp_ratio"] != MLP_RATIO:
        raise ValueError(f"Wanted a predictor with pred_mlp_ratio {MLP_RATIO:g}, got {config['pred_mlp_ratio']}.")
    dim = config["hidden_size"]
    return MaskedPredictor(
        dim,
        dim,
        grid=_grid(config),
        width=config["pred_hidden_size"],
        depth=config["pred_num_hidden_layers"],
        num_heads=config["pred_num_attention_heads"],
        positions="rope-tiled",
    )


def encoder_on_disk(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's weights in a model of theirs, also a classifier, under their names on disk."""
    return _part(state, "encoder.")


def predictor_on_disk(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Likewise the predictor's."""
    return _part(state, "predictor.")


def encoder_to_theirs(encoder: ViT) -> dict[str, Tensor]:
    """The encoder's weights under their names."""
    ours = {name: value.detach().cpu() for name, value in encoder.state_dict().items()}
    # A patch is flattened channel by channel, frame by frame and row by row, exactly as a kernel is.
    kernel = ours["embed.weight"].unflatten(1, (encoder.channels, *encoder.patch))
    return {
        f"{PATCHES}.weight": kernel,
        f"{PATCHES}.bias": ours["embed.bias"],
        **TRUNK.theirs(ours, encoder.depth),
    }


def encoder_to_ours(theirs: Mapping[str, Tensor], encoder: ViT) -> dict[str, Tensor]:
    """The inverse of `encoder_to_theirs`, with the encoder's own buffers."""
    return {
        **dict(encoder.named_buffers()),
        "embed.weight": theirs[f"{PATCHES}.weight"].flatten(1),
        "embed.bias": theirs[f"{PATCHES}.bias"],
        **TRUNK.ours(theirs, encoder.depth),
    }


def predictor_to_theirs(predictor: MaskedPredictor) -> dict[str, Tensor]:
    """The predictor's weights under their names."""
    ours = {name: value.detach().cpu() for name, value in predictor.state_dict().items()}
    theirs = {MASK_TOKENS: ours["mask_token"].reshape(-1, 1, 1, predictor.width)}
    for kind in ("weight", "bias"):
        theirs |= {f"{EMBED}.{kind}": ours[f"embed.{kind}"], f"predictor.proj.{kind}": ours[f"answer.{kind}"]}
    return theirs | PREDICTOR_TRUNK.theirs(ours, len(predictor.transformer.blocks))


def predictor_to_ours(
    theirs: Mapping[str, Tensor], predictor: MaskedPredictor, *, mask_index: int
) -> dict[str, Tensor]:
    """The inverse of `predictor_to_theirs`, with that one of their mask tokens."""
    tokens = theirs[MASK_TOKENS]
    if not 0 <= mask_index < len(tokens):
        raise ValueError(f"This predictor has {len(tokens)} mask tokens, counted from 0; got mask_index={mask_index}.")
    ours = {"positions": predictor.positions, "mask_token": tokens[mask_index].flatten()}
    for kind in ("weight", "bias"):
        ours |= {f"embed.{kind}": theirs[f"{EMBED}.{kind}"], f"answer.{kind}": theirs[f"predictor.proj.{kind}"]}
    return ours | PREDICTOR_TRUNK.ours(theirs, len(predictor.transformer.blocks))


def _grid(config: Mapping[str, Any]) -> tuple[int, int, int]:
    side = config["crop_size"] // config["patch_size"]
    return config["frames_per_clip"] // config["tubelet_size"], side, side


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    named = {name.removeprefix("vjepa2."): value for name, value in state.items()}
    return {name: value for name, value in named.items() if name.startswith(prefix)}
