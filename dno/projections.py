"""Projections: tensors put back where Gaussian noise lies, a second kind beside penalties.

A penalty is a score that the climb weighs against the reward; a projection is an operation after
which the noise lies where it should, whatever the reward wants. Some suit gradients as well, as
preconditioners: the direction then looks like noise itself.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from .declared import Declared
from .fields import Range, Switch
from .rings import scale_rings

Project = Callable[[Sequence[Tensor]], list[Tensor]]


class Projection(Declared, ABC):
    """Tensors (B,...) of one noise, or of its gradient -> tensors of the same shapes.

    Each image by itself: row i of the result depends on rows i alone.
    """

    @abstractmethod
    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The projected tensors; the given ones are left alone."""

    def at(self, tensors: Sequence[Tensor]) -> Project:
        """The projection that a climb which starts at `tensors` uses."""
        del tensors
        return self


@dataclass(frozen=True)
class TypicalSet(Projection):
    """Every ring of the power spectrum clamped to what white noise has; then mean 0, variance 1.

    K of the rotation z <- K(cos z + sin g): per tensor and channel, a ring's mean power is clamped
    to 1 +- tolerance sqrt(2/N), where N counts its independent real numbers (the rings of the
    Spectrum regularizer), by scaling its coefficients; that is the nearest such noise. Then each
    tensor of each image is shifted and scaled to its moments. Tensors without height and width
    have their moments set alone.
    """

    tolerance: Annotated[
        float, Range(0.0, 10.0, 0.1, "Deviations of a ring's power up to this many sigma stay.")
    ] = 1.5
    spectrum: Annotated[bool, Switch("Clamp the spectrum; off: mean and variance alone.")] = True

    @torch.no_grad()
    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [
            _standardised(self._clamped(t) if self.spectrum and t.ndim > 3 else t) for t in tensors
        ]

    def _clamped(self, tensor: Tensor) -> Tensor:
        def factors(power: Tensor, spread: Tensor) -> Tensor:
            low, high = (1 - self.tolerance * spread).clamp(min=0), 1 + self.tolerance * spread
            return (power.clamp(low, high) / power.clamp(min=1e-12)).sqrt()

        return scale_rings(tensor, factors)


@dataclass(frozen=True)
class Whitened(Projection):
    """For gradients: every ring of every channel to mean power 1, then rms 1 of each image.

    power: 1 whitens, 0 leaves the spectrum; rings 1e-4 below the strongest are left below. An image
    without a gradient stays without.
    """

    power: Annotated[float, Range(0.0, 1.0, 0.1, "1 whitens the gradient, 0 leaves it.")] = 1.0

    @torch.no_grad()
    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        unit = _unit(tensors)  # before squares are taken: a gradient may be tiny
        if not self.power:
            return unit
        return _unit([self._white(t) if t.ndim > 3 else t for t in unit])

    def _white(self, tensor: Tensor) -> Tensor:
        def factors(power: Tensor, spread: Tensor) -> Tensor:
            rms = power.sqrt()
            floor = 1e-4 * rms.flatten(1).amax(1)[:, None, None]
            return rms.maximum(floor).clamp(min=1e-30).pow(-self.power)

        return scale_rings(tensor, factors)


@dataclass(frozen=True)
class Sphere(Projection):
    """Each tensor of each image scaled back to the length it started with (DOODL, 2303.13703).

    Called outright, to sqrt(n), where the standard normal of n numbers lies. jitter: standard
    deviation of noise that is added first, drawn from `seed`.
    """

    jitter: Annotated[float, Range(0.0, 1.0, 0.0001, "Noise that is added at every step.")] = 0.0
    seed: Annotated[int, Range(0, 2**32 - 1, 1, "Seed of that noise.")] = 0

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return _scaled(tensors, [t.new_full((len(t),), math.sqrt(t[0].numel())) for t in tensors])

    def at(self, tensors: Sequence[Tensor]) -> Project:
        lengths = [_length(t.detach()) for t in tensors]
        generator = torch.Generator().manual_seed(self.seed)

        def jittered(tensor: Tensor) -> Tensor:
            fresh = torch.randn(tensor.shape, generator=generator)
            return tensor + self.jitter * fresh.to(tensor)

        return lambda moved: _scaled(
            [jittered(t) for t in moved] if self.jitter else moved, lengths
        )


