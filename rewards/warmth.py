from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..dno.fields import Range
from ..dno.objective import Reward
from ._colour import oklab

_HUE = math.radians(70)  # of warm light in OKLab: between orange and yellow


@dataclass(frozen=True)
class Warmth(Reward):
    """Pulls the light towards warm (candle) or cool (moon).

    Warmth is four times the mean OKLab colour along the hue of warm light, 70 degrees: 0 is
    neutral, 0.8 orange all over, -1.3 pure blue, a photograph within 0.4 of 0. Score: -|warmth -
    target|.

    >>> orange = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)
    >>> Warmth(1.0)(orange) > Warmth(1.0)(1 - orange)
    tensor([True])
    """

    group = "tone and colour"
    aliases = ("warm", "cold", "cool", "sunset", "golden hour", "moonlight", "white balance")
    span = "-2.3 to 0"

    target: Annotated[
        float,
        Range(
            -1.0, 1.0, step=0.01, help="Warmth to reach: 0.3 a sunset, 0 neutral, -0.3 moonlight."
        ),
    ] = 0.5

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        _, a, b = oklab(image).mean(dim=(2, 3)).unbind(1)
        warmth = 4 * (math.cos(_HUE) * a + math.sin(_HUE) * b)
        return -(warmth - self.target).abs()
