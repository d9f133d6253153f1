"""The floor of pooled pixels: averages of cells, in one embedding a frame."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jepalab.backbones.pooled import PooledPixels
from jepalab.hub.encoders import load_encoder, save_encoder
from jepalab.instruments.matching import read_shape


def test_each_number_is_the_average_of_its_cell(generator: torch.Generator) -> None:
    x = torch.rand(2, 3, 3, 32, 32, generator=generator)
    encoder = PooledPixels((3, 32, 32))
    z = encoder(x)
    assert z.shape == (2, 3, encoder.dim) == (2, 3, 192)
    cells = z.reshape(2, 3, 3, 8, 8)
    assert torch.allclose(cells[1, 2, 0, 7, 2], x[1, 2, 0, 28:32, 8:12].mean())
    assert torch.equal(encoder(x, torch.tensor([[2], [0]])), torch.stack([z[0, 2:], z[1, :1]]))


def test_it_comes_back_from_a_folder_and_says_what_it_reads(tmp_path: Path, generator: torch.Generator) -> None:
    encoder = PooledPixels((1, 16, 16), grid=4)
    save_encoder(encoder, tmp_path)
    x = torch.rand(2, 1, 1, 16, 16, generator=generator)
    again = load_encoder(tmp_path)
    assert torch.equal(again(x), encoder(x))
    assert read_shape(again) == (1, 1, 16, 16)


def test_more_cells_than_pixels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"4 x 4 pixels has no 8 x 8 cells"):
        PooledPixels((3, 4, 4))
