"""The noise of one image as one vector."""

from __future__ import annotations

import torch
from torch import Tensor

from ..dno.noise import Noise


def vector(noise: Noise) -> Tensor:
    """Noise -> (B,n): all numbers that are optimised, in fp32 or better.

    >>> vector(Noise(torch.zeros(2, 4, 8, 8))).shape
    torch.Size([2, 256])
    """
    parts = [leaf.flatten(1) for leaf in noise.leaves()] or [noise.initial.flatten(1)[:, :0]]
    return torch.cat(
        [part.to(torch.promote_types(part.dtype, torch.float32)) for part in parts], dim=1
    )
