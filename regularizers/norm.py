from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..dno.noise import Noise
from ..dno.objective import Regularizer
from ._vector import vector


@dataclass(frozen=True)
class Norm(Regularizer):
    """Keeps the length of the noise where a Gaussian's would be.

    ReNO, arXiv 2406.04312, equation 6: the logarithm of the density of the length r = || z || of n
    normal numbers, (n - 1) log r - r^2 / 2, less its largest value, which is at r^2 = n - 1. In
    nats: 0 there, about -0.5 for fresh noise, and minus the square of the deviation of r beyond.
    ReNO's weight is 0.01. It sees the length alone: what the noise looks like is left to others.

    >>> Norm()(Noise(torch.full((1, 4, 8, 8), 2.0))).item() < -200
    True
    """

    aliases = ("ReNO", "length", "protect", "gentle")
    keeps = "the length of the noise"
    source = "ReNO, arXiv 2406.04312, equation 6"

    def __call__(self, noise: Noise) -> Tensor:
        """Noise -> (B,), 0 or less."""
        rows = vector(noise)
        free = max(rows.shape[1] - 1, 1)
        ratio = (rows.square().sum(dim=1) / free).clamp(min=1e-6)
        return free / 2 * (ratio.log() + 1 - ratio)

    @torch.no_grad()
    def indicator(self, noise: Noise) -> Tensor:
        """(B,): the length in lengths of a Gaussian's, 1 for fresh noise."""
        rows = vector(noise)
        return rows.norm(dim=1) / math.sqrt(max(rows.shape[1], 1))
