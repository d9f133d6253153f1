"""The command `jepalab embed`: what a trained encoder says of every sample, in one file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import tyro
from jaxtyping import Float
from torch import Tensor

from jepalab.data.samples import Samples
from jepalab.data.sprites import SPLITS
from jepalab.dist import Engine
from jepalab.feature_files import Row, check_feature_file, feature_file
from jepalab.hub.runs import load
from jepalab.instruments.labelled import SAMPLES_AT_ONCE, device_of, evaluating, observe
from jepalab.instruments.matching import describe_match, read_shape
from jepalab.opening import Opening, open_for
from jepalab.progress import count_items
from jepalab.types import Encoder


@dataclass(frozen=True)
class EmbedCommand:
    """Writes what a trained encoder says of every picture, clip or window into a file, in their order.

    Args:
        run: folder of a run (runs/NAME) or of an encoder.
        data: what the encoder reads: pictures (folder, Hugging Face parquet, webdataset tars, IDX files), a folder of
            videos, or series (CSV, parquet, .npy).
        out: file to write: .parquet or .csv with file, label, split and embedding; .npy with a .csv beside it. The
            split is that of training on them, and empty where they are too few for one.
        encoder: which encoder of the run, student or teacher; without it, the one that is reported first.
        tokens: write every token of a sample [n t d] in place of their mean [n d]; into .npy only.
        device: auto takes CUDA, otherwise the CPU; mps has not been tested.
        opening: how data becomes samples.
    """

    run: Annotated[Path, tyro.conf.Positional]
    data: Path
    out: Path
    encoder: str | None = None
    tokens: bool = False
    device: str = "auto"
    opening: tyro.conf.OmitArgPrefixes[Opening] = field(default_factory=Opening)


def run(words: list[str]) -> int:
    """Runs the command."""
    command = tyro.cli(EmbedCommand, prog="jepalab embed", args=words)
    check_feature_file(command.out, is_flat=not command.tokens)
    encoder = load(command.run, encoder=command.encoder)
    samples = open_for(encoder, command.data, command.opening, needs_splits=False)
    with Engine(device=command.device) as engine:
        shape = write_features(encoder.to(engine.device), samples, command.out, pooled=not command.tokens)
    print("\n".join(filter(None, [samples.describe(), describe_match(encoder, samples)])))
    print(f"{len(samples):,} embeddings of {' x '.join(map(str, shape))} numbers: {command.out}")
    if command.out.suffix == ".npy":
        print(f"whose they are: {command.out.with_suffix('.csv')}")
    return 0


@torch.no_grad()
def write_features(encoder: Encoder, samples: Samples, out: Path, *, pooled: bool = True) -> tuple[int, ...]:
    """Writes an embedding of every sample, computed in float32 on the encoder's device; returns the shape of one.

    pooled  the mean over a sample's tokens [n d]; otherwise all of them [n t d].
    """
    num, names, device = len(samples), samples.item_names(), device_of(encoder)
    channels = read_shape(encoder)[1]

    def features(rows: range) -> Float[Tensor, "n ..."]:
        index = torch.arange(rows.start, rows.stop)
        z = encoder(observe(samples, index, device=device, channels=channels))
        return (z.mean(1) if pooled else z).float().cpu()

    def whose(place: int) -> Row:
        label, split = int(samples.labels[place]), int(samples.splits[place])
        return Row(names[place], samples.names[label] if label >= 0 else "", SPLITS[split] if split >= 0 else "")

    with evaluating(encoder), count_items("embedding") as progress:
        shape = tuple(features(range(1)).shape[1:])
        with feature_file(out, num=num, shape=shape) as append:
            for start in range(0, num, SAMPLES_AT_ONCE):
                rows = range(start, min(num, start + SAMPLES_AT_ONCE))
                append(features(rows).numpy(), [whose(place) for place in rows])
                progress(rows.stop, num)
    return shape
