"""The projection of white Gaussian noise constraints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from .fields import Range
from .projections import Projection


@dataclass(frozen=True)
class BlockNorms(Projection):
    """White Gaussian noise constraints (WGNC, arXiv 2602.08646), in closed form.

    Each tensor of an image is one vector; its unitary DFT y is cut into blocks of B, and each block
    is moved to the nearest one with ||y||_1 = sqrt(pi)/2 B and ||y||_2^2 = B, the expectations for
    white noise: with w = |y| sorted, c = pi B / 4 and S1, S2 the sums of the k largest w and w^2,
        lambda = S1/k - sqrt(c (k S2 - S1^2) / (k - c)) / k,   w_{k+1} <= lambda < w_k,
        y' = sqrt(pi)/2 B max(w - lambda, 0) / sum max(w - lambda, 0) y/|y|.
    The two real coefficients of a real vector (mean and Nyquist) make one complex one here. A
    vector whose half length B does not divide ends in a shorter block; one number left over stays.
    """

    block: Annotated[int, Range(4, 4096, 1, "Coefficients per block; 16 in the paper.")] = 16

    @torch.no_grad()
    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [self._project(t.flatten(1)).reshape(t.shape).to(t.dtype) for t in tensors]

    def _project(self, rows: Tensor) -> Tensor:
        wide = rows.to(torch.promote_types(rows.dtype, torch.float32))
        packed = _pack(wide[:, : wide.shape[1] // 2 * 2])
        count = packed.shape[1] // self.block * self.block
        blocks = packed[:, :count].reshape(len(rows), -1, self.block)
        parts = [_to_block_norms(blocks).flatten(1)]
        if packed.shape[1] - count > 1:
            parts.append(_to_block_norms(packed[:, None, count:])[:, 0])
        else:
            parts.append(packed[:, count:])
        return torch.cat([_unpack(torch.cat(parts, 1)), wide[:, wide.shape[1] // 2 * 2 :]], 1)


def _pack(rows: Tensor) -> Tensor:
    """Real (B,n), n even -> n/2 complex coefficients of mean square 1 for white noise."""
    spectrum = torch.fft.rfft(rows, norm="ortho")
    ends = torch.complex(spectrum[:, :1].real, spectrum[:, -1:].real) / math.sqrt(2)
    return torch.cat([ends, spectrum[:, 1:-1]], 1)


def _unpack(packed: Tensor) -> Tensor:
    ends = packed[:, :1] * math.sqrt(2)
    first, last = (torch.complex(part, torch.zeros_like(part)) for part in (ends.real, ends.imag))
    return torch.fft.irfft(torch.cat([first, packed[:, 1:], last], 1), norm="ortho")


def _to_block_norms(blocks: Tensor) -> Tensor:
    """(...,B) complex -> the nearest with the two norms; blocks of zeros stay."""
    size = blocks.shape[-1]
    largest = blocks.abs().amax(-1, keepdim=True)
    blocks = blocks / torch.where(largest > 0, largest, torch.ones_like(largest))
    length, c = blocks.abs(), math.pi * size / 4
    w = length.sort(-1, descending=True).values
    k = torch.arange(1, size + 1, device=w.device, dtype=w.dtype)
    s1, s2 = w.cumsum(-1), w.square().cumsum(-1)
    inner = (c * (k * s2 - s1.square()).clamp(min=0) / (k - c).clamp(min=1e-12)).sqrt()
    lam = (s1 - inner) / k
    following = torch.cat([w[..., 1:], torch.full_like(w[..., :1], -math.inf)], -1)
    fits = (k > c) & (following <= lam) & (lam < w)
    chosen = fits.to(w.dtype).argmax(-1, keepdim=True)
    kept = (length - lam.gather(-1, chosen)).clamp(min=0)
    total = kept.sum(-1, keepdim=True)
    even = torch.where(total > 0, kept / total.clamp(min=1e-30), length / size)  # all alike
    target = math.sqrt(math.pi) / 2 * size * even
    return torch.where(length > 0, target / length.clamp(min=1e-30), 0 * target) * blocks
