"""What steering decodes predictions with, for directions alone: the VAE, another one, or a map."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from .decode import _ClampInwards

CHOICES = ("automatic", "VAE", "linear")
ENOUGH = 0.7  # of a picture's variance that a map must explain to stand for the VAE
USUAL_SCALE = 8


class LinearMap:
    """Latent to picture number by number: (B,C,H,W) -> (B,3,8H,8W), hardly any work at all.

    The latent format's own factors, which ComfyUI uses for previews; where the first picture does
    not agree with them, or they are missing, factors fitted to that picture.
    """

    def __init__(self, latent_format):
        self._format = latent_format
        self._factors, self._bias = _own_factors(latent_format)
        self._size: tuple[int, int] | None = None
        self.explained: float | None = None

    @property
    def usable(self) -> bool:
        return self._factors is not None

    @torch.no_grad()
    def learn(self, latent: Tensor, image: Tensor) -> None:
        """Compare with a sample and the VAE's picture of it, and fit where that is better."""
        self._size = tuple(image.shape[-2:])
        flat = self._flat(latent.float())
        small = functional.interpolate(image.to(flat), flat.shape[-2:], mode="area")
        given = flat.movedim(1, -1).reshape(-1, flat.shape[1])
        wanted = small.movedim(1, -1).reshape(-1, 3)
        if self.usable:
            self.explained = _explained(self._mapped(flat).clamp(0, 1), small)
        if self.usable and self.explained >= ENOUGH:
            return
        with_one = torch.cat([given, torch.ones_like(given[:, :1])], 1)
        solved = torch.linalg.lstsq(with_one.double().cpu(), wanted.double().cpu()).solution.float()
        self._factors, self._bias = 2 * solved[:-1], 2 * solved[-1] - 1  # pictures in [-1,1]
        self.explained = _explained(self._mapped(flat).clamp(0, 1), small)

    def __call__(self, latent: Tensor) -> Tensor:
        flat = self._flat(latent.float())
        height, width = flat.shape[-2:]
        size = self._size or (USUAL_SCALE * height, USUAL_SCALE * width)
        picture = functional.interpolate(self._mapped(flat), size, mode="bilinear")
        return _ClampInwards.apply(picture)

    def _mapped(self, flat: Tensor) -> Tensor:
        factors, bias = self._factors.to(flat), self._bias.to(flat)
        rgb = torch.einsum("bchw,cd->bdhw", flat, factors) + bias.reshape(1, 3, 1, 1)
        return (rgb + 1) / 2

    def _flat(self, latent: Tensor) -> Tensor:
        reshape = getattr(self._format, "latent_rgb_factors_reshape", None)
        latent = latent if reshape is None else reshape(latent)
        return latent[:, :, 0] if latent.ndim == 5 else latent


class Directions:
    """The decoder that steering asks; `learn` is told the first picture.

    choice: one of CHOICES. roomy: whether the VAE's decoding can be recorded as a whole.

    Automatic weighs the cost: a decoding with its gradient often costs more than a step of the
    network, so what need not be exact is left to the map where that agrees with the picture.
    """

    def __init__(self, choice: str, decode: Callable[[Tensor], Tensor], roomy: bool, latent_format):
        self._decode = decode
        self._map = LinearMap(latent_format) if choice != "VAE" else None
        self._insists, self._roomy = choice == "linear", roomy

    def learn(self, latent: Tensor, image: Tensor) -> None:
        if self._map is not None and self._map.explained is None:
            self._map.learn(latent, image)

    def linear(self, rough: bool = False) -> bool:
        """Whether the map is used: on demand, or if it agrees, roughly or where there is no room.

        Before the first picture there is nothing that it could agree with.
        """
        if self._map is None or not self._map.usable:
            return False
        agrees = (self._map.explained or 0.0) >= ENOUGH
        return self._insists or (agrees and (rough or not self._roomy))

    def __call__(self, latent: Tensor, rough: bool = False) -> Tensor:
        return self._map(latent) if self.linear(rough) else self._decode(latent)

    def roughly(self, latent: Tensor) -> Tensor:
        """(B,C,...) -> pictures (B,3,H,W), for directions that need not be exact."""
        return self(latent, rough=True)


def _own_factors(latent_format) -> tuple[Tensor | None, Tensor]:
    """(C,3) and (3,) of the latent format; None where it has none."""
    factors = getattr(latent_format, "latent_rgb_factors", None)
    if factors is None:
        return None, torch.zeros(3)
    with torch.inference_mode(False):
        bias = getattr(latent_format, "latent_rgb_factors_bias", None) or [0.0, 0.0, 0.0]
        return torch.tensor(factors), torch.tensor(bias)


def _explained(mapped: Tensor, wanted: Tensor) -> float:
    """Share of the variance of `wanted` (B,3,H,W) that `mapped` explains; 1 is all."""
    spread = (wanted - wanted.mean((0, 2, 3), keepdim=True)).square().mean()
    return float(1 - (mapped - wanted).square().mean() / spread.clamp(min=1e-8))
