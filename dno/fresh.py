"""Noise of the same shapes drawn anew, by seed, index and image alone."""

from __future__ import annotations

import torch
from torch import Tensor

from .noise import Noise


def generators(seed: int, index: int, batch: int) -> list[torch.Generator]:
    """One for each image of the batch: image i draws the same in any batch."""
    return [
        torch.Generator().manual_seed((seed + 7919 * index + 1_000_003 * image) % 2**63)
        for image in range(batch)
    ]


def fresh(noise: Noise, seed: int, index: int, initial: bool = True) -> Noise:
    """The optimised tensors drawn anew; `initial` false: the injected ones alone."""
    own = generators(seed, index, len(noise.initial))

    def draw(like: Tensor) -> Tensor:
        if not like.requires_grad or (like is noise.initial and not initial):
            return like
        return torch.stack([torch.randn(like[0].shape, generator=g) for g in own]).to(like)

    tensors = [draw(tensor) for tensor in noise.tensors()]
    return Noise(tensors[0], tensors[1:], noise.scope)
