"""How Qwen2-VL sees a picture: its image processor, with a gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .preprocess import CLIP_MEAN, CLIP_STD, resize

PATCH, MERGE, FRAMES = 14, 2, 2  # pixels a side; patches a side per token; a picture is shown twice
_LONGEST = 200  # of the sides' ratio


def fitted(height: int, width: int, pixels: int) -> tuple[int, int]:
    """The size nearest to this shape with at most `pixels`, at least where it was fewer: in 28s.

    Raises ValueError for a picture more than 200 times as long as wide.

    >>> fitted(480, 640, 256 * 28 * 28)
    (364, 504)
    """
    if max(height, width) > _LONGEST * min(height, width):
        raise ValueError(f"a picture of {width} x {height} is too long for Qwen2-VL; crop it.")
    unit = PATCH * MERGE
    rows, columns = max(1, round(height / unit)), max(1, round(width / unit))
    if rows * columns * unit**2 > pixels:
        beta = math.sqrt(height * width / pixels)
        rows, columns = math.floor(height / beta / unit), math.floor(width / beta / unit)
    elif rows * columns * unit**2 < pixels:
        beta = math.sqrt(pixels / (height * width))
        rows, columns = math.ceil(height * beta / unit), math.ceil(width * beta / unit)
    return rows * unit, columns * unit


def prepare(image: Tensor, pixels: int) -> tuple[Tensor, tuple[int, int]]:
    """(B,3,H,W) in [0,1] -> (B,patches,C*2*14*14) normalised, and the patches a column and a row.

    Patches of one token, 2x2, follow each other.

    >>> prepare(torch.rand(1, 3, 56, 84), 56 * 84)[0].shape
    torch.Size([1, 24, 1176])
    """
    image = resize(image, *fitted(image.shape[-2], image.shape[-1], pixels))
    mean, std = (image.new_tensor(v).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    rows, columns = image.shape[-2] // PATCH, image.shape[-1] // PATCH
    parts = ((image - mean) / std).reshape(
        -1, 3, rows // MERGE, MERGE, PATCH, columns // MERGE, MERGE, PATCH
    )
    patches = parts.permute(0, 2, 5, 3, 6, 1, 4, 7).unsqueeze(-3)
    patches = patches.expand(*patches.shape[:6], FRAMES, PATCH, PATCH)
    return patches.reshape(len(image), rows * columns, -1), (rows, columns)


def grids(count: int, shape: tuple[int, int], device: torch.device) -> Tensor:
    """(count,3): what the tower wants to know of each picture: 1 pair of frames, rows, columns.

    >>> grids(1, (4, 6), torch.device("cpu"))
    tensor([[1, 4, 6]])
    """
    return torch.tensor([[1, *shape]] * count, device=device)
