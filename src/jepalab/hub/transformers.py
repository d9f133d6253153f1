"""I-JEPA encoders as transformers' `IJepaModel` reads and writes them; transformers itself is not needed.

Theirs: a strided convolution cuts patches, queries, keys and values are separate layers, positions are a parameter, and
pixels are normalised outside, by the numbers in preprocessor_config.json.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import safetensors.torch
import torch
from torch import Tensor, nn

from jepalab.backbones.vit import ViT
from jepalab.dist import seeded
from jepalab.hub.encoders import CONFIG, WEIGHTS, read_json, read_weights, write_folder

PREPROCESSOR = "preprocessor_config.json"
EPS = 1e-6
BICUBIC = 3
# Their names on disk for the layers of our block, but for queries, keys and values.
LAYERS = {
    "norm1": "layernorm_before",
    "proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
}
QKV = [f"attention.attention.{name}" for name in ("query", "key", "value")]
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


def to_transformers(encoder: ViT, folder: Path) -> None:
    """Writes a folder that `transformers.IJepaModel.from_pretrained(folder)` loads; outputs are equal up to rounding.

    Where this encoder takes x [b 1 c h w], theirs takes (x[:, 0] - mean) / std, which the folder's image processor
    makes of a picture. ValueError unless the encoder reads still pictures.
    """
    if len(encoder.grid) != 2:
        raise ValueError(f"I-JEPA in transformers reads still pictures, got an encoder on the grid {encoder.grid}.")
    size = [g * p for g, p in zip(encoder.grid, encoder.patch, strict=True)]
    config = {
        "architectures": ["IJepaModel"],
        "model_type": "ijepa",
        "hidden_size": encoder.dim,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.num_heads,
        "intermediate_size": int(encoder.dim * encoder.mlp_ratio),
        "hidden_act": "gelu",
        "image_size": _one_if_square(size),
        "patch_size": _one_if_square(encoder.patch),
        "num_channels": encoder.channels,
        "qkv_bias": True,
        "layer_norm_eps": EPS,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "dtype": "float32",
    }
    # The longest central square is cut out first, as our decoding of pictures does.
    preprocessor = {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": encoder.channels == 3,
        "do_resize": True,
        "size": {"shortest_edge": min(size)},
        "resample": BICUBIC,
        "do_center_crop": True,
        "crop_size": {"height": size[0], "width": size[1]},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": encoder.mean.tolist(),
        "image_std": encoder.std.tolist(),
    }
    weights = {name: value.contiguous() for name, value in _their_weights(encoder).items()}
    write_folder(
        folder,
        {
            WEIGHTS: safetensors.torch.save(weights, {"format": "pt"}),
            PREPROCESSOR: (json.dumps(preprocessor, indent=2) + "\n").encode(),
            CONFIG: (json.dumps(config, indent=2) + "\n").encode(),
        },
    )


def from_transformers(
    source: str | Path | nn.Module,
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
) -> ViT:
    """The encoder of an `IJepaModel`, such as the released ones, as ours; in evaluation mode, without gradients.

    source     a folder with config.json and safetensors, or the model itself (`transformers.IJepaModel`).
    mean, std  of the pixels it was trained on; None takes them from the folder's preprocessor_config.json, and 0 and 1
               where there is none.

    Its layer norms have eps 1e-6, with which the released models were trained, also where the configuration says less.
    ValueError where the model computes something that ours cannot.
    """
    if isinstance(source, nn.Module):
        config, state = _config_of(source), dict(source.state_dict())
    else:
        folder = Path(source)
        if not is_transformers_folder(folder):
            raise ValueError(
                f"{folder} is no folder of an I-JEPA in transformers' format. Download one with "
                "`hf download facebook/ijepa_vith14_1k --local-dir FOLDER`, or pass the model itself."
            )
        config, state = read_json(folder / CONFIG), {}
        for file in sorted(folder.glob("*.safetensors")) or [folder / WEIGHTS]:
            state |= read_weights(file)
        if (folder / PREPROCESSOR).is_file():
            normalising = read_json(folder / PREPROCESSOR)
            if normalising.get("do_normalize", True):
                mean = normalising.get("image_mean") if mean is None else mean
                std = normalising.get("image_std") if std is None else std
    config = DEFAULTS | config
    _check(config)
    dim, patch, size = config["hidden_size"], _pair(config["patch_size"]), _pair(config["image_size"])
    with seeded(0):
        encoder = ViT(
            (size[0] // patch[0], size[1] // patch[1]),
            patch=patch,
            channels=config["num_channels"],
            dim=dim,
            depth=config["num_hidden_layers"],
            num_heads=config["num_attention_heads"],
            mlp_ratio=_ratio(config["intermediate_size"], dim),
            mean=0.0 if mean is None else mean,
            std=1.0 if std is None else std,
        )
    try:
        encoder.load_state_dict(_our_weights(state, encoder))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"These weights are not those of the I-JEPA that {CONFIG} describes: {reason}") from error
    return encoder.eval().requires_grad_(False)


def is_transformers_folder(folder: Path) -> bool:
    """Whether an I-JEPA in transformers' format lies there."""
    file = folder / CONFIG
    return file.is_file() and read_json(file).get("model_type") == "ijepa"


