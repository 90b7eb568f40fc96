"""The part of a decoder before it first enlarges: done for the whole picture, the rest in tiles.

Attention there looks at all of a tile, and each convolution sees eight pixels or more beyond its
edge. At the latent's own size that part takes little memory, so nothing forces it into tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor, nn

Decode = Callable[[Tensor], Tensor]
TRIES = 8  # modules that are tried, each by a small decode


@dataclass(frozen=True)
class Head:
    """A decoder up to where `module` returns. Features are (B,F,...,h,w), in fp32 at least.

    ratio: their height and width to the latent's: 2 where latents are unpacked first (Flux 2).
    """

    module: nn.Module
    ratio: int = 1

    def features(self, decode: Decode, latent: Tensor) -> Tensor:
        """What the decoder has made of latents (B,C,...,h,w) there."""

        def stop(module: nn.Module, arguments: tuple, output: Tensor) -> None:
            raise _Reached(output)

        try:
            with _hooked(self.module, stop):
                decode(latent)
        except _Reached as reached:
            found = reached.features
            return found.to(torch.promote_types(found.dtype, torch.float32))
        raise RuntimeError("The decoder took another way than when it was measured.")

    def rest(self, decode: Decode, features: Tensor, like: Tensor) -> Tensor:
        """What it makes of them from there; `like`: any latents of that decoder."""

        def put(module: nn.Module, arguments: tuple, output: Tensor) -> Tensor:
            return features.to(output.dtype)

        sides = (side // self.ratio for side in features.shape[-2:])
        shape = (len(features), *like.shape[1:-2], *sides)
        with _hooked(self.module, put):
            return decode(like.new_zeros(shape))


class _Reached(Exception):
    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features


@contextmanager
def _hooked(module: nn.Module, hook: Callable) -> Iterator[None]:
    handle = module.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def find_head(
    network: nn.Module, decode: Decode, latent: Tensor, blocks: frozenset[nn.Module]
) -> Head | None:
    """The longest head that all that follows depends on alone; None: there is none.

    latent: a small one, to try. blocks: modules that are recomputed as a whole, not left inside.
    """
    whole = decode(latent)
    for head in possible_heads(network, decode, latent, blocks)[:TRIES]:
        again = head.rest(decode, head.features(decode, latent), latent)
        if torch.allclose(again, whole, rtol=1e-3, atol=1e-3):
            return head
    return None


def possible_heads(
    network: nn.Module, decode: Decode, latent: Tensor, blocks: frozenset[nn.Module]
) -> list[Head]:
    """What ends before anything is larger than what the first module gives; longest first."""
    calls: list[tuple[nn.Module, object]] = []
    with _all_hooked(network, lambda module, _, output: calls.append((module, output))):
        decode(latent)
    inner = {module for block in blocks for module in block.modules()} - blocks
    called = [module for module, _ in calls]
    pictures = [(m, out) for m, out in calls if isinstance(out, Tensor) and out.ndim >= 4]
    side = pictures[0][1].shape[-1] if pictures else 0
    before = takewhile(lambda call: call[1].shape[-1] <= side, pictures)
    candidates = [m for m, out in before if out.shape[-1] == side and called.count(m) == 1]
    ratio = side // latent.shape[-1]
    return [Head(module, ratio) for module in reversed(candidates) if module not in inner]


@contextmanager
def _all_hooked(network: nn.Module, hook: Callable) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module in network.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
