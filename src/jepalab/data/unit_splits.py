"""Splits that never cut through what belongs together: all of a person, a video or a recording is on one side."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, Int8, UInt64

# A fifth, not the tenth of pictures: subjects and recordings are few.
HELD_OUT = 0.2


def number_of(content: bytes | np.ndarray) -> int:
    """A number of 64 bits, equal for equal content."""
    plain = content if isinstance(content, bytes) else np.ascontiguousarray(content).tobytes()
    return int.from_bytes(hashlib.blake2b(plain, digest_size=8).digest(), "little")


def units_of(
    groups: Sequence[str | None], hashes: UInt64[np.ndarray, " n"], own: Int[np.ndarray, " n"]
) -> UInt64[np.ndarray, " n"]:
    """A number for each observation, equal in a group and for copies; copies join the groups that they lie in.

    groups  of each; None for none.
    hashes  of each one's content: equal for copies.
    own     the source's own splits; copies in two of these join nothing (see `leave_copies_out`).
    """
    parents: dict[tuple[int, int, str], tuple[int, int, str]] = {}

    def first(key: tuple[int, int, str]) -> tuple[int, int, str]:
        """The smallest key of all that are joined with this one: a group's, where there is one."""
        while (parent := parents.setdefault(key, key)) != key:
            key = parent
        return key

    contents = [(1 + max(0, split), code, "") for split, code in zip(own.tolist(), hashes.tolist(), strict=True)]
    for name, content in zip(groups, contents, strict=True):
        low, high = sorted((first(content), first(content if name is None else (0, 0, name))))
        parents[high] = low

    def number(key: tuple[int, int, str]) -> int:
        place, code, name = key
        return code if place == 1 else number_of(name.encode() if place == 0 else f"{code} {place}".encode())

    return np.array([number(first(content)) for content in contents], dtype="<u8")


def leave_copies_out(
    splits: Int8[np.ndarray, " n"], hashes: UInt64[np.ndarray, " n"]
) -> tuple[Int8[np.ndarray, " n"], dict[int, int]]:
    """The splits with no content in two of them: copies of what tests, or else validates, are in none, -1.

    They may lie in another class, be unlabelled, or lie in another of the source's own splits. Also says of which held
    out observation each of these is a copy.
    """
    _, first, place = np.unique(hashes, return_index=True, return_inverse=True)
    most = np.full(len(first), -1, dtype=np.int8)
    np.maximum.at(most, place, splits)
    left = np.flatnonzero(splits < most[place])
    stays = np.flatnonzero(splits == most[place])[::-1]
    first[place[stays]] = stays  # of several, the first
    return np.where(splits < most[place], np.int8(-1), splits), {int(i): int(first[place[i]]) for i in left}


def assign_unit_splits(
    units: UInt64[np.ndarray, " n"],
    *,
    codes: Int[np.ndarray, " n"],
    names: list[str],
    own: Int[np.ndarray, " n"],
    items: list[str],
    unit: str,
    title: str,
    seed: int,
) -> Int8[np.ndarray, " n"]:
    """0 train, 1 validation, 2 test for each observation; what belongs together shares a split.

    units  [n] equal numbers belong together; `unit` is what they are, in a word: group, recording, ...
    codes  [n] classes, indices into `names`; -1 for none.
    own    [n] the source's own split, -1 where it has none.
    items  what the source calls each observation; `title` what the source itself is called.

    A source's own test split stays the test split, or its own validation split where it has no test; validation is its
    own, or a fifth of the rest. Without one, a fifth tests and a fifth validates. A fifth is one of the units that hold
    a class, for each class, the rarest first; their numbers decide with the seed. What holds no class trains, unless
    nothing is labelled: then all are one class here.

    Raises:
        ValueError: a unit lies in two of the source's own splits, or a class in too few units.
    """
    distinct, first, place = np.unique(units, return_index=True, return_inverse=True)
    own = np.maximum(own, 0)
    splits = own[first].astype(np.int8)
    if len(torn := np.flatnonzero(splits[place] != own)):
        raise ValueError(
            f"The {unit} of {items[torn[0]]} lies in two splits of {title}, so that testing would be "
            "on what was trained on; move its files together."
        )
    has_test, has_validation = bool((splits == 2).any()), bool((splits == 1).any())
    if has_validation and not has_test:
        splits[splits == 1] = 2
    to_draw = [] if has_test and has_validation else [1] if has_test or has_validation else [1, 2]
    is_free = splits == 0
    strata = codes if names else np.zeros_like(codes)
    spoken = [f"class {name!r}" for name in names] or ["the unlabelled set"]
    holds = np.zeros((len(distinct), len(spoken)), dtype=bool)
    holds[place[strata >= 0], strata[strata >= 0]] = True
    order = np.array(sorted(range(len(distinct)), key=lambda i: number_of(f"{seed} {distinct[i]}".encode())))
    for stratum in np.argsort((holds & is_free[:, None]).sum(axis=0), kind="stable"):
        holders = order[(holds[:, stratum] & is_free)[order]]
        num = max(1, round(HELD_OUT * len(holders)))
        for split in to_draw:
            rest = holders[splits[holders] == 0]
            # One is left for training, always.
            wanted = min(num - int((splits[holders] == split).sum()), len(rest) - 1)
            splits[rest[: max(0, wanted)]] = split
        if not set(splits[holders].tolist()) >= {0, *to_draw}:
            raise ValueError(
                f"Of {title}, {spoken[stratum]} is in {len(holders)} {unit}(s) to train on and hold out, too "
                f"few for a split by {unit}; wanted at least {1 + len(to_draw)}, better 10. Record more, or "
                "leave the class out."
            )
    return splits[place]
