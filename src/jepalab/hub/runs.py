"""The encoders of a run: saved beside its records when training ends, and found again by the run's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jepalab.hub.encoders import CONFIG, is_savable, load_encoder, read_config, read_json, save_encoder, write_folder
from jepalab.hub.transformers import from_transformers, is_transformers_folder
from jepalab.types import Encoder, Objective, Stream

FOLDER, NAMES = "encoders", "names.json"


@runtime_checkable
class DescribedSamples(Protocol):
    """What is remembered of the samples that an encoder was trained on."""

    digest: str
    names: list[str]
    source: str


@runtime_checkable
class StreamOfSamples(Protocol):
    """A stream that draws its batches from a set of samples."""

    samples: DescribedSamples


def save_encoders(objective: Objective, folder: Path, *, stream: Stream | None = None, **facts: Any) -> list[str]:
    """Saves every encoder that a user could take home as folder/encoders/NAME; `load(folder)` takes the first.

    Returns the names of those that cannot be made again from a file, such as adapters around other networks: their
    weights are in the run's checkpoints alone.

    stream  what it was trained on: the digest, the source and the class names of its samples are remembered.
    facts   what else to remember, as JSON can hold it.
    """
    if isinstance(stream, StreamOfSamples) and isinstance(stream.samples, DescribedSamples):
        samples = stream.samples
        facts |= {"data": {"digest": samples.digest, "source": samples.source, "names": samples.names}}
    every = objective.probed_encoders()
    found = {name: encoder for name, encoder in every.items() if is_savable(encoder)}
    for name, encoder in found.items():
        save_encoder(encoder, folder / FOLDER / name, name=name, **facts)
    if found:
        write_folder(folder / FOLDER, {NAMES: json.dumps({"names": [*found]}).encode()})
    return [name for name in every if name not in found]


def put_first(run: Path, name: str) -> None:
    """From here on `load` takes this encoder of the run, where it was saved."""
    names = [*find_encoders(run)]
    if name in names:
        ordered = [name, *(other for other in names if other != name)]
        write_folder(run / FOLDER, {NAMES: json.dumps({"names": ordered}).encode()})


def load(path: str | Path, *, encoder: str | None = None) -> Encoder:
    """A trained encoder as a plain module, on the CPU, in evaluation mode and without gradients.

    path     the folder of a run, of one encoder, or of an I-JEPA or V-JEPA 2 in transformers' format.
    encoder  which encoder of a run: "student", "teacher"; None takes the one that is reported first.

    It takes x [b 1 c h w] (pictures, t = 1) or what else it was trained on, with values in [0, 1], and returns one
    embedding a token [b n d]; `.mean(1)` pools them. Raises ValueError, in words, where there is nothing to load.
    """
    path = Path(path)
    found = find_encoders(path)
    if found:
        if encoder is not None and encoder not in found:
            raise ValueError(f"{path} has no encoder {encoder!r}; it has: {', '.join(found)}.")
        return load_encoder(found[encoder or next(iter(found))])
    if not (path / CONFIG).is_file():
        raise ValueError(_explain_nothing(path))
    if encoder is not None:
        raise ValueError(f"{path} is one encoder, not a run with several; leave out encoder={encoder!r}.")
    return from_transformers(path) if is_transformers_folder(path) else load_encoder(path)


def read_facts(path: str | Path, *, encoder: str | None = None) -> dict[str, Any]:
    """What was remembered of the encoder that `load` returns for the same arguments: name, recipe, data."""
    path = Path(path)
    found = find_encoders(path)
    place = found[encoder or next(iter(found))] if found else path
    return {} if is_transformers_folder(place) else read_config(place).get("facts", {})


def find_encoders(run: Path) -> dict[str, Path]:
    """The folders of a run's encoders by name, the one to report first; nothing where none was saved."""
    file = run / FOLDER / NAMES
    return {name: run / FOLDER / name for name in read_json(file)["names"]} if file.is_file() else {}


def _explain_nothing(path: Path) -> str:
    if not path.exists():
        return f"There is no {path}; wanted the folder of a run (runs/NAME) or of an encoder."
    if not path.is_dir():
        return f"{path} is a file; wanted the folder of a run (runs/NAME) or of an encoder."
    if (path / "run.json").is_file():
        return (
            f"{path} holds a run without encoders: they are saved when training ends. Run its command again to go on "
            f"to the end; it is in {path / 'run.json'}."
        )
    runs = sorted(place.parents[1] for place in path.glob(f"**/{FOLDER}/{NAMES}"))
    if runs:
        return f"{path} holds {len(runs)} runs, not one; name one of them, for example {runs[0]}."
    return f"{path} is neither the folder of a run nor of an encoder: there is no {FOLDER}/ and no {CONFIG} in it."
