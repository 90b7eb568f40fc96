from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..dno.fields import Range
from ..dno.objective import Reward
from ._colour import luma

_EPSILON = 1e-6


@dataclass(frozen=True)
class Contrast(Reward):
    """Pulls the contrast between light and dark towards a target.

    Contrast is twice the standard deviation of the luma (RMS contrast, Peli 1990): 0 for a flat
    picture, 1 for one that is half black and half white; photographs have about 0.4 to 0.6.
    Score: -|contrast - target|, in [-1, 0].

    >>> Contrast(0.5)(torch.full((1, 3, 8, 8), 0.75))
    tensor([-0.5000])
    """

    group = "tone and colour"
    aliases = ("contrast", "punchy", "flat", "hazy", "dramatic")
    span = "-1 to 0"

    target: Annotated[
        float,
        Range(
            0.0,
            1.0,
            step=0.01,
            help="Contrast to reach: 0 is flat, 0.5 a photograph, 1 black on white.",
        ),
    ] = 1.0

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        variance = luma(image).flatten(1).var(dim=1, correction=0)
        contrast = 2 * ((variance + _EPSILON).sqrt() - _EPSILON**0.5)
        return -(contrast - self.target).abs()
