"""Pictures packed into few files: Hugging Face parquet tables and webdataset tars, read as a stream."""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from jepalab.data.image_files import SUFFIXES
from jepalab.data.image_sources import UNSPLIT, Broken, Item, Source, fingerprint, split_of_name

LABEL_COLUMNS = ("label", "labels", "class", "fine_label", "target")
LABEL_KEYS = ("label", "class", "cls", "target")
# Rows of a table, and bytes of a batch of them, that are held at a time.
NUM_ROWS = 64


def is_tar(path: Path) -> bool:
    return path.name.lower().endswith((".tar", ".tar.gz", ".tgz"))


def parquet(folder: Path, files: list[Path], *, label_column: str | None) -> Source:
    """Tables as Hugging Face writes them: a column of encoded pictures, or of structs that hold them as `bytes`.

    The split is what a file's name, or its folder's, begins with; classes keep the names in the table's metadata.
    """
    pq = _pyarrow()
    tables = {path: _table(pq, path) for path in files}
    schema = next(iter(tables.values())).schema_arrow
    picture, label = _columns(schema, label_column)
    columns = [picture] if label is None else [picture, label]
    for path, table in tables.items():
        if missing := [name for name in columns if name not in table.schema_arrow.names]:
            raise ValueError(f"{path} lacks the columns {missing} that {next(iter(tables))} has.")

    def items() -> Iterator[Item]:
        for path in files:
            split = split_of_name(path.name)
            split = split_of_name(path.parent.name) if split == UNSPLIT and path.parent != folder else split
            for row, values in enumerate(_rows(pq, path, columns)):
                name = f"{path.relative_to(folder).as_posix()}:{row}"
                yield Item(name, _encoded(values[picture]), values[label] if label else None, split)

    names = next((names for table in tables.values() if label and (names := _class_names(table, label))), None)
    key = fingerprint("parquet", folder, files, picture, label)
    num = sum(table.metadata.num_rows for table in tables.values())
    for table in tables.values():
        table.close()
    return Source(f"parquet files in {folder.name}", key, num, items, names)


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise ValueError("Parquet files are read by pyarrow: pip install 'jepalab[parquet]'.") from error
    return pq


def _table(pq: Any, path: Path) -> Any:
    try:
        return pq.ParquetFile(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no whole parquet file ({error}); fetch it again.") from error


def _rows(pq: Any, path: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    try:
        with pq.ParquetFile(path) as table:
            for batch in table.iter_batches(NUM_ROWS, columns=columns):
                yield from batch.to_pylist()
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({error}); fetch it again.") from error


def _columns(schema: Any, wanted: str | None) -> tuple[str, str | None]:
    """The columns of the pictures and of their labels."""
    kinds = {name: str(schema.field(name).type) for name in schema.names}
    binary = {name for name, kind in kinds.items() if "bytes: " in kind or kind in {"binary", "large_binary"}}
    preferred = [name for name in ("image", "img", "picture", "jpg", "png") if name in binary]
    pictures = preferred or sorted(binary)
    if not pictures:
        raise ValueError(f"Wanted a column of encoded pictures (binary, or struct with bytes), the table has {kinds}.")
    if wanted is not None and wanted not in kinds:
        raise ValueError(f"Wanted the labels in column {wanted!r}, the table has {sorted(kinds)}.")
    return pictures[0], wanted or next((name for name in LABEL_COLUMNS if name in kinds), None)


def _class_names(table: Any, label: str) -> list[str] | None:
    described = (table.schema_arrow.metadata or {}).get(b"huggingface")
    features = json.loads(described).get("info", {}).get("features", {}) if described else {}
    names = features.get(label, {}).get("names")
    return names if isinstance(names, list) else None


def _encoded(value: Any) -> bytes | Broken:
    encoded = value.get("bytes") if isinstance(value, dict) else value
    return encoded if encoded else Broken("the table holds no bytes for it")


def tars(folder: Path, files: list[Path]) -> Source:
    """Tars as webdataset writes them: files that share a key follow one another, KEY.jpg with KEY.cls, .json or .txt.

    The split is what a tar's name begins with. A damaged tar yields what comes before the damage.
    """

    def items() -> Iterator[Item]:
        for path in files:
            name, split = path.relative_to(folder).as_posix(), split_of_name(path.name)
            sample: dict[str, bytes] = {}
            last = ""
            try:
                with tarfile.open(path, "r|*") as tar:
                    for member in tar:
                        key, suffix = _key(member)
                        if not suffix:
                            continue
                        if key != last:
                            yield from _sample(f"{name}:{last}", sample, split)
                            sample, last = {}, key
                        file = tar.extractfile(member)
                        assert file is not None, "a regular file"
                        sample[suffix] = file.read()
            except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
                yield Item(f"{name}:{last or 'start'} and after", Broken(f"the tar is damaged: {error}"))
            else:
                yield from _sample(f"{name}:{last}", sample, split)

    num = sum(_num_pictures(path) for path in files)
    return Source(f"webdataset tars in {folder.name}", fingerprint("tars", folder, files), num, items)


def _key(member: tarfile.TarInfo) -> tuple[str, str]:
    """What comes before and after the first dot of the name; "" after it for what is no sample's file."""
    place = PurePosixPath(member.name)
    stem, _, suffix = place.name.partition(".")
    if not member.isfile() or not stem or "__MACOSX" in place.parts:
        return "", ""
    return (place.parent / stem).as_posix(), suffix.lower()


def _sample(name: str, sample: dict[str, bytes], split: int) -> Iterator[Item]:
    for suffix, content in sample.items():
        if f".{suffix.rpartition('.')[2]}" in SUFFIXES:
            yield Item(name, content or Broken("the file is empty"), _label(sample), split)
            return


def _label(sample: dict[str, bytes]) -> str | int | None:
    if "cls" in sample or "txt" in sample:
        return sample.get("cls", sample.get("txt", b"")).decode("utf-8", "replace").strip() or None
    if "json" in sample:
        try:
            known = json.loads(sample["json"])
        except ValueError:
            return None
        if isinstance(known, dict):
            return next((known[key] for key in LABEL_KEYS if isinstance(known.get(key), str | int)), None)
        return known if isinstance(known, str | int) else None
    return None


def _num_pictures(path: Path) -> int:
    """How many pictures a tar holds, from its table of contents; of a damaged one, those before the damage."""
    num = 0
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                num += f".{_key(member)[1].rpartition('.')[2]}" in SUFFIXES
    except (tarfile.TarError, EOFError, OSError, zlib.error):
        return num + 1
    return num