@dataclass(frozen=True)
class Clipped(Projection):
    """For gradients: `scale` times each number, bounded by itself (DOODL: +-0.001)."""

    scale: Annotated[float, Range(0.0, 1e6, 0.1, "What the gradient is multiplied by.")] = 1.0
    bound: Annotated[float, Range(0.0, 1e6, 0.001, "No number exceeds this.")] = 0.001

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [(self.scale * t).clamp(-self.bound, self.bound) for t in tensors]


@dataclass(frozen=True)
class Ranked(Projection):
    """Each number becomes the normal's quantile at its rank, per tensor and image (as NTRK does).

    (rank + 1/2) / n; an image of zeros stays. arXiv 2606.18066 clips the order statistics to where
    a Gaussian's lie; here they are a Gaussian's.
    """

    @torch.no_grad()
    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [_ranked(t.flatten(1)).reshape(t.shape) for t in tensors]


@dataclass(frozen=True)
class Unchanged(Projection):
    """None at all."""

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return list(tensors)


def rotated(tensor: Tensor, direction: Tensor, angle: Tensor, project: Project) -> Tensor:
    """K(cos(angle) z + sin(angle) g) for each image: `angle` (B,) in radians.

    Where g is zero, z stays as it is.
    """
    turn = angle.to(tensor.device, torch.float32).reshape(-1, *[1] * (tensor.ndim - 1))
    moved = project([turn.cos() * tensor + turn.sin() * direction])[0].to(tensor.dtype)
    turns = direction.flatten(1).any(1).reshape(turn.shape)
    return torch.where(turns, moved, tensor)


def _ranked(rows: Tensor) -> Tensor:
    count = rows.shape[1]
    probabilities = (torch.arange(count, device=rows.device, dtype=torch.float64) + 0.5) / count
    normal = torch.special.ndtri(probabilities).to(rows.dtype)
    ranked = torch.empty_like(rows).scatter_(1, rows.argsort(1), normal.expand_as(rows))
    return torch.where(rows.any(1, keepdim=True), ranked, torch.zeros_like(rows))


def _standardised(tensor: Tensor) -> Tensor:
    wide = tensor.flatten(1).to(torch.promote_types(tensor.dtype, torch.float32))
    centred = wide - wide.mean(1, keepdim=True)
    deviation = centred.square().mean(1, keepdim=True).sqrt().clamp(min=1e-12)
    return (centred / deviation).reshape(tensor.shape).to(tensor.dtype)


def _unit(tensors: Sequence[Tensor]) -> list[Tensor]:
    """All tensors of an image together to rms 1; zeros stay zeros."""
    largest = torch.stack([t.flatten(1).abs().amax(1).float() for t in tensors]).amax(0)
    scale = torch.where(largest > 0, largest, torch.ones_like(largest))
    safe = [t / scale.to(t).reshape(-1, *[1] * (t.ndim - 1)) for t in tensors]
    squares = torch.stack([t.flatten(1).float().square().sum(1) for t in safe]).sum(0)
    rms = (squares / sum(t[0].numel() for t in safe)).sqrt()
    rms = torch.where(rms > 0, rms, torch.ones_like(rms))
    return [t / rms.to(t).reshape(-1, *[1] * (t.ndim - 1)) for t in safe]


def _length(tensor: Tensor) -> Tensor:
    return tensor.flatten(1).float().norm(dim=1)


@torch.no_grad()
def _scaled(tensors: Sequence[Tensor], lengths: Sequence[Tensor]) -> list[Tensor]:
    scaled = []
    for tensor, length in zip(tensors, lengths, strict=True):
        factor = length / _length(tensor).clamp(min=1e-12)
        scaled.append(tensor * factor.to(tensor).reshape(-1, *[1] * (tensor.ndim - 1)))
    return scaled
