"""The command `jepalab embed`: what a trained encoder says of every picture, in one file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from jepalab.data.images import Images, open_images
from jepalab.data.sprites import SPLITS
from jepalab.dist import Engine
from jepalab.feature_files import Row, check_feature_file, feature_file
from jepalab.hub.runs import load
from jepalab.instruments.labelled import SAMPLES_AT_ONCE, device_of, evaluating, observe
from jepalab.instruments.matching import describe_match, picture_shape
from jepalab.progress import count_items
from jepalab.types import Encoder


@dataclass(frozen=True)
class EmbedCommand:
    """Writes what a trained encoder says of every picture into a file, in the order of the pictures.

    Args:
        run: folder of a run (runs/NAME) or of an encoder.
        data: folder of images (class sub-folders or none), Hugging Face parquet, webdataset tars or IDX files.
        out: file to write: .parquet or .csv with file, label, split and embedding; .npy with a .csv beside it.
        labels: CSV of file,label; otherwise labels come from sub-folders or the data's own column.
        encoder: which encoder of the run, student or teacher; without it, the one that is reported first.
        tokens: write every token of a picture [n t d] in place of their mean [n d]; into .npy only.
        cache: where decoded pictures are kept.
        device: auto takes CUDA, then MPS, then the CPU.
    """

    run: Annotated[Path, tyro.conf.Positional]
    data: Path
    out: Path
    labels: Path | None = None
    encoder: str | None = None
    tokens: bool = False
    cache: Path | None = None
    device: str = "auto"


def run(words: list[str]) -> int:
    """Runs the command."""
    command = tyro.cli(EmbedCommand, prog="jepalab embed", args=words)
    check_feature_file(command.out, is_flat=not command.tokens)
    encoder = load(command.run, encoder=command.encoder)
    size, _ = picture_shape(encoder)
    with count_items(f"decoding {command.data}") as progress:
        images = open_images(command.data, size=size, labels=command.labels, cache=command.cache, progress=progress)
    with Engine(device=command.device) as engine:
        shape = write_features(encoder.to(engine.device), images, command.out, pooled=not command.tokens)
    print("\n".join(filter(None, [images.describe(), describe_match(encoder, images)])))
    print(f"{len(images):,} embeddings of {' x '.join(map(str, shape))} numbers: {command.out}")
    if command.out.suffix == ".npy":
        print(f"whose they are: {command.out.with_suffix('.csv')}")
    return 0


@torch.no_grad()
def write_features(encoder: Encoder, images: Images, out: Path, *, pooled: bool = True) -> tuple[int, ...]:
    """Writes an embedding of every picture, computed in float32 on the encoder's device; returns the shape of one.

    pooled  the mean over a picture's tokens [n d]; otherwise all of them [n t d].
    """
    num, names, device = len(images), images.item_names(), device_of(encoder)
    channels = picture_shape(encoder).channels

    def features(rows: range) -> Float[Tensor, "n ..."]:
        index = torch.arange(rows.start, rows.stop)
        z = encoder(observe(images, index, device=device, channels=channels))
        return (z.mean(1) if pooled else z).float().cpu()

    def whose(place: int) -> Row:
        label = int(images.labels[place])
        return Row(names[place], images.names[label] if label >= 0 else "", SPLITS[int(images.splits[place])])

    with evaluating(encoder), count_items("embedding") as progress:
        shape = tuple(features(range(1)).shape[1:])
        with feature_file(out, num=num, shape=shape) as append:
            for start in range(0, num, SAMPLES_AT_ONCE):
                rows = range(start, min(num, start + SAMPLES_AT_ONCE))
                append(features(rows).numpy(), [whose(place) for place in rows])
                progress(rows.stop, num)
    return shape
