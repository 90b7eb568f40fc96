"""A part of the noise that moves, the rest staying what it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional

from .method import Ascent, Method, Then
from .optimizers import Projected
from .projections import Project, Projection
from .rings import scale_rings
from .steer import Steer


@dataclass(frozen=True)
class Part(Projection):
    """z0 + P(z - z0): what moved is limited to a mask and to low frequencies.

    mask:        (H,W), (1,H,W) or (B,H,W) in [0,1], resized to the noise; None is everywhere.
    frequencies: the share of the frequencies, the lowest first, that may change; 1 is all.
    """

    mask: Tensor | None = None
    frequencies: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.frequencies <= 1:
            raise ValueError(
                f"Part: frequencies is {self.frequencies}; it must lie above 0 and at most at 1."
            )

    @property
    def whole(self) -> bool:
        return self.mask is None and self.frequencies == 1

    @torch.no_grad()
    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """P of each tensor: first the frequencies, then the mask."""
        return [self._masked(self._low(t)) for t in tensors]

    def at(self, tensors: Sequence[Tensor]) -> Project:
        start = [t.detach().clone() for t in tensors]

        @torch.no_grad()
        def project(moved: Sequence[Tensor]) -> list[Tensor]:
            changes = self([m - s for m, s in zip(moved, start, strict=True)])
            return [s + change for s, change in zip(start, changes, strict=True)]

        return project

    def _low(self, tensor: Tensor) -> Tensor:
        if self.frequencies == 1 or tensor.ndim < 4:
            return tensor

        def factors(power: Tensor, spread: Tensor) -> Tensor:
            count = power.shape[-1]
            kept = max(1, round(self.frequencies * count))
            return (torch.arange(count, device=power.device) < kept).to(power).expand_as(power)

        return scale_rings(tensor, factors)

    def _masked(self, tensor: Tensor) -> Tensor:
        if self.mask is None or tensor.ndim < 4:
            return tensor
        mask = self.mask.reshape(-1, 1, *self.mask.shape[-2:]).to(tensor)
        small = functional.interpolate(mask, tensor.shape[-2:], mode="area")
        shape = [len(small), *[1] * (tensor.ndim - 3), *small.shape[-2:]]
        return tensor * small.reshape(shape)


def limited(method: Method, part: Part) -> Method:
    """The same method with nothing but `part` of the noise moving, where it moves noise."""
    if part.whole:
        return method
    if isinstance(method, Then):
        return replace(
            method, first=limited(method.first, part), second=limited(method.second, part)
        )
    if isinstance(method, Steer):
        return replace(method, part=part)
    if isinstance(method, Ascent):
        return replace(method, optimizer=Projected(method.optimizer, noise=part))
    return method
