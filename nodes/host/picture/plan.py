"""How a VAE is decoded with a gradient in the memory there is: ways, from the fastest to the least.

What each way takes is measured, once per VAE: a small decode is run with its backward, and grows
with the picture.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from weakref import WeakKeyDictionary

import comfy.model_management as management
import torch
from torch import Tensor, nn

from ....dno.autograd.profile import Live, profile
from ....dno.autograd.saved import Again
from ..ordinary import ordinary_modules
from ..sampling.weights import Weights
from .head import Head, find_head
from .repeatable import recomputed
from .tiles import Tiles, split

PROBES = (64, 128)  # pixels a side of the pictures that are measured
OVERLAPS = 192, 64  # pixels that neighbouring tiles share; the narrow one where tiles are small
LEAST_TILE = 256  # pixels: below, seams would be all there is
LAST_ROOM = 1.7  # of the room for other ways: .85 of the free memory where that is half of it


@dataclass(frozen=True)
class Way:
    """One way to decode: bytes that it takes with its backward; recomputed blocks or none; tiles.

    exact: whether picture and gradient are those of the whole.
    head:  what is done for the whole before it is decoded in tiles.
    """

    bytes: int
    blocks: frozenset[nn.Module] = frozenset()
    tiles: Tiles | None = None
    count: int = 1
    exact: bool = True
    head: Head | None = None


@dataclass(frozen=True)
class Growth:
    """Bytes by the area of the latent: activations grow with it, attention's matrices squared."""

    linear: float
    square: float

    def __call__(self, area: float) -> int:
        return int(self.linear * area + self.square * area * area)

    @classmethod
    def through(cls, areas: Sequence[int], sizes: Sequence[int]) -> Growth:
        (a, b), (small, large) = areas, sizes
        square = max(0.0, (large / b - small / a) / (b - a)) if b > a else 0.0
        return cls(large / b - square * b, square)


@dataclass(frozen=True)
class Measured:
    """What decoding one image takes, whole and with `blocks` recomputed. scale: pixels a number.

    head, by_head: what tiles need not be made of, and what it takes by blocks; features: bytes
    that it gives for one latent number.
    """

    blocks: frozenset[nn.Module]
    whole: Growth
    by_block: Growth
    scale: int
    head: Head | None = None
    by_head: Growth | None = None
    features: float = 0.0

    def ways(self, shape: Sequence[int]) -> list[Way]:
        """For latents (B,C,...,h,w), fastest first."""
        images, (height, width) = shape[0], shape[-2:]
        area = height * width
        ways = [Way(images * self.whole(area))]
        if self.blocks:
            ways.append(Way(images * self.by_block(area), self.blocks))
        if images > 1:
            each = Tiles(height, width, 0, self.scale)
            ways.append(Way(self.by_block(area), self.blocks, each, images))
        return ways + [self._tiled(images, area, *tile) for tile in self._tiles(height, width)]

    def within(self, shape: Sequence[int], room: float) -> list[Way]:
        """The fastest of these ways that takes `room` bytes at most, and those after it.

        The least exact one and tiles may take more: seams are worse than less room for records.
        """
        ways = self.ways(shape)
        last = max(i for i, way in enumerate(ways) if way.exact)
        rooms = (room if i < last else room * LAST_ROOM for i in range(len(ways)))
        fitting = [i for i, each in enumerate(rooms) if ways[i].bytes <= each]
        return ways[fitting[0] if fitting else -1 :]

    def _tiled(self, images: int, area: int, tile: Tiles, count: int) -> Way:
        size = self.by_block(tile.height * tile.width)
        if not (self.by_head and self.by_head(area) <= size):
            return Way(size, self.blocks, tile, images * count, exact=False)
        size += 2 * int(images * area * self.features)  # they wait, with their gradient
        return Way(size, self.blocks, tile, images * count, exact=False, head=self.head)

    def _tiles(self, height: int, width: int) -> list[tuple[Tiles, int]]:
        tilings: list[tuple[Tiles, int]] = []
        for overlap in OVERLAPS:
            smallest = min((tile.height * tile.width for tile, _ in tilings), default=math.inf)
            more = self._overlapping(height, width, overlap // self.scale or 1)
            tilings += [each for each in more if each[0].height * each[0].width < smallest]
        return tilings

    def _overlapping(self, height: int, width: int, overlap: int) -> list[tuple[Tiles, int]]:
        least, tilings, down, across = LEAST_TILE // self.scale or 1, [], 1, 1
        while True:
            if split(height, down, overlap) >= split(width, across, overlap):
                down += 1
            else:
                across += 1
            sides = split(height, down, overlap), split(width, across, overlap)
            if max(sides) < least or min(sides) <= 2 * overlap:
                return tilings
            tilings.append((Tiles(*sides, overlap, self.scale), down * across))


_known: WeakKeyDictionary[nn.Module, Measured] = WeakKeyDictionary()


def measured(vae, decode: Callable[[Tensor], Tensor]) -> Measured:
    """What decoding takes on this VAE, loaded for it; measured at the first call, then remembered.

    decode: latents as the VAE stores them -> pictures (B,3,H,W).
    """
    network = vae.first_stage_model
    if network not in _known:
        management.load_models_gpu([vae.patcher])
        weights = Weights()
        with (
            torch.inference_mode(False),
            ordinary_modules([network]) as resident,
            weights.watched([network]),
        ):
            _known[network] = _measure(vae, decode, resident, weights.of(network))
    return _known[network]


def _measure(vae, decode, resident: frozenset[int], again: Again | None) -> Measured:
    scale = vae.spacial_compression_decode()
    sides = [max(3, -(-pixels // scale)) for pixels in PROBES]
    probes = [_latent(vae, side) for side in sides]
    network, largest = vae.first_stage_model, probes[-1]
    blocks = profile(network, lambda: decode(largest), resident, again).blocks()
    with recomputed((), vae.device, {}, again):
        whole = [_peak(decode, probe) for probe in probes]
    with recomputed(blocks, vae.device, {}, again):
        by_block = [_peak(decode, probe) for probe in probes]
    areas = [side * side for side in sides]
    if not blocks or by_block[-1] >= whole[-1]:
        blocks, by_block = frozenset(), whole
    sizes = Growth.through(areas, whole), Growth.through(areas, by_block)
    head = find_head(network, decode, probes[0].detach(), blocks)
    if head is None:
        return Measured(blocks, *sizes, scale)
    with recomputed(blocks, vae.device, {}, again):
        by_head = [_peak(partial(head.features, decode), probe) for probe in probes]
        features = head.features(decode, largest.detach()).nbytes / areas[-1]
    return Measured(blocks, *sizes, scale, head, Growth.through(areas, by_head), features)


def _latent(vae, side: int) -> Tensor:
    frames = [1] * (vae.latent_dim - 2)
    shape = (1, vae.latent_channels, *frames, side, side)
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator).to(vae.device).requires_grad_()


def _peak(decode: Callable[[Tensor], Tensor], latent: Tensor) -> int:
    with torch.enable_grad(), Live() as live:
        torch.autograd.grad(decode(latent).sum(), latent)
    return live.peak
