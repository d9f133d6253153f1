"""Observations with classes and splits: still pictures, clips or series, behind one face for streams and probes."""

from __future__ import annotations

import json
import mmap
import os
import re
import sys
import weakref
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, Int8, Shaped
from torch import Tensor

from jepalab.data.sprites import SPLITS, Split

NUM_FOR_STATISTICS = 5000
# Kinds of files, or of reasons, that are counted in one sentence.
NUM_KINDS = 8


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Samples(ABC):
    """n observations of one shape, as they are stored, with their classes and splits.

    stored   [n ...] in memory or memory-mapped: what `read` returns rows of.
    labels   [n] indices into `names`; -1 unlabelled.
    names    of the classes; none where nothing is labelled.
    splits   [n] 0 train, 1 validation, 2 test; -1 in none of them, or where they were opened for what needs none.
    skipped  items that could not be read, and why.
    copies   items in no split, as copies of what is held out, and of which item.
    unread   files of kinds that are not read here, counted by suffix.
    digest   sha256 of what is stored, and of the labels.
    source   what they were read from, in words.
    listing  a JSON file with the items' names; None where they are called 0, 1, 2, ...
    units    [n] equal numbers belong together and lie in one split; None where each observation stands for itself.
    unit     what they are, in a word: group, video, recording, ...
    """

    labels: Int[Tensor, " n"]
    names: list[str]
    splits: Int8[Tensor, " n"]
    skipped: dict[str, str]
    digest: str
    source: str
    listing: Path | None = None
    copies: Mapping[str, str] = field(default_factory=dict)
    unread: Mapping[str, int] = field(default_factory=dict)
    units: Int[Tensor, " n"] | None = None
    unit: str = "sample"

    @property
    @abstractmethod
    def stored(self) -> Shaped[np.ndarray, "n ..."]: ...

    @property
    @abstractmethod
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one observation as a network reads it: (t, c, h, w), or (t, c) of a series."""

    @abstractmethod
    def as_floats(self, rows: Shaped[Tensor, "m ..."]) -> Float[Tensor, "m t *obs"]:
        """What `read` returned, on any device, as a network reads it: pictures in [0, 1], series in their own units."""

    @abstractmethod
    def describe(self) -> str:
        """One paragraph: how many, of what, in which splits, what is missing."""

    def __repr__(self) -> str:
        """What they are, in a sentence: their arrays and names would fill the screen."""
        return f"<{type(self).__name__}: {self.describe()}>"

    def __len__(self) -> int:
        return len(self.stored)

    @property
    def num_classes(self) -> int:
        return len(self.names)

    @property
    def num_times(self) -> int:
        """Frames of a clip, rows of a series; a still picture has one."""
        return self.sample_shape[0]

    @property
    def channels(self) -> int:
        return self.sample_shape[1]

    def indices(self, split: Split) -> Int[Tensor, " m"]:
        """Which observations belong to a split, ascending."""
        return (self.splits == SPLITS.index(split)).nonzero().flatten()

    def num_units(self, index: Int[Tensor, " m"]) -> int:
        """How many of these observations are independent: what was taken of one group or video counts once."""
        return len(index) if self.units is None else len(self.units[index].unique())

    def read(self, index: Int[Tensor, " m"]) -> Shaped[Tensor, "m ..."]:
        """The observations at these places as they are stored, copied.

        Read from the file where there is one: pages of a map that were touched would count as this process's memory.
        """
        if self._mapped is None:
            return torch.from_numpy(np.take(self.stored, index.cpu().numpy(), axis=0))
        file, offset = self._mapped
        found = np.empty((len(index), *self.stored.shape[1:]), dtype=self.stored.dtype)
        flat = found.reshape(len(index), -1)
        places, num_bytes = index.tolist(), flat[:1].nbytes
        # In ascending order a disk is read forwards.
        for row in sorted(range(len(places)), key=places.__getitem__):
            start = offset + places[row] * num_bytes
            flat[row] = np.frombuffer(os.pread(file, num_bytes, start), dtype=self.stored.dtype)
        return torch.from_numpy(found)

    @cached_property
    def _mapped(self) -> tuple[int, int] | None:
        """An open file that `stored` maps, and where in it they begin; None for arrays in memory, and on Windows."""
        stored = self.stored
        if sys.platform == "win32" or not isinstance(stored, np.memmap) or not isinstance(stored.base, mmap.mmap):
            return None
        if stored.filename is None or not stored.flags.c_contiguous:
            return None
        # Opened once: a cache that is cleared during a run stays readable to the end of it.
        descriptor = os.open(stored.filename, os.O_RDONLY)
        weakref.finalize(self, os.close, descriptor)
        return descriptor, stored.offset

    def item_names(self) -> list[str]:
        """What the source calls each observation."""
        return names_of(self.listing, len(self))

    def mean_std(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel, over observations of the train split with about 5,000 times.

        Rows of a series are small and many: of a window, all count as one.
        """
        train = self.indices("train")
        num = NUM_FOR_STATISTICS if len(self.sample_shape) == 2 else max(1, NUM_FOR_STATISTICS // self.num_times)
        chosen = train[torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:num]]
        values = self.as_floats(self.read(chosen)).double().movedim(2, -1).flatten(0, -2)
        return values.mean(0).tolist(), values.std(0, correction=0).tolist()

    def facts(self, noun: str) -> list[str]:
        """What `describe` says of any kind of observations: classes, splits, what is missing."""
        parts = [f"{split} {(self.splits == i).sum():,}" for i, split in enumerate(SPLITS)]
        parts = ["in no split"] if (self.splits < 0).all() else parts
        unlabelled = int((self.labels < 0).sum())
        lines = []
        if self.names:
            counts = self.labels[self.labels >= 0].bincount(minlength=self.num_classes)
            shown = ", ".join(self.names[:10]) + (", ..." if self.num_classes > 10 else "")
            lines.append(f"{self.num_classes} classes of {counts.min():,} to {counts.max():,} {noun} ({shown})")
        lines.append(", ".join(parts))
        if unlabelled:
            lines.append(f"{unlabelled:,} without a label")
        if self.num_classes == 1:
            lines.append("there is one class only, so nothing can be learned about classes")
        if self.skipped:
            first, why = next(iter(self.skipped.items()))
            lines.append(f"{len(self.skipped):,} could not be read and are left out, the first: {first} ({why})")
            lines.append(f"reasons: {_counted(_reasons(self.skipped))}")
        if self.copies:
            first, whose = next(iter(self.copies.items()))
            lines.append(
                f"{len(self.copies):,} are copies of what is held out and take no part, the first: {first} (of {whose})"
            )
        if self.unread:
            num = sum(self.unread.values())
            plural = "s" * (num > 1)
            lines.append(f"{num:,} file{plural} of kinds that are not read: {_counted(self.unread)}")
        return lines

    def left_out(self) -> str:
        """A line for each item that is left out, with its reason, and one for each kind of file that is not read."""
        lines = [f"{name}: {why}" for name, why in self.skipped.items()]
        lines += [f"{name}: a copy of {whose}, which is held out" for name, whose in self.copies.items()]
        kinds = self.unread.items()
        lines += [f"{num} file{'s' * (num > 1)} {suffix}: a kind that is not read" for suffix, num in kinds]
        return "".join(f"{line}\n" for line in lines)


def names_of(listing: Path | None, num: int) -> list[str]:
    """The names in a listing; 0, 1, 2, ... where there is none."""
    return [str(i) for i in range(num)] if listing is None else json.loads(listing.read_text(encoding="utf-8"))


def _reasons(skipped: Mapping[str, str]) -> Counter[str]:
    """How many items were left out for each kind of reason, which is its words up to what is one item's own."""
    plain = (re.sub(r"^\w+(Error|Warning): ", "", why) for why in skipped.values())
    return Counter(re.sub(r"\d[\d.,]*", "N", re.split(r"[:(,]", why)[0]).strip() or "unknown" for why in plain)


def _counted(kinds: Mapping[str, int]) -> str:
    shown = sorted(kinds.items(), key=lambda pair: (-pair[1], pair[0]))
    more = len(shown) - NUM_KINDS
    return ", ".join(f"{kind} {num:,}" for kind, num in shown[:NUM_KINDS]) + (f", {more} more" if more > 0 else "")
