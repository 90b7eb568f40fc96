from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..dno.fields import Range
from ..dno.objective import Reward
from ._colour import saturation


@dataclass(frozen=True)
class Saturation(Reward):
    """Pulls the strength of the colours towards a target.

    Saturation is four times the mean OKLab chroma: 0 for grey, about 1 for pure red all over, 0.2
    to 0.5 for most photographs. Score: -|saturation - target|, in [-1.4, 0].

    >>> Saturation(0.5)(torch.full((1, 3, 8, 8), 0.75)).round(decimals=3)
    tensor([-0.5000])
    """

    group = "tone and colour"
    aliases = ("vivid", "vibrant", "colourful", "colorful", "muted", "pastel")
    span = "-1.4 to 0"

    target: Annotated[
        float,
        Range(
            0.0, 1.0, step=0.01, help="Saturation to reach: 0 is grey, 0.3 a photograph, 1 neon."
        ),
    ] = 1.0

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        return -(saturation(image) - self.target).abs()