def _their_weights(encoder: ViT) -> dict[str, Tensor]:
    ours = {name: value.detach().cpu() for name, value in encoder.state_dict().items()}
    theirs = {
        "embeddings.position_embeddings": ours["positions"][None],
        # A patch is flattened channel by channel and row by row, exactly as a kernel is.
        "embeddings.patch_embeddings.projection.weight": ours["embed.weight"].unflatten(
            1, (encoder.channels, *encoder.patch)
        ),
        "embeddings.patch_embeddings.projection.bias": ours["embed.bias"],
    }
    for kind in ("weight", "bias"):
        theirs[f"layernorm.{kind}"] = ours[f"transformer.norm.{kind}"]
        for i in range(encoder.depth):
            block, layer = f"transformer.blocks.{i}", f"encoder.layer.{i}"
            theirs |= {f"{layer}.{there}.{kind}": ours[f"{block}.{here}.{kind}"] for here, there in LAYERS.items()}
            parts = ours[f"{block}.qkv.{kind}"].chunk(3)
            theirs |= {f"{layer}.{name}.{kind}": part for name, part in zip(QKV, parts, strict=True)}
    return theirs


def _our_weights(state: dict[str, Tensor], encoder: ViT) -> dict[str, Tensor]:
    theirs = {_on_disk(name): value for name, value in state.items()}
    theirs = {name: value for name, value in theirs.items() if not name.startswith(BESIDE)}
    for i in range(encoder.depth):  # models without these biases add nothing
        for name in QKV:
            theirs.setdefault(f"encoder.layer.{i}.{name}.bias", torch.zeros(encoder.dim))
    wanted = _their_weights(encoder).keys()
    if wanted != theirs.keys():
        missing, strange = sorted(wanted - theirs.keys()), sorted(theirs.keys() - wanted)
        raise ValueError(
            f"These weights are not those of the I-JEPA that {CONFIG} describes: missing "
            f"{', '.join(missing[:3]) or 'none'}, unknown {', '.join(strange[:3]) or 'none'}."
        )
    ours = {
        "mean": encoder.mean,
        "std": encoder.std,
        "positions": theirs["embeddings.position_embeddings"][0],
        "embed.weight": theirs["embeddings.patch_embeddings.projection.weight"].flatten(1),
        "embed.bias": theirs["embeddings.patch_embeddings.projection.bias"],
    }
    for kind in ("weight", "bias"):
        ours[f"transformer.norm.{kind}"] = theirs[f"layernorm.{kind}"]
        for i in range(encoder.depth):
            block, layer = f"transformer.blocks.{i}", f"encoder.layer.{i}"
            ours |= {f"{block}.{here}.{kind}": theirs[f"{layer}.{there}.{kind}"] for here, there in LAYERS.items()}
            ours[f"{block}.qkv.{kind}"] = torch.cat([theirs[f"{layer}.{name}.{kind}"] for name in QKV])
    return ours


def _on_disk(name: str) -> str:
    name = name.removeprefix("ijepa.")
    if name.startswith("layers."):
        for here, there in IN_MEMORY.items():
            name = name.replace(here, there, 1)
    return name


def _check(config: dict[str, Any]) -> None:
    if config.get("model_type") != "ijepa":
        raise ValueError(f"Wanted an I-JEPA, got a model of type {config.get('model_type')!r}.")
    if config["hidden_act"] != "gelu" or config["layer_norm_eps"] > EPS:
        raise ValueError(
            f"Wanted hidden_act gelu and layer_norm_eps of at most {EPS:g}, got {config['hidden_act']} and "
            f"{config['layer_norm_eps']:g}."
        )


def _config_of(model: nn.Module) -> dict[str, Any]:
    try:
        return cast(Any, model).config.to_dict()
    except AttributeError as error:
        raise ValueError(f"Wanted a transformers.IJepaModel, got {type(model).__name__}.") from error


def _ratio(wide: int, dim: int) -> float:
    """The ratio that makes exactly this width of a hidden layer: 88 x (120 / 88), for one, rounds down to 119."""
    ratio = wide / dim
    return ratio if int(dim * ratio) == wide else math.nextafter(ratio, math.inf)


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def _one_if_square(sizes: Sequence[int]) -> int | list[int]:
    return sizes[0] if len({*sizes}) == 1 else [*sizes]
