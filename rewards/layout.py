from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..dno.declared import prepared
from ..dno.fields import Image, Range
from ..dno.objective import Reward
from ._colour import oklab
from ._picture import grid, root


@dataclass(frozen=True, eq=False)
class Layout(Reward):
    """Lays out colours and light as in a blurred reference picture.

    Both pictures are averaged to `detail` by `detail` cells and compared in OKLab; what happens
    inside a cell is free. Score: minus the root mean square distance, 0 for the same layout, about
    -0.1 for a similar and -0.4 for an unrelated one. The reference is stretched to the picture; of
    several, the nearest counts.

    >>> ramp = torch.linspace(0, 1, 8).expand(1, 3, 8, 8)
    >>> Layout(ramp)(ramp) > Layout(ramp)(1 - ramp)
    tensor([True])
    """

    group = "structure"
    aliases = ("blurred reference", "rough sketch", "colour blocks", "arrangement")
    span = "-1 to 0"

    reference: Annotated[
        Tensor, Image(help="A picture whose layout to follow; a rough sketch will do.")
    ]
    detail: Annotated[
        int,
        Range(1, 64, step=1, help="Cells a side: 2 is four patches of colour, 32 nearly a copy."),
    ] = 8

    @prepared
    def _wanted(self) -> Tensor:
        return self._cells(self.reference.double().clamp(0, 1))

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        difference = self._cells(image)[:, None] - self._wanted.to(image)
        return -root(difference.square().sum(dim=2).mean(dim=(2, 3)).amin(dim=1))

    def _cells(self, image: Tensor) -> Tensor:
        return oklab(grid(image, self.detail, self.detail))
