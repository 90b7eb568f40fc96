from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..dno.fields import Colour as ColourField
from ..dno.fields import Range
from ..dno.objective import Reward
from ._colour import oklab, parse_colour


@dataclass(frozen=True)
class Colour(Reward):
    """Raises the share of the picture that has a given colour.

    Each pixel counts 1 / (1 + d^2 / tolerance^2), where d is its distance from the colour in OKLab
    (hue and chroma in full, lightness by its own factor). Score: the mean over pixels, in (0, 1];
    read it as the share of the picture in that colour. A share leaves the rest of the picture
    alone, where the distance of the mean colour would tint everything; its long tail still pulls
    pixels that are far off.

    >>> Colour("#ff0000")(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1))
    tensor([1.])
    """

    group = "tone and colour"
    aliases = ("color", "tint", "hue", "red", "green", "blue", "more of one colour")
    span = "0 to 1"

    colour: Annotated[
        str, ColourField(help="The colour to bring in, as #rrggbb, for example #ff8800 for orange.")
    ] = "#3366cc"
    tolerance: Annotated[
        float,
        Range(
            0.02,
            1.0,
            step=0.01,
            help="OKLab distance at which a pixel counts half; red to orange is 0.2.",
        ),
    ] = 0.2
    lightness: Annotated[
        float,
        Range(
            0.0,
            1.0,
            step=0.05,
            help="How much lightness counts: 0 takes any shade of the hue, 1 this one.",
        ),
    ] = 0.5

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        difference = oklab(image) - oklab(parse_colour(self.colour).to(image))
        light, a, b = difference.unbind(1)
        squared = (self.lightness * light).square() + a.square() + b.square()
        return (1 / (1 + squared / self.tolerance**2)).mean(dim=(1, 2))
