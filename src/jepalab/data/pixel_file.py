"""A file of pictures or clips that grows as they are decoded, in numpy's format, whatever their number and colour."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from jaxtyping import UInt8


class PixelFile:
    """A .npy file of bytes that grows row by row, grey until the first coloured one.

    Written, not mapped: on a full disk a write is an error, while a store into a map kills the process.

    shape  of a row without its channels: (h, w) of pictures, (t, h, w) of clips.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self.path, self.shape, self.channels, self.num = path, shape, 1, 0
        self.file = path.open("w+b")
        self.file.write(self._header())

    def append(self, row: UInt8[np.ndarray, "*shape c"]) -> None:
        if row.shape[-1] > self.channels:
            self._become_coloured()
        self.file.write(np.broadcast_to(row, (*self.shape, self.channels)).tobytes())
        self.num += 1

    def __enter__(self) -> PixelFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.file.seek(0)
                self.file.write(self._header())
                self.file.flush()
                os.fsync(self.file.fileno())
        finally:
            self.file.close()

    def _header(self) -> bytes:
        """numpy leaves room for the number of rows, so a header's length does not depend on it."""
        file = io.BytesIO()
        shape = (self.num, *self.shape, self.channels)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        return file.getvalue()

    def _become_coloured(self) -> None:
        grey, coloured, self.channels = self.file, self.path.with_suffix(".coloured"), 3
        grey.seek(len(self._header()))
        with grey, coloured.open("wb") as file:
            file.write(self._header())
            while block := grey.read(2**20):
                file.write(np.frombuffer(block, dtype=np.uint8).repeat(3).tobytes())
        coloured.replace(self.path)  # Windows renames closed files alone
        self.file = self.path.open("r+b")
        self.file.seek(0, os.SEEK_END)
