from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from torch import Tensor
from torch.nn.functional import interpolate

from ..dno.fields import Range
from ..dno.objective import Modifier, Reward
from ._modified import Modified


def _share(text: str) -> Range:
    return Range(0.0, 1.0, step=0.01, help=f"{text}, as a share of the picture's side.")


@dataclass(frozen=True)
class Crop(Modifier):
    """Lets a reward see a rectangle of the picture, or the picture at another size.

    The rectangle has at least one pixel. `size` makes its shorter side that long, averaging where
    it shrinks (bilinear with antialiasing); 0 leaves it as it is. Score: the reward's.

    >>> half = torch.tensor([1.0, 0.0]).expand(1, 3, 4, 2)
    >>> Crop(width=0.5)(Darkness())(half), Crop(left=0.5)(Darkness())(half)
    (tensor([0.]), tensor([1.]))
    """

    group = "modifiers"
    aliases = ("rectangle", "region", "part of the picture", "resize", "face")

    left: Annotated[float, _share("Where the rectangle begins from the left")] = 0.0
    top: Annotated[float, _share("Where the rectangle begins from the top")] = 0.0
    width: Annotated[float, _share("Width of the rectangle")] = 1.0
    height: Annotated[float, _share("Height of the rectangle")] = 1.0
    size: Annotated[
        int,
        Range(0, 4096, step=1, help="Shorter side in pixels after resizing; 0 does not resize."),
    ] = 0
    label = "{} of the crop"

    def check(self) -> None:
        if self.width == 0 or self.height == 0 or self.left == 1 or self.top == 1:
            raise ValueError(
                "Crop: the rectangle is empty; "
                "width and height must be above 0, left and top below 1."
            )

    def __call__(self, reward: Reward) -> Modified:
        """Reward -> Reward"""
        return Modified(reward, before=self._cut)

    def _cut(self, image: Tensor) -> Tensor:
        rows = _pixels(self.top, self.height, image.shape[2])
        part = image[:, :, rows, _pixels(self.left, self.width, image.shape[3])]
        if self.size == 0:
            return part
        scale = self.size / min(part.shape[2:])
        size = [max(1, round(side * scale)) for side in part.shape[2:]]
        return interpolate(part, size, mode="bilinear", align_corners=False, antialias=True)


def _pixels(start: float, length: float, side: int) -> slice:
    first = min(math.floor(start * side), side - 1)
    return slice(first, max(first + 1, min(side, round((start + length) * side))))
