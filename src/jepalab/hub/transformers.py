"""I-JEPA and V-JEPA 2 as transformers reads and writes them; transformers itself is not needed.

Theirs: a strided convolution cuts patches, queries, keys and values are separate layers, I-JEPA's positions are a
parameter, and pixels are normalised outside, by the numbers in preprocessor_config.json.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import safetensors.torch
from torch import Tensor, nn

from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.vit import ViT
from jepalab.dist import seeded
from jepalab.hub import ijepa, vjepa
from jepalab.hub.encoders import CONFIG, WEIGHTS, read_json, read_weights, write_folder
from jepalab.hub.trunk import EPS

PICTURES, CLIPS = "preprocessor_config.json", "video_preprocessor_config.json"
DEFAULTS = {"ijepa": ijepa.DEFAULTS, "vjepa2": vjepa.DEFAULTS}
MODELS = "a transformers.IJepaModel or VJEPA2Model"
Module = TypeVar("Module", bound=nn.Module)


def to_transformers(encoder: ViT, folder: Path, *, predictor: MaskedPredictor | None = None) -> None:
    """Writes a folder that transformers loads; outputs are equal up to rounding.

    An encoder of still pictures becomes an `IJepaModel`: where ours takes x [b 1 c h w], theirs takes
    (x[:, 0] - mean) / std. One of clips becomes a `VJEPA2Model`, which takes (x - mean) / std for x [b t c h w]. The
    folder's processor makes that of pictures or clips.

    predictor  to go with an encoder of clips. Of several mask tokens theirs uses the second. Without one theirs is
               untrained and without layers: call it with skip_predictor=True.

    ValueError unless the encoder reads still pictures, or clips as V-JEPA 2 does.
    """
    if len(encoder.grid) == 3:
        config, weights = vjepa.describe_encoder(encoder, predictor), vjepa.encoder_to_theirs(encoder)
        processors = {CLIPS: vjepa.describe_processor(encoder)}
        if predictor is not None:
            weights |= vjepa.predictor_to_theirs(predictor)
    elif len(encoder.grid) == 2 and encoder.position_kind == "sincos":
        if predictor is not None:
            raise ValueError("I-JEPA in transformers has no predictor; leave it out.")
        config, weights = ijepa.describe_encoder(encoder), ijepa.encoder_to_theirs(encoder)
        processors = {PICTURES: ijepa.describe_processor(encoder)}
    else:
        raise ValueError(
            "I-JEPA in transformers reads still pictures, with positions 'sincos'; got an encoder on the grid "
            f"{encoder.grid} with positions {encoder.position_kind!r}."
        )
    plain = {
        name: (json.dumps(told, indent=2) + "\n").encode() for name, told in (processors | {CONFIG: config}).items()
    }
    stored = {name: value.contiguous() for name, value in weights.items()}
    write_folder(folder, {WEIGHTS: safetensors.torch.save(stored, {"format": "pt"}), **plain})


def from_transformers(
    source: str | Path | nn.Module,
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
) -> ViT:
    """The encoder of an `IJepaModel` or a `VJEPA2Model` as ours; in evaluation mode, without gradients.

    source     a folder with config.json and safetensors, or the model itself.
    mean, std  of the pixels it was trained on; None takes them from the folder's preprocessor_config.json, and 0 and 1
               where there is none.

    Its layer norms have eps 1e-6, with which the released models were trained, also where the configuration says less.
    V-JEPA 2 reads clips of the length and size that its configuration names. ValueError where the model computes
    something that ours cannot.
    """
    config, state = _read(source)
    if not isinstance(source, nn.Module):
        normalising = _read_normalising(Path(source))
        mean = normalising.get("image_mean") if mean is None else mean
        std = normalising.get("image_std") if std is None else std
    family = ijepa if config["model_type"] == "ijepa" else vjepa
    with seeded(0):
        encoder = family.build_encoder(config, mean=0.0 if mean is None else mean, std=1.0 if std is None else std)
    theirs = family.TRUNK.without_bias(encoder.depth, encoder.dim) | family.encoder_on_disk(state)
    _check_names(theirs, family.encoder_to_theirs(encoder))
    return _fill(encoder, family.encoder_to_ours(theirs, encoder))


def predictor_from_transformers(source: str | Path | nn.Module, *, mask_index: int = 0) -> MaskedPredictor:
    """The predictor of a `VJEPA2Model` as ours; in evaluation mode, without gradients.

    mask_index  which of its mask tokens stands for what is hidden; the others are left out. In the released training
                code the token goes by the length of the clips, not by the mask: where all clips are of one length token
                0 alone is trained, and the others stay zero. transformers always takes token 1; for its numbers pass 1.

    In training its context was encoded alone, `encoder(x, mask.context)`; transformers encodes the full clip and masks
    afterwards.
    """
    config, state = _read(source)
    if config["model_type"] != "vjepa2":
        raise ValueError(f"Wanted a V-JEPA 2, got a model of type {config['model_type']!r}, which has no predictor.")
    with seeded(0):
        predictor = vjepa.build_predictor(config)
    depth, width = config["pred_num_hidden_layers"], config["pred_hidden_size"]
    theirs = vjepa.PREDICTOR_TRUNK.without_bias(depth, width) | vjepa.predictor_on_disk(state)
    _check_names(theirs, vjepa.predictor_to_theirs(predictor))
    return _fill(predictor, vjepa.predictor_to_ours(theirs, predictor, mask_index=mask_index))


def is_transformers_folder(folder: Path) -> bool:
    """Whether an I-JEPA or a V-JEPA 2 in transformers' format lies there."""
    file = folder / CONFIG
    return file.is_file() and read_json(file).get("model_type") in DEFAULTS


