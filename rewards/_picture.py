"""Picture arithmetic that several rewards share; differentiable everywhere, on every device."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def root(squared: Tensor, softness: float = 1e-3) -> Tensor:
    """Square root of values >= 0 with slope 0 instead of infinity at 0: sqrt(x + s^2) - s.

    >>> root(torch.tensor([0.0, 4.0]))
    tensor([0.0000, 1.9990])
    """
    return (squared + softness**2).sqrt() - softness


def slopes(channels: Tensor) -> tuple[Tensor, Tensor]:
    """(..., H, W) -> differences to the right and lower neighbour, 0 at the border; same shape.

    >>> slopes(torch.tensor([[0.0, 1.0], [2.0, 4.0]]))[0]
    tensor([[1., 0.],
        [2., 0.]])
    """
    right, down = torch.zeros_like(channels), torch.zeros_like(channels)
    right[..., :, :-1] = channels[..., :, 1:] - channels[..., :, :-1]
    down[..., :-1, :] = channels[..., 1:, :] - channels[..., :-1, :]
    return right, down


def grid(channels: Tensor, height: int, width: int) -> Tensor:
    """(...,H,W) -> (...,height,width), each cell the exact mean of the area that it covers.

    >>> grid(torch.tensor([[0.0, 1.0], [2.0, 3.0]]), 1, 2)
    tensor([[1., 2.]])
    """
    rows = _areas(channels.shape[-2], height).to(channels)
    columns = _areas(channels.shape[-1], width).to(channels)
    return rows @ channels @ columns.mT


def correlation(one: Tensor, other: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Pearson correlation over `dims`, in [-1, 1]; 0 where one is flat.

    >>> correlation(torch.tensor([0.0, 1.0]), torch.tensor([1.0, 0.0]), (0,))
    tensor(-1.0000)
    """
    one, other = one - one.mean(dims, keepdim=True), other - other.mean(dims, keepdim=True)
    spread = (one.square().mean(dims) + 1e-6) * (other.square().mean(dims) + 1e-6)
    return (one * other).mean(dims) / spread.sqrt()


@lru_cache(maxsize=32)
def _areas(length: int, cells: int) -> Tensor:
    """(cells, length): the share of each cell that each pixel covers; rows sum to 1."""
    with torch.inference_mode(False):
        edges = torch.arange(cells + 1, dtype=torch.float64) * (length / cells)
        pixels = torch.arange(length, dtype=torch.float64)
        upper = torch.minimum(edges[1:, None], pixels + 1)
        covered = (upper - torch.maximum(edges[:-1, None], pixels)).clamp(min=0)
        return covered / covered.sum(dim=1, keepdim=True)
