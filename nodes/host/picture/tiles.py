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

    Callable on a decoder, from latents (B,C,...,h,w) to (B,3,H,W), and latents.
    """

    height: int
    width: int
    overlap: int
    scale: int

    def __call__(self, decode: Decode, latent: Tensor) -> Tensor:
        return _Tiled.apply(self, decode, latent)

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
    def forward(ctx, tiles: Tiles, decode: Decode, latent: Tensor) -> Tensor:
        picture = weights = None
        for span in tiles.spans(latent):
            part = decode(latent[span[0], ..., span[1], span[2]])
            if picture is None or weights is None:
                picture = part.new_zeros(_shape(tiles, latent, part))
                weights = part.new_zeros((len(latent), 1, *picture.shape[-2:]))
            mask, at = tiles.mask(part, tiles.scale), tiles.pixels(span)
            picture[at] += part * mask
            weights[at] += mask
        assert picture is not None and weights is not None
        ctx.tiles, ctx.decode = tiles, decode
        ctx.save_for_backward(latent)
        return picture / weights

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[None, None, Tensor]:
        (latent,) = ctx.saved_tensors
        pulled, weights = torch.zeros_like(latent), torch.zeros_like(latent[:, :1])
        for span in ctx.tiles.spans(latent):
            at = (span[0], ..., span[1], span[2])
            leaf = latent[at].detach().clone().requires_grad_()
            with torch.enable_grad():
                part = ctx.decode(leaf)
            (own,) = torch.autograd.grad(part, leaf, gradient[ctx.tiles.pixels(span)])
            mask = ctx.tiles.mask(own, scale=1)
            pulled[at] += own * mask
            weights[at] += mask
            del part
        return None, None, pulled / weights
