"""Fixtures every test may ask for."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def generator(request: pytest.FixtureRequest) -> torch.Generator:
    """A generator seeded by the test's own name: the same numbers in any order, on any worker, next to any test."""
    return torch.Generator().manual_seed(zlib.crc32(request.node.name.encode()))


@pytest.fixture
def jepalab_data() -> Path:
    """The folder with real data sets that $JEPALAB_DATA names."""
    folder = os.environ.get("JEPALAB_DATA")
    if folder is None:
        pytest.skip("JEPALAB_DATA names no folder with data sets")
    return Path(folder)