def _read(source: str | Path | nn.Module) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration, defaults filled in, and the weights, under whatever names. ValueError where ours differs."""
    if isinstance(source, nn.Module):
        config, state = _config_of(source), dict(source.state_dict())
    else:
        folder = Path(source)
        if not is_transformers_folder(folder):
            raise ValueError(
                f"{folder} is no folder of an I-JEPA or a V-JEPA 2 in transformers' format. Download one with "
                "`hf download facebook/ijepa_vith14_1k --local-dir FOLDER`, or pass the model itself."
            )
        config, state = read_json(folder / CONFIG), {}
        for file in sorted(folder.glob("*.safetensors")) or [folder / WEIGHTS]:
            state |= read_weights(file)
    kind = config.get("model_type")
    if kind not in DEFAULTS:
        raise ValueError(f"Wanted an I-JEPA or a V-JEPA 2, got a model of type {kind!r}.")
    config = DEFAULTS[kind] | config
    if config["hidden_act"] != "gelu" or config["layer_norm_eps"] > EPS:
        raise ValueError(
            f"Wanted hidden_act gelu and layer_norm_eps of at most {EPS:g}, got {config['hidden_act']} and "
            f"{config['layer_norm_eps']:g}."
        )
    return config, state


def _read_normalising(folder: Path) -> dict[str, Any]:
    """image_mean and image_std of the folder's processor; nothing where it normalises nothing."""
    files = [file for name in (PICTURES, CLIPS) if (file := folder / name).is_file()]
    told = read_json(files[0]) if files else {}
    return told if told.get("do_normalize", True) else {}


def _config_of(model: nn.Module) -> dict[str, Any]:
    try:
        return cast(Any, model).config.to_dict()
    except AttributeError as error:
        raise ValueError(f"Wanted {MODELS}, got {type(model).__name__}.") from error


def _check_names(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    if wanted.keys() != found.keys():
        missing, strange = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
        raise ValueError(
            f"These weights are not those of the model that {CONFIG} describes: missing "
            f"{', '.join(missing[:3]) or 'none'}, unknown {', '.join(strange[:3]) or 'none'}."
        )


def _fill(module: Module, state: dict[str, Tensor]) -> Module:
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"These weights are not those of the model that {CONFIG} describes: {reason}") from error
    return module.eval().requires_grad_(False)
