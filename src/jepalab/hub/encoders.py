"""One trained encoder in a folder: config.json says how to make it, model.safetensors holds its weights; no pickle.

Only encoders of this library are made from a folder, by names on a fixed list, so that loading one that somebody sent
runs no code of theirs.
"""

from __future__ import annotations

import json
import os
from importlib import metadata
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.frames import FrameDifferences, FramesAsPatches
from jepalab.backbones.pca import PixelPCA
from jepalab.backbones.pooled import PooledPixels
from jepalab.backbones.resnet import ResNet
from jepalab.backbones.vit import ViT
from jepalab.dist import seeded
from jepalab.types import Encoder

FORMAT = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"
KINDS: dict[str, type[Encoder]] = {
    kind.__name__: kind
    for kind in (ViT, ResNet, ConvEncoder, FramesAsPatches, FrameDifferences, PixelPCA, PooledPixels)
}


def is_savable(encoder: Encoder) -> bool:
    """Whether `save_encoder` takes it: only this library's own kinds can be made again from a file."""
    return KINDS.get(type(encoder).__name__) is type(encoder)


def save_encoder(encoder: Encoder, folder: Path, **facts: Any) -> None:
    """Writes the encoder into the folder, in place of one that lies there; other files stay.

    facts  what to remember about it, as JSON can hold it: recipe, data, class names.

    Raises:
        ValueError: an encoder that is not of this library's, or facts that are no JSON.
        OSError: the folder cannot be written, or the disk is full; an encoder that was there before is still whole.
    """
    kind = type(encoder).__name__
    if not is_savable(encoder):
        raise ValueError(f"Wanted one of {', '.join(KINDS)}, got {kind}; save its state_dict instead.")
    config = {
        "format": FORMAT,
        "encoder": kind,
        "arguments": encoder.arguments(),
        "jepalab": metadata.version("jepalab"),
        "facts": facts,
    }
    try:
        text = json.dumps(config, indent=2, allow_nan=False) + "\n"
    except (TypeError, ValueError) as error:
        raise ValueError(f"The facts about an encoder must be JSON, got {facts} ({error}).") from error
    weights = {name: value.detach().cpu().contiguous() for name, value in encoder.state_dict().items()}
    write_folder(folder, {WEIGHTS: safetensors.torch.save(weights, {"format": "pt"}), CONFIG: text.encode()})


def load_encoder(folder: Path) -> Encoder:
    """The encoder that lies in the folder, on the CPU, in evaluation mode and without gradients.

    It computes bit for bit what the saved one did. To train it on: `encoder.train().requires_grad_(True)`.
    Raises ValueError, in words, where there is none, it is damaged, or this version does not know it.
    """
    config = read_config(folder)
    kind = KINDS.get(config["encoder"])
    if kind is None:
        raise ValueError(
            f"{folder} holds an encoder {config['encoder']!r}, and jepalab {metadata.version('jepalab')} knows "
            f"{', '.join(KINDS)}; it was saved by jepalab {config.get('jepalab', '?')}."
        )
    arguments = {name: tuple(v) if isinstance(v, list) else v for name, v in config["arguments"].items()}
    try:
        with seeded(0):  # its first weights are drawn, and thrown away: the caller's random numbers go on as before
            encoder = kind(**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"{folder / CONFIG} does not make a {config['encoder']}: {error}") from error
    try:
        encoder.load_state_dict(read_weights(folder / WEIGHTS))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"The weights in {folder} are not those of its {CONFIG}: {reason}") from error
    return encoder.eval().requires_grad_(False)


def read_config(folder: Path) -> dict[str, Any]:
    """What config.json says: encoder, arguments, facts and the version that saved it. ValueError if it is not ours."""
    file = folder / CONFIG
    if not file.is_file():
        raise ValueError(f"{folder} holds no encoder: there is no {CONFIG} in it.")
    config = read_json(file)
    if not {"format", "encoder", "arguments"} <= config.keys() or not isinstance(config["arguments"], dict):
        raise ValueError(f"{file} does not describe an encoder of jepalab.")
    if config["format"] != FORMAT:
        raise ValueError(
            f"{folder} was saved by jepalab {config.get('jepalab', '?')} in format {config['format']}, and jepalab "
            f"{metadata.version('jepalab')} reads format {FORMAT}; install the version that saved it."
        )
    return config


def fresh_encoder(encoder: Encoder, *, seed: int = 0) -> Encoder:
    """An encoder made with the same arguments and untrained weights: the floor under what the trained one shows."""
    with seeded(seed):
        return type(encoder)(**encoder.arguments()).eval().requires_grad_(False)


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; ValueError where it is damaged or something else."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is damaged: {error}.") from error
    if not isinstance(value, dict):
        raise ValueError(f"{file} is damaged: wanted an object, got {type(value).__name__}.")
    return value


def read_weights(file: Path) -> dict[str, Any]:
    """The tensors in a safetensors file; ValueError where there is none or it is damaged."""
    if not file.is_file():
        raise ValueError(f"There is no {file}; copy the folder anew, or save the encoder again.")
    try:
        return safetensors.torch.load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged ({error}); copy it anew, or save the encoder again.") from error


def write_folder(folder: Path, contents: dict[str, bytes]) -> None:
    """Writes these files, the last of which vouches for all: while they are exchanged it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = {name: folder / f".{name}.partial-{os.getpid()}" for name in contents}
    try:
        for name, content in contents.items():
            with partial[name].open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        (folder / [*contents][-1]).unlink(missing_ok=True)
        for name, path in partial.items():
            path.replace(folder / name)
    except OSError as error:
        for path in partial.values():
            path.unlink(missing_ok=True)
        raise OSError(error.errno, f"Could not write an encoder ({error.strerror})", str(folder)) from error
