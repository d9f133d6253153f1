"""Writes episodes into a folder, shard by shard; what is killed goes on where it was."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from jepalab.data.episode_shards import META, Listing, plain_json, read_listing, write_shard
from jepalab.data.episodes import Episode

SHARD_BYTES = 2**26
SHARD_EPISODES = 1000


class EpisodeWriter:
    """Adds episodes to a folder, for `Episodes.open`; a context manager, one writer a folder at a time.

    A shard is written when the next episode would make it larger than `shard_bytes`, or it has `shard_episodes`, and
    when the block is left, by an error too. Until then its episodes are in memory, and lost by a kill; `len` says how
    many the folder has, so that a new writer can go on:

        with EpisodeWriter(folder, metadata={"environment": "TwoRooms", "policy": "random"}) as writer:
            for seed in range(len(writer), 1000):
                writer.add(play(seed))

    metadata  what all episodes share, as JSON; an episode's own comes on top of it.

    Raises:
        ValueError: the folder holds something else, or episodes that share other metadata.
        OSError: it cannot be written; what was there stays whole.
    """

    def __init__(
        self,
        folder: Path,
        *,
        metadata: Mapping[str, Any] | None = None,
        shard_bytes: int = SHARD_BYTES,
        shard_episodes: int = SHARD_EPISODES,
    ) -> None:
        self.folder, self.shard_bytes, self.shard_episodes = folder, shard_bytes, shard_episodes
        self._held: list[tuple[dict[str, np.ndarray], dict[str, Any]]] = []
        self._held_bytes, self._has_failed, self._has_changed = 0, False, False
        shared = plain_json("what all episodes share", metadata or {})
        self._had_folder = folder.exists()
        left_by_a_kill = [*folder.glob(".*.safetensors.partial-*"), *folder.glob(f".{META}.partial-*")]
        if (folder / META).exists():
            self._listing = read_listing(folder)
            known = self._listing.metadata
            if metadata is not None and known != shared:
                raise ValueError(f"{folder} holds episodes of {known}, these are of {shared}; choose another folder.")
        elif self._had_folder and (not folder.is_dir() or {*folder.iterdir()} - {*left_by_a_kill}):
            raise ValueError(f"Wanted a new or an empty folder, or one of episodes, got {folder}; choose another.")
        else:
            self._listing = Listing(shared)
            # At once, so that a folder is known as one of episodes before its first shard is there.
            folder.mkdir(parents=True, exist_ok=True)
            self._listing.write(folder)
        for partial in left_by_a_kill:
            partial.unlink()

    def __len__(self) -> int:
        """Episodes written, and those held for the next shard."""
        return self._listing.num_episodes + len(self._held)

    @property
    def skipped(self) -> dict[str, str]:
        """What was left out so far, and why."""
        return dict(self._listing.skipped)

    def check(self, episode: Episode) -> None:
        """ValueError unless an episode has the same columns as those before it, and metadata that JSON can hold."""
        wanted, found = self._listing.columns or episode.layout, episode.layout
        if found != wanted:
            differing = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
            some = "; ".join(f"{n}: {tuple(wanted.get(n, ()))}, now {tuple(found.get(n, ()))}" for n in differing)
            raise ValueError(f"The episodes before this one have other columns ({some}); write it into another folder.")
        plain_json("an episode's", episode.metadata)

    def add(self, episode: Episode) -> None:
        """Adds a copy of an episode.

        Raises:
            ValueError: it has other columns than those before it, or metadata that JSON cannot hold.
            OSError: a shard could not be written; the error says how many episodes are whole.
        """
        self.check(episode)
        num_bytes = sum(values.nbytes for values in episode.columns.values())
        if self._held and self._held_bytes + num_bytes > self.shard_bytes:
            self.flush()
        self._listing.columns = self._listing.columns or episode.layout
        shared, own = self._listing.metadata, plain_json("an episode's", episode.metadata)
        own = {name: value for name, value in own.items() if name not in shared or shared[name] != value}
        # Environments like to write into the same arrays again.
        columns = {name: np.array(episode.columns[name], order="C") for name in self._listing.columns}
        self._held.append((columns, own))
        self._held_bytes += num_bytes
        if len(self._held) >= self.shard_episodes or self._held_bytes >= self.shard_bytes:
            self.flush()

    def skip(self, name: str, *, why: str) -> None:
        """Notes that something was left out, for `Episodes.skipped`."""
        self._listing.skipped[name] = why
        self._has_changed = True

    def flush(self) -> None:
        """Writes the episodes that are held as a shard; OSError, with nothing half-written, where that fails."""
        if not self._held:
            return
        num_bytes, num = self._held_bytes, self._listing.num_episodes
        file = f"{len(self._listing.shards):05d}.safetensors"
        try:
            shard = write_shard(self.folder, file=file, episodes=self._held)
            self._listing.shards.append(shard)
            try:
                self._listing.write(self.folder)
            except OSError:
                self._listing.shards.pop()
                (self.folder / file).unlink()
                raise
        except OSError as error:
            self._has_failed = True
            raise OSError(
                error.errno,
                f"Could not write {num_bytes / 1e6:,.1f} MB of episodes ({error.strerror or error}); the {num} before "
                "them are whole. Make room, and go on with a new writer",
                str(self.folder / file),
            ) from error
        self._held, self._held_bytes, self._has_failed, self._has_changed = [], 0, False, False

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if not self._has_failed:
                self.flush()
                if self._has_changed and self._listing.shards:
                    self._listing.write(self.folder)
        finally:
            if not self._listing.shards:
                (self.folder / META).unlink(missing_ok=True)
                if not self._had_folder:
                    with suppress(OSError):
                        self.folder.rmdir()
