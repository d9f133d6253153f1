"""I-JEPA (arXiv 2301.08243) by the settings and the names of transformers' `IJepaModel`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from jepalab.backbones.vit import ViT
from jepalab.hub.trunk import EPS, TrunkNames

BICUBIC = 3
TRUNK = TrunkNames(
    layer="encoder.layer",
    norm="layernorm",
    parts={
        "norm1": "layernorm_before",
        "proj": "attention.output.dense",
        "norm2": "layernorm_after",
        "fc1": "intermediate.dense",
        "fc2": "output.dense",
    },
    qkv=("attention.attention.query", "attention.attention.key", "attention.attention.value"),
)
# What transformers 5 calls them in memory, and on disk.
IN_MEMORY = {
    "layers.": "encoder.layer.",
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
# Parts of their models that are no encoder.
BESIDE = ("pooler.", "classifier.", "embeddings.mask_token")
DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "layer_norm_eps": 1e-12,
}


def describe_encoder(encoder: ViT) -> dict[str, Any]:
    """The config.json of this encoder."""
    return {
        "architectures": ["IJepaModel"],
        "model_type": "ijepa",
        "hidden_size": encoder.dim,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.num_heads,
        "intermediate_size": int(encoder.dim * encoder.mlp_ratio),
        "hidden_act": "gelu",
        "image_size": _one_if_square(_picture_size(encoder)),
        "patch_size": _one_if_square(encoder.patch),
        "num_channels": encoder.channels,
        "qkv_bias": True,
        "layer_norm_eps": EPS,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "dtype": "float32",
    }


def describe_processor(encoder: ViT) -> dict[str, Any]:
    """The preprocessor_config.json: how a picture becomes what theirs takes.

    The longest central square is cut out first, as our decoding of pictures does.
    """
    height, width = _picture_size(encoder)
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": encoder.channels == 3,
        "do_resize": True,
        "size": {"shortest_edge": min(height, width)},
        "resample": BICUBIC,
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": encoder.mean.tolist(),
        "image_std": encoder.std.tolist(),
    }


def build_encoder(config: Mapping[str, Any], *, mean: float | Sequence[float], std: float | Sequence[float]) -> ViT:
    """An untrained encoder as config.json describes it."""
    dim, patch, size = config["hidden_size"], _pair(config["patch_size"]), _pair(config["image_size"])
    return ViT(
        (size[0] // patch[0], size[1] // patch[1]),
        patch=patch,
        channels=config["num_channels"],
        dim=dim,
        depth=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        mlp_ratio=_ratio(config["intermediate_size"], dim),
        mean=mean,
        std=std,
    )


def encoder_on_disk(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The encoder's weights in a model of theirs, also a classifier, under their names on disk."""
    named = {_name_on_disk(name): value for name, value in state.items()}
    return {name: value for name, value in named.items() if not name.startswith(BESIDE)}


def encoder_to_theirs(encoder: ViT) -> dict[str, Tensor]:
    """The encoder's weights under their names."""
    ours = {name: value.detach().cpu() for name, value in encoder.state_dict().items()}
    return {
        "embeddings.position_embeddings": ours["positions"][None],
        # A patch is flattened channel by channel and row by row, exactly as a kernel is.
        "embeddings.patch_embeddings.projection.weight": ours["embed.weight"].unflatten(
            1, (encoder.channels, *encoder.patch)
        ),
        "embeddings.patch_embeddings.projection.bias": ours["embed.bias"],
        **TRUNK.theirs(ours, encoder.depth),
    }


def encoder_to_ours(theirs: Mapping[str, Tensor], encoder: ViT) -> dict[str, Tensor]:
    """The inverse of `encoder_to_theirs`, with the encoder's own mean and std."""
    return {
        "mean": encoder.mean,
        "std": encoder.std,
        "positions": theirs["embeddings.position_embeddings"][0],
        "embed.weight": theirs["embeddings.patch_embeddings.projection.weight"].flatten(1),
        "embed.bias": theirs["embeddings.patch_embeddings.projection.bias"],
        **TRUNK.ours(theirs, encoder.depth),
    }


def _name_on_disk(name: str) -> str:
    name = name.removeprefix("ijepa.")
    if name.startswith("layers."):
        for here, there in IN_MEMORY.items():
            name = name.replace(here, there, 1)
    return name


def _picture_size(encoder: ViT) -> tuple[int, int]:
    height, width = (g * p for g, p in zip(encoder.grid, encoder.patch, strict=True))
    return height, width


def _ratio(wide: int, dim: int) -> float:
    """The ratio that makes exactly this width of a hidden layer: 88 x (120 / 88), for one, rounds down to 119."""
    ratio = wide / dim
    return ratio if int(dim * ratio) == wide else math.nextafter(ratio, math.inf)


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def _one_if_square(sizes: Sequence[int]) -> int | list[int]:
    return sizes[0] if len({*sizes}) == 1 else [*sizes]
