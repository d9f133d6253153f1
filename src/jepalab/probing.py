"""The command `jepalab probe`: what a trained encoder knows about classes, beside what comes without training."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from jaxtyping import Int
from rich.console import Console
from rich.table import Table
from torch import Tensor

from jepalab.backbones.pca import PixelPCA
from jepalab.compare.metrics import GEOMETRY, name_metric
from jepalab.data.samples import Samples
from jepalab.data.sprites import SPLITS, Split
from jepalab.dist import Engine
from jepalab.hub.encoders import fresh_encoder
from jepalab.hub.runs import load, read_facts
from jepalab.instruments.attentive import attentive
from jepalab.instruments.finetuning import finetuning
from jepalab.instruments.image_geometry import image_geometry
from jepalab.instruments.label_efficiency import label_efficiency
from jepalab.instruments.labelled import NUM_SAMPLES, LabelledSubject, freeze, observe, split_index
from jepalab.instruments.layers import layer_sweep
from jepalab.instruments.matching import describe_match, match_channels
from jepalab.instruments.posthoc import posthoc
from jepalab.instruments.recognition import recognition
from jepalab.instruments.robustness import robustness
from jepalab.instruments.sample_geometry import sample_geometry
from jepalab.instruments.sgd_probe import sgd_probe
from jepalab.objectives.untrained import Untrained
from jepalab.opening import Opening, open_for
from jepalab.types import Encoder

RANDOM, PCA = "random init", "pixel PCA"
# Components of more pixels take minutes and gigabytes, so larger pictures are shrunk for this floor.
PCA_SIZE, PCA_FRAMES = 32, 5_000
TITLES = {
    "linear": "linear",
    "logistic": "logistic",
    "knn": "kNN",
    "linear_sgd": "BN + SGD",
    "attentive": "attentive",
    "finetuned": "fine-tuned",
}
DRAWN = {
    "posthoc_psnr": "all tokens",
    "posthoc_linear_psnr": "linear part",
    "posthoc_pooled_psnr": "mean token",
    "posthoc_mean_psnr": "mean picture",
}
UNSHOWN = {"robust_validation", "robust_relative_drop"}
MEANINGS = {
    "linear": "ridge classifier on the mean token",
    "logistic": "logistic regression on the mean token",
    "knn": "vote of the 20 nearest training samples; nothing is trained",
    "linear_sgd": "a batch-normalised linear layer by SGD (after MAE)",
    "attentive": "small attention over all tokens, trained on up to 4,000 samples, fewer where tokens are many",
    "finetuned": "the whole encoder trained on for 360 steps of 64 samples, tested on up to 2,000 samples",
}


@dataclass(frozen=True)
class ProbeCommand:
    """Says how well the embeddings of a trained encoder tell classes, beside what no training gives.

    Args:
        run: folder of a run (runs/NAME) or of an encoder.
        data: what the encoder reads, with classes: pictures (class sub-folders, Hugging Face parquet, webdataset tars,
            IDX files), videos in class sub-folders, or series with a column of labels.
        encoder: which encoder of the run, student or teacher; without it, the one that is reported first.
        read_outs: "quick" reads linear, logistic and kNN; "full" adds the four below, BN + SGD and geometry, and for
            pictures corruptions and a decoder trained afterwards; takes many minutes.
        attentive: also train a small attention over all tokens; takes minutes.
        finetune: also train a copy of the whole encoder on; takes minutes.
        shots: also learn from few labels a class, from 1 to 100.
        layers: also read every layer of the encoder.
        share: share of the samples to read, for a quick look.
        device: auto takes CUDA, otherwise the CPU; mps has not been tested.
        json: print the scores as JSON.
        opening: how data becomes samples.
    """

    run: Annotated[Path, tyro.conf.Positional]
    data: Path
    encoder: str | None = None
    read_outs: Literal["quick", "full"] = "quick"
    attentive: bool = False
    finetune: bool = False
    shots: bool = False
    layers: bool = False
    share: float = 1.0
    device: str = "auto"
    json: bool = False
    opening: tyro.conf.OmitArgPrefixes[Opening] = field(default_factory=Opening)


def run(words: list[str]) -> int:
    """Runs the command."""
    command = tyro.cli(ProbeCommand, prog="jepalab probe", args=words)
    if not 0 < command.share <= 1:
        raise ValueError(f"A share of the samples is above 0 and at most 1, got {command.share}.")
    encoder, facts = load(command.run, encoder=command.encoder), read_facts(command.run, encoder=command.encoder)
    samples = open_for(encoder, command.data, command.opening)
    if not samples.names:
        raise ValueError(
            f"The samples in {command.data} have no labels, and a probe reads classes: sort them into a sub-folder "
            "for each class, or name a CSV of file,label with --labels."
        )
    index = {split: split_index(samples, split, max(2, round(command.share * NUM_SAMPLES[split]))) for split in SPLITS}
    name = facts.get("name", "encoder")
    with Engine(device=command.device) as engine:
        encoders = {name: match_channels(encoder, samples)}
        if not isinstance(encoder, PixelPCA):
            encoders[RANDOM] = match_channels(fresh_encoder(encoder), samples)
            if len(samples.sample_shape) == 4:
                encoders[PCA] = pixel_components(samples, index["train"], dim=encoder.dim)
        scores = {arm: judge(of.to(engine.device), samples, index, command, name=arm) for arm, of in encoders.items()}
    found = {
        "run": str(command.run),
        "encoder": name,
        "data": samples.source,
        "num": {split: len(rows) for split, rows in index.items()},
        "test_units": [samples.num_units(index["test"]), samples.unit],
        "num_classes": samples.num_classes,
        "chance": float(samples.labels[index["test"]].bincount().max() / len(index["test"])),
        "scores": scores,
    }
    if command.json:
        print(json.dumps(found))
        return 0
    console = Console(width=None if sys.stdout.isatty() else 116)
    for table in tables(scores):
        console.print(table)
    told = [samples.describe(), describe_match(encoder, samples), *in_words(found), where_from(facts, samples)]
    console.print("\n".join(filter(None, told)), highlight=False, markup=False)
    return 0


def judge(
    encoder: Encoder,
    samples: Samples,
    index: Mapping[Split, Int[Tensor, " n"]],
    command: ProbeCommand,
    *,
    name: str,
) -> dict[str, float]:
    """The scores that the command asks for, of one encoder; those that are no number are left out."""
    print(f"reading {sum(map(len, index.values())):,} samples: {name}", file=sys.stderr, flush=True)
    size = min(PCA_SIZE, samples.sample_shape[-1]) if name == PCA else None
    parts = {split: freeze(encoder, samples, rows, size=size) for split, rows in index.items()}
    subject = LabelledSubject(Untrained(encoder), encoder, samples, **parts, size=None, seed=0, crop=None)
    is_full, has_levels = command.read_outs == "full", not isinstance(encoder, PixelPCA)
    asked = {
        label_efficiency: command.shots or is_full,
        sgd_probe: is_full,
        # Pixel PCA has one level of one token, and nothing to train.
        layer_sweep: has_levels and (command.layers or is_full),
        attentive: has_levels and (command.attentive or is_full),
        finetuning: has_levels and (command.finetune or is_full),
    }
    if is_full and has_levels:
        is_still = len(samples.sample_shape) == 4 and samples.num_times == 1
        asked |= dict.fromkeys((image_geometry, robustness, posthoc) if is_still else (sample_geometry,), True)
    scores = recognition(subject)
    for read_out, is_asked in asked.items():
        if is_asked:
            scores |= read_out(subject)
    return {name: value for name, value in scores.items() if math.isfinite(value)}


def pixel_components(samples: Samples, train: Int[Tensor, " n"], *, dim: int) -> PixelPCA:
    """Principal components of training frames of at most 32 x 32 pixels, as many as an embedding has numbers."""
    size, few = min(PCA_SIZE, samples.sample_shape[-1]), train[: max(2, PCA_FRAMES // samples.num_times)]
    x = observe(samples, few, device=torch.device("cpu"), size=size)
    num_pixels = samples.channels * size**2
    components = PixelPCA(num_pixels, dim=min(dim, num_pixels, len(few) * samples.num_times - 1))
    components.fit(x)
    return components


def tables(scores: Mapping[str, Mapping[str, float]]) -> list[Table]:
    """A row for each encoder: test accuracies in per cent, then few labels, layers and more if asked for."""
    keys = {key: None for of in scores.values() for key in of}
    shots = {key: key.removeprefix("shot_") for key in keys if key.startswith("shot_") and not key.endswith("_labels")}
    levels = {key: key.removeprefix("linear_level_") for key in keys if key.startswith("linear_level_")}
    levels |= {key: "last four" for key in keys if key == "linear_joined_levels"}
    corrupted = {key: key.removeprefix("robust_") for key in keys if key.startswith("robust_") and key not in UNSHOWN}
    return [
        _table(title, columns, {arm: of for arm, of in scores.items() if columns.keys() & of.keys()}, percent=percent)
        for title, columns, percent in (
            ("Test accuracy in %", {key: title for key, title in TITLES.items() if key in keys}, True),
            ("By labels a class", shots, True),
            ("By layer, linear", levels, True),
            ("Corrupted pictures, linear in %", corrupted, True),
            ("Geometry: a diagnosis, never a score", {k: name_metric(k, {}) for k in GEOMETRY if k in keys}, False),
            ("Drawn from the embedding, PSNR in dB", {k: name for k, name in DRAWN.items() if k in keys}, False),
        )
        if columns
    ]


def _table(
    title: str, columns: Mapping[str, str], scores: Mapping[str, Mapping[str, float]], *, percent: bool
) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("encoder", no_wrap=True)
    for column in columns.values():
        table.add_column(column, justify="right")
    for arm, of in scores.items():
        cells = {key: f"{100 * of[key]:.1f}" if percent else f"{of[key]:.2f}" for key in columns if key in of}
        table.add_row(arm, *(cells.get(key, "-") for key in columns))
    return table


def in_words(found: Mapping[str, Any]) -> list[str]:
    """What the numbers mean, how exactly they are known, and whether training paid."""
    num, scores, (num_units, unit) = found["num"], found["scores"], found["test_units"]
    mine, *floors = scores
    accuracy = scores[mine]["linear"]
    half = 1.96 * math.sqrt(max(accuracy * (1 - accuracy), 1 / num_units) / num_units)
    told = "So many tell"
    if num_units < num["test"]:
        told = f"They come from {num_units:,} {unit}(s), and what comes from one goes together: so many tell"
    lines = [
        f"Accuracies are those on {num['test']:,} test samples of {found['num_classes']} classes; always naming the "
        f"most common one gives {100 * found['chance']:.1f} %. {told} an accuracy to about ± {100 * half:.1f} points "
        "(95 %).",
        f"Read-outs learned from {num['train']:,} labelled samples; their settings were chosen on "
        f"{num['validation']:,} others.",
    ]
    if floors:
        best = max(floors, key=lambda floor: scores[floor]["linear"])
        gain = 100 * (accuracy - scores[best]["linear"])
        # Two accuracies on the same samples, as if they were independent: careful, since mostly they go together.
        is_clear = gain > 100 * half * math.sqrt(2)
        lines.append(
            f"Linear is {gain:+.1f} points from the better floor, {best}: "
            + ("training paid." if is_clear else "not clearly better, so training has shown nothing for these classes.")
        )
    if shown := [f"{TITLES[key]}: {what}" for key, what in MEANINGS.items() if key in scores[mine]]:
        lines.append("; ".join(shown) + ".")
    if floors:
        lines.append(
            f"{RANDOM}: the same network untrained; {PCA}: no network, principal components of the pixels of a frame."
        )
    return lines


def where_from(facts: Mapping[str, Any], samples: Samples) -> str:
    """Whether the encoder may have seen the test samples; nothing where that is not known."""
    data = facts.get("data")
    if not data:
        return ""
    if data["digest"] == samples.digest:
        return "The encoder was trained on the train split of these samples, and saw none of the others."
    return f"The encoder was trained on other samples, or with other labels and so on other splits: {data['source']}."
