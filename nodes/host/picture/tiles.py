"""Decoding in overlapping tiles, one graph at a time, blended as ComfyUI's tiled decode does.

A decoder's normalisations look at the whole picture, here at a tile: pictures and gradients are
close to those of the whole, not equal. The gradient is blended as the picture is, not taken of the
blend: backward, a normalisation subtracts means of what comes in, and those of a tile that fades
towards its edges are too small (SDXL's decoder: cosine .95 to the whole's gradient, not above .99).
One image of a batch after the other is exact.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Decode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Tiles:
    """Tiles of height x width latent numbers that overlap by `overlap`; pixels `scale` times that.

    Callable on a decoder, from latents (B,C,...,h,w) to (B,3,H,W), and latents. With `before` it is
    tiles of what that makes of latents as a whole, (B,F,...,h,w), that are decoded.
    """

    height: int
    width: int
    overlap: int
    scale: int

    def __call__(self, decode: Decode, latent: Tensor, before: Decode | None = None) -> Tensor:
        return _Tiled.apply(self, decode, before, latent)

    def finer(self, ratio: int) -> Tiles:
        """The same tiles of what has `ratio` numbers a side to one latent number."""
        sides = (ratio * side for side in (self.height, self.width, self.overlap))
        return Tiles(*sides, self.scale // ratio)

    def spans(self, latent: Tensor) -> Iterator[tuple[slice, slice, slice]]:
        """Image, rows and columns of each tile."""
        rows, columns = (
            _spans(side, tile, self.overlap)
            for side, tile in zip(latent.shape[-2:], (self.height, self.width), strict=True)
        )
        images = (slice(i, i + 1) for i in range(len(latent)))
        return itertools.product(images, rows, columns)

    def pixels(self, span: tuple[slice, slice, slice]) -> tuple:
        """Where in the picture a tile lies."""
        image, *sides = span
        return image, ..., *(slice(s.start * self.scale, s.stop * self.scale) for s in sides)

    def mask(self, like: Tensor, scale: int) -> Tensor:
        """The weights of a tile: 1, and falling towards its edges over the overlap.

        scale: what `like` has to one latent number: 1 for latents, the tiles' own for pictures.
        """
        feather, sides = self.overlap * scale, []
        for length in like.shape[-2:]:
            side = torch.ones(length, device=like.device, dtype=like.dtype)
            if feather < length:
                ramp = torch.arange(1, feather + 1, device=like.device).to(like) / feather
                side[:feather] *= ramp
                side[length - feather :] *= ramp.flip(0)
            sides.append(side)
        return sides[0][:, None] * sides[1]


def split(side: int, tiles: int, overlap: int) -> int:
    """How long each of so many tiles has to be along a side."""
    return min(side, math.ceil((side + (tiles - 1) * overlap) / tiles))


def _spans(side: int, tile: int, overlap: int) -> list[slice]:
    if tile >= side:
        return [slice(0, side)]
    starts = range(0, side - overlap, tile - overlap)
    return [slice(start, min(start + tile, side)) for start in starts]


def _shape(tiles: Tiles, latent: Tensor, part: Tensor) -> tuple[int, ...]:
    sides = (side * tiles.scale for side in latent.shape[-2:])
    return len(latent), *part.shape[1:-2], *sides


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, tiles: Tiles, decode: Decode, before: Decode | None, latent: Tensor) -> Tensor:
        given = torch.cat([before(one) for one in latent.split(1)]) if before else latent
        picture = weights = None
        for span in tiles.spans(given):
            part = decode(given[span[0], ..., span[1], span[2]])
            if picture is None or weights is None:
                picture = part.new_zeros(_shape(tiles, given, part))
                weights = part.new_zeros((len(given), 1, *picture.shape[-2:]))
            mask, at = tiles.mask(part, tiles.scale), tiles.pixels(span)
            picture[at] += part * mask
            weights[at] += mask
        assert picture is not None and weights is not None
        ctx.tiles, ctx.decode, ctx.before = tiles, decode, before
        ctx.save_for_backward(latent, given)
        return picture / weights

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[None, None, None, Tensor]:
        latent, given = ctx.saved_tensors
        pulled, weights = torch.zeros_like(given), torch.zeros_like(given[:, :1])
        for span in ctx.tiles.spans(given):
            at = (span[0], ..., span[1], span[2])
            own = _pulled(ctx.decode, given[at], gradient[ctx.tiles.pixels(span)])
            mask = ctx.tiles.mask(own, scale=1)
            pulled[at] += own * mask
            weights[at] += mask
        pulled /= weights
        if ctx.before:
            pairs = zip(latent.split(1), pulled.split(1), strict=True)
            pulled = torch.cat([_pulled(ctx.before, *pair) for pair in pairs])
        return None, None, None, pulled


def _pulled(call: Decode, given: Tensor, gradient: Tensor) -> Tensor:
    leaf = given.detach().clone().requires_grad_()
    with torch.enable_grad():
        made = call(leaf)
    return torch.autograd.grad(made, leaf, gradient)[0]
