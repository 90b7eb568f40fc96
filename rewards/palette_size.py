from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..dno.fields import Range
from ..dno.objective import Reward
from ._encode import eight_bits

_LEVELS = 16


@dataclass(frozen=True)
class PaletteSize(Reward):
    """Pulls the number of colours in the picture towards a target, as for a poster or a print.

    Colours are rounded to 16 levels per channel and counted by their share: the number is 2 to the
    entropy of the histogram, so rare colours hardly count. Score: minus the distance from the
    target in doublings: -1 for twice or half as many colours, at worst -12. It has no gradient.

    >>> PaletteSize(2)(torch.zeros(1, 3, 8, 8))
    tensor([-1.])
    """

    group = "files"
    aliases = ("few colours", "number of colours", "poster", "posterize", "screen print")
    span = "-12 to 0"
    differentiable = False

    colours: Annotated[
        int, Range(1, 4096, step=1, help="How many colours; 2 to 8 is a poster, 200 a photograph.")
    ] = 4

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        levels = eight_bits(image).flatten(1, 2).long() * _LEVELS // 256
        codes = (levels * torch.tensor([_LEVELS**2, _LEVELS, 1])).sum(dim=2)
        bits = []
        for code in codes:
            share = torch.bincount(code, minlength=_LEVELS**3).double() / code.numel()
            bits.append(-torch.special.xlogy(share, share).sum().item() / math.log(2))
        return -(image.new_tensor(bits) - math.log2(self.colours)).abs()
