from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..dno.declared import prepared
from ..dno.fields import Image, Range
from ..dno.objective import Reward
from ._colour import oklab
from ._picture import grid, root

_DIRECTIONS = 16
_LEVELS = 4096
_SIDE = 128


@dataclass(frozen=True, eq=False)
class Palette(Reward):
    """Gives the picture the colours of a reference picture, in the same amounts.

    Sliced Wasserstein distance (Bonneel et al. 2015) between the colours of the two pictures in
    OKLab: along 16 fixed directions the sorted values are compared. Where things are does not
    matter. Several reference pictures make one palette. Score: minus the root mean square
    distance, 0 for the same colours, about -0.1 for related and -0.3 for very different ones.
    Pictures beyond 128 pixels a side are averaged down to that first.

    >>> grey = torch.full((1, 3, 8, 8), 0.5)
    >>> Palette(grey)(grey) > Palette(grey)(grey / 2)
    tensor([True])
    """

    group = "tone and colour"
    aliases = ("colours of a picture", "color palette", "color grading", "match colors")
    span = "-1 to 0"

    reference: Annotated[Tensor, Image(help="A picture with the colours to take over.")]
    lightness: Annotated[
        float,
        Range(
            0.0, 1.0, step=0.05, help="How much light and dark count; 0 takes over the hues only."
        ),
    ] = 1.0

    @prepared
    def _wanted(self) -> Tensor:
        """(1,directions,levels): the sorted projections of all references' colours."""
        colours = [self._colours(one.double()[None]) for one in self.reference.clamp(0, 1)]
        return interpolate(_ranked(torch.cat(colours, dim=2)), _LEVELS, mode="area")

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        ranked = _ranked(self._colours(image))
        wanted = interpolate(self._wanted.to(image), ranked.shape[2], mode="linear")
        return -root(3 * (ranked - wanted).square().mean(dim=(1, 2)))

    def _colours(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,3,N) in OKLab."""
        size = [min(side, _SIDE) for side in image.shape[-2:]]
        scale = image.new_tensor([self.lightness, 1, 1])[:, None]
        return oklab(grid(image, *size)).flatten(2) * scale


def _ranked(colours: Tensor) -> Tensor:
    """(B,3,N) -> (B,directions,N): the sorted projections."""
    return (_directions().to(colours) @ colours).sort(dim=2).values


def _directions() -> Tensor:
    """(16,3) unit vectors, evenly over half a sphere (Fibonacci lattice)."""
    height = (torch.arange(_DIRECTIONS, dtype=torch.float64) + 0.5) / _DIRECTIONS
    turn = torch.arange(_DIRECTIONS, dtype=torch.float64) * math.pi * (3 - math.sqrt(5))
    radius = (1 - height.square()).sqrt()
    return torch.stack([height, radius * turn.cos(), radius * turn.sin()], dim=1)
