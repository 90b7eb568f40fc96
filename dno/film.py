"""What is kept of iterations beside the best, within a bound: pictures, and what draws them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor

from .noise import Noise

T = TypeVar("T")


@dataclass
class Thinned(ABC, Generic[T]):
    """Something of every iteration by step; when `limit` bytes are full, every second one goes."""

    limit: int = 256 * 2**20
    stride: int = 1
    kept: dict[int, T] = field(default_factory=dict)

    def put(self, step: int, make: Callable[[], T]) -> None:
        """Keep what `make` gives if `step` is on the stride."""
        if step % self.stride:
            return
        self.kept[step] = make()
        while len(self.kept) > 2 and self.bytes > self.limit:
            self.stride *= 2
            self.kept = {s: item for s, item in self.kept.items() if s % self.stride == 0}

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for item in self.kept.values() for tensor in self.tensors(item))

    @staticmethod
    @abstractmethod
    def tensors(item: T) -> list[Tensor]:
        """What of an item takes memory."""


@dataclass
class Film(Thinned[Tensor]):
    """Pictures of the evolution as bytes.

    images: step -> (B,3,H,W) uint8.
    """

    def add(self, step: int, image: Tensor) -> None:
        """Keep `image` (B,3,H,W) in [0,1] if `step` is on the stride."""
        self.put(step, lambda: image.clamp(0, 1).mul(255).round().to("cpu", torch.uint8))

    @property
    def images(self) -> dict[int, Tensor]:
        return self.kept

    @staticmethod
    def tensors(item: Tensor) -> list[Tensor]:
        return [item]


@dataclass(frozen=True)
class Moment:
    """One iteration: its sample (B,C,...) and the noise that gives it, in ordinary memory."""

    latent: Tensor
    noise: Noise


@dataclass
class Moments(Thinned[Moment]):
    """Samples and noises, half as much memory as the film: 50 iterations of SDXL with 20 draws."""

    limit: int = 128 * 2**20

    def add(self, step: int, latent: Tensor, noise: Noise) -> None:
        """Keep both if `step` is on the stride."""
        self.put(step, lambda: Moment(latent.to("cpu", copy=True), noise.snapshot("cpu")))

    @staticmethod
    def tensors(item: Moment) -> list[Tensor]:
        return [item.latent, *item.noise.tensors()]
