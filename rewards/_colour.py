"""Colour arithmetic that several rewards share: luma, and OKLab that is smooth down to black."""

from __future__ import annotations

import torch
from torch import Tensor

from ._picture import root

_LUMA = (0.2126, 0.7152, 0.0722)
_RGB_TO_LMS = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_LMS_TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)
_TOE = 1e-3


def luma(image: Tensor) -> Tensor:
    """(B,3,H,W) sRGB -> (B,H,W) Rec. 709 luma of the encoded values, in [0,1].

    >>> luma(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1))
    tensor([[[0.2126]]])
    """
    return torch.einsum("bchw,c->bhw", image, image.new_tensor(_LUMA))


def oklab(image: Tensor) -> Tensor:
    """(B,3,...) sRGB in [0,1] -> (B,3,...) OKLab: lightness in [0,1], a and b within about 0.3.

    Ottosson 2020, with one departure: the cube root is taken of x + 0.001 and rescaled to keep 0
    and 1. That bounds the gradient at black (a cube root's is infinite there), keeps the chroma of
    near-black noise small, and moves lightness towards CIELAB's, as Ottosson's own toe does.

    >>> oklab(torch.ones(1, 3, 1)).round(decimals=3).abs().flatten()
    tensor([1., 0., 0.])
    """
    flat = image.flatten(2)
    low = flat / 12.92
    linear = torch.where(flat <= 0.04045, low, ((flat.clamp(min=0.04) + 0.055) / 1.055) ** 2.4)
    lms = torch.einsum("ij,bjn->bin", image.new_tensor(_RGB_TO_LMS), linear)
    foot = _TOE ** (1 / 3)
    root = ((lms.clamp(min=0) + _TOE) ** (1 / 3) - foot) / ((1 + _TOE) ** (1 / 3) - foot)
    return torch.einsum("ij,bjn->bin", image.new_tensor(_LMS_TO_LAB), root).view_as(image)


def parse_colour(text: str) -> Tensor:
    """`#rrggbb` -> (1,3,1,1) sRGB in [0,1].

    >>> parse_colour("#ff0000").flatten()
    tensor([1., 0., 0.], dtype=torch.float64)
    """
    channels = [int(text[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    return torch.tensor(channels, dtype=torch.float64).view(1, 3, 1, 1)


def saturation(image: Tensor) -> Tensor:
    """(B,3,H,W) -> (B,): four times the mean OKLab chroma; 0 for grey, about 1 for pure red.

    >>> saturation(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)).round(decimals=2)
    tensor([1.1400])
    """
    chroma = root(oklab(image)[:, 1:].square().sum(dim=1))
    return 4 * chroma.mean(dim=(1, 2))
