"""Rewards that count bytes or colours, against Pillow and numpy."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from ComfyUI_DNO.rewards import FileSize, JPEGCompressibility, JPEGIncompressibility, PaletteSize

from ..support.examples import picture


def size(image, **options):
    """Bytes of the first image as a file."""
    levels = (image[0].movedim(0, -1).numpy() * 255).round().astype(np.uint8)
    file = BytesIO()
    Image.fromarray(levels).save(file, **options)
    return len(file.getvalue())


@pytest.mark.parametrize("quality", [10, 75, 95])
def test_jpeg_size_is_pillows_in_thousands_of_bytes(quality):
    image = picture(1, 64, 48)
    expected = size(image, format="JPEG", quality=quality) / 1000
    assert JPEGCompressibility(quality)(image).item() == pytest.approx(-expected)
    assert JPEGIncompressibility(quality)(image).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    "name, options",
    [("PNG", {"format": "PNG"}), ("WebP lossless", {"format": "WebP", "lossless": True})],
)
def test_file_size_is_the_distance_from_the_target(name, options):
    image = picture(1, 64, 48)
    expected = size(image, **options) / 1000
    assert FileSize(name)(image).item() == pytest.approx(-expected, rel=0.05)
    assert FileSize(name, target=100.0)(image).item() == pytest.approx(expected - 100, rel=0.01)


def test_noise_is_larger_than_a_smooth_picture():
    noise = torch.rand(1, 3, 64, 64)
    smooth = torch.nn.functional.interpolate(noise, scale_factor=4, mode="bilinear")[..., :64, :64]
    for reward in [JPEGCompressibility(), FileSize("PNG"), FileSize("WebP")]:
        assert reward(smooth) > reward(noise)


def test_palette_size_counts_colours_by_their_share():
    colours = torch.tensor([[0.1, 0.1, 0.1], [0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.9]])
    four = colours[torch.arange(256) % 4].T.reshape(1, 3, 16, 16)
    assert PaletteSize(4)(four).item() == pytest.approx(0, abs=1e-6)
    assert PaletteSize(1)(four).item() == pytest.approx(-2)
    assert PaletteSize(16)(four).item() == pytest.approx(-2)
    rare = four.clone()
    rare[:, :, 0, 0] = 0.5
    assert PaletteSize(4)(rare).item() > -0.1
