"""Row moments of shuffled vectors, at O(n) memory and with the backward of the active ones only."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

_SEED = 2405_18881


def moments(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """(B,n) cut into m = n // k rows of k -> their mean (B,k) and mean outer product (B,k,k).

    >>> moments(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), 2)[0]
    tensor([[2., 3.]])
    """
    cut = _cut(rows, k)
    return cut.mean(dim=1), cut.mT @ cut / cut.shape[1]


def shuffled_moments(
    rows: Tensor, k: int, permutations: int, owner: object = None
) -> tuple[Tensor, Tensor]:
    """(B,n) -> `moments` under each of b permutations of the n numbers: (B,b,k) and (B,b,k,k).

    owner: whose numbers they are; the shuffles stay on their device as long as it lives.

    s stored shuffles, composed in pairs, give s (s - 1) permutations. Each is uniformly
    distributed and any two are independent, so a mean over them has the expectation and the
    variance of a mean over independent draws, at a tenth of the indices for b = 100.

    >>> shuffled_moments(torch.ones(1, 8), 2, 3)[0].shape
    torch.Size([1, 3, 2])
    """
    return _ShuffledMoments.apply(rows, k, permutations, owner)


def _cut(rows: Tensor, k: int) -> Tensor:
    m = rows.shape[1] // k
    return rows[:, : m * k].reshape(rows.shape[0], m, k)


@lru_cache(maxsize=2)
def _shuffles(n: int, count: int) -> tuple[Tensor, Tensor]:
    """(count,n) int32 shuffles of range(n) and their inverses, on the CPU; fixed by n and count."""
    generator = torch.Generator().manual_seed(_SEED)
    forth = torch.stack([torch.randperm(n, generator=generator).int() for _ in range(count)])
    order = torch.arange(n, dtype=torch.int32).expand(count, -1)
    return forth, torch.empty_like(forth).scatter_(1, forth.long(), order)


_moved: WeakKeyDictionary[object, dict[tuple, Tensor]] = WeakKeyDictionary()


def _there(which: tuple[object, torch.device, int, int], way: int) -> Tensor:
    """One of the two of `_shuffles`, on a device; moved once for an owner, and gone with it."""
    owner, device, n, count = which
    shuffle = _shuffles(n, count)[way]
    if owner is None or device.type == "cpu":
        return shuffle.to(device)
    held = _moved.setdefault(owner, {})
    key = (device, n, count, way)
    if key not in held:
        held[key] = shuffle.to(device)
    return held[key]


def _pairs(permutations: int) -> dict[int, list[int]]:
    """First shuffle -> the second ones that complete it, `permutations` of them in all."""
    count, left, pairs = _count(permutations), permutations, {}
    for first in range(count):
        pairs[first] = [second for second in range(count) if second != first][:left]
        left -= len(pairs[first])
    return pairs


def _count(permutations: int) -> int:
    """The smallest s with s (s - 1) >= permutations."""
    return math.ceil((1 + math.sqrt(1 + 4 * permutations)) / 2)


class _ShuffledMoments(torch.autograd.Function):
    """One permutation at a time, forth and back: a plain gather of all would keep b n numbers."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, k: int, permutations: int, owner: object
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(rows)
        ctx.k, ctx.pairs = k, _pairs(permutations)
        ctx.which = owner, rows.device, rows.shape[1], len(ctx.pairs)
        forth = _there(ctx.which, 0)
        each = []
        for first, others in ctx.pairs.items():
            once = rows.index_select(1, forth[first])
            each += [moments(once.index_select(1, forth[other]), k) for other in others]
        means, seconds = zip(*each, strict=True)
        return torch.stack(means, dim=1), torch.stack(seconds, dim=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_mean: Tensor, grad_second: Tensor) -> tuple[Tensor | None, ...]:
        (rows,) = ctx.saved_tensors
        # d mean / d z_i = 1/m and d second / d z_i = (G + G^T) z_i / m
        symmetric = grad_second + grad_second.mT
        active = (grad_mean.abs().amax((0, 2)) + symmetric.abs().amax((0, 2, 3)) > 0).tolist()
        total, b = torch.zeros_like(rows), 0
        if not any(active):
            return total, None, None, None
        forth, back = (_there(ctx.which, way) for way in (0, 1))
        for first, others in ctx.pairs.items():
            once, collected = rows.index_select(1, forth[first]), torch.zeros_like(rows)
            for other in others:
                if active[b]:  # inside the typical set there is no gradient, and most often all are
                    cut = _cut(once.index_select(1, forth[other]), ctx.k)
                    gradient = (grad_mean[:, None, b] + cut @ symmetric[:, b]) / cut.shape[1]
                    remainder = rows.shape[1] - cut.shape[1] * ctx.k
                    gradient = torch.nn.functional.pad(gradient.flatten(1), (0, remainder))
                    collected += gradient.index_select(1, back[other])
                b += 1
            total += collected.index_select(1, back[first])
        return total, None, None, None
