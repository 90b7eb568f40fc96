"""From a picture to what an encoder sees: as its original does it, but with a gradient.

Originals resize 8-bit pictures with Pillow. Here nothing is rounded; torch's antialiased bicubic
has Pillow's kernel (a = -0.5), and as there what overshoots [0,1] is cut off, pass by pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import interpolate, pad

from ...dno.sharing import once

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5)
FITS = ("crop", "pad", "stretch")


@dataclass(frozen=True)
class Preprocess:
    """(B,3,H,W) in [0,1] -> (B,3,size,size), normalised.

    fit: "crop" makes the shorter side `size` and cuts the middle out (torchvision's Resize and
    CenterCrop); "pad" makes the longer side `size` and fills up with black (HPSv2); "stretch"
    makes both sides `size`.
    short: for "crop", what the shorter side is made before the cut, where that is not `size`.
    floor: for "crop", an odd margin is smaller at the top and left, as transformers cuts; without
    it, halves are rounded to even, as torchvision cuts.
    overshoot: whether what resizing takes beyond [0,1] stays, as where floats are resized (HPSv2).

    >>> Preprocess(224)(torch.rand(1, 3, 300, 400)).shape
    torch.Size([1, 3, 224, 224])
    """

    size: int = 224
    fit: str = "crop"
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    short: int | None = None
    floor: bool = False
    overshoot: bool = False

    def __post_init__(self) -> None:
        if self.fit not in FITS:
            raise ValueError(f"Preprocess: fit is {self.fit!r}; choose one of {', '.join(FITS)}.")

    def __call__(self, image: Tensor) -> Tensor:
        return once(self, image, self._prepare)

    def _prepare(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        if self.fit == "crop":
            size = _scaled(height, width, self.short or self.size)
        elif self.fit == "pad":
            scale = self.size / max(height, width)
            size = max(round(height * scale), 1), max(round(width * scale), 1)
        else:
            size = self.size, self.size
        image = resize(image, *size, overshoot=self.overshoot)
        if self.fit == "crop":
            image = _centre(image, self.size, math.floor if self.floor else round)
        elif self.fit == "pad":
            image = _fill(image, self.size)
        mean, std = (image.new_tensor(v).view(3, 1, 1) for v in (self.mean, self.std))
        return (image - mean) / std


def resize(image: Tensor, height: int, width: int, overshoot: bool = False) -> Tensor:
    """(B,3,H,W) -> (B,3,height,width), bicubic with antialiasing.

    First in width, then in height, and held in [0,1] after each as by Pillow, unless `overshoot`.
    (Pillow 13 begins with the height of very tall pictures; the originals are older.)

    >>> resize(torch.ones(1, 3, 4, 4), 2, 6).shape
    torch.Size([1, 3, 2, 6])
    """
    for size in ((image.shape[2], width), (height, width)):
        if size != tuple(image.shape[2:]):
            image = interpolate(image, size, mode="bicubic", align_corners=False, antialias=True)
            image = image if overshoot else image.clamp(0, 1)
    return image


def _scaled(height: int, width: int, short: int) -> tuple[int, int]:
    """The size with the shorter side `short`; the longer one is rounded down, as torchvision."""
    if height <= width:
        return short, int(short * width / height)
    return int(short * height / width), short


def _centre(image: Tensor, size: int, whole: Callable[[float], int]) -> Tensor:
    top, left = (whole((side - size) / 2) for side in image.shape[-2:])
    return image[..., top : top + size, left : left + size]


def _fill(image: Tensor, size: int) -> Tensor:
    """Black around it, where a side is shorter than `size`."""
    rows, columns = (size - side for side in image.shape[-2:])
    return pad(image, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
