"""Between two noises, along the arc that keeps them Gaussian."""

from __future__ import annotations

import torch
from torch import Tensor


def slerp(first: Tensor, second: Tensor, fraction: float) -> Tensor:
    """(B,...) between two of that shape, along the arc between them; a line where they coincide."""
    if first.shape != second.shape:
        raise ValueError(
            f"first has shape {tuple(first.shape)} and second {tuple(second.shape)}: mix noise of "
            "one size."
        )
    a, b = first.flatten(1).double(), second.flatten(1).double()
    cosine = torch.nn.functional.cosine_similarity(a, b, dim=1).clamp(-1, 1)[:, None]
    angle = cosine.acos()
    turned = ((1 - fraction) * angle).sin() * a + (fraction * angle).sin() * b
    line = (1 - fraction) * a + fraction * b
    mixed = torch.where(angle.sin() > 1e-6, turned / angle.sin().clamp(min=1e-6), line)
    return mixed.reshape(first.shape).to(first.dtype)
