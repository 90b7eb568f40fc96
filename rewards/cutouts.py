from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..dno.fields import Range, Switch
from ..dno.objective import Modifier, Reward
from ..dno.sharing import once
from ._modified import Composed


@dataclass(frozen=True)
class Cutouts(Modifier):
    """Lets a reward see several random parts of the picture, so that no fine noise can please it.

    A pattern that fools a network at one place and size does not at others (the cutouts of DOODL,
    arXiv 2303.13703). The parts' places, sizes and flips are drawn once, from `seed`, as shares of
    the picture's sides: the score stays one function of the picture, the same at every iteration,
    and its gradient is exact. Every part costs as much as the reward. Score: the reward's, averaged
    over the parts.

    >>> Cutouts(count=4)(Darkness())(torch.zeros(1, 3, 8, 8))
    tensor([1.])
    """

    group = "modifiers"
    aliases = ("augmentation", "robust", "against hacking", "random crops")

    count: Annotated[int, Range(1, 64, step=1, help="How many random parts.")] = 4
    smallest: Annotated[
        float, Range(0.05, 1.0, step=0.05, help="Smallest side of a part, as a share of the whole.")
    ] = 0.6
    flips: Annotated[bool, Switch(help="Whether every other part is seen in a mirror.")] = True
    whole: Annotated[bool, Switch(help="Whether the whole picture counts as one more part.")] = True
    seed: Annotated[
        int, Range(0, 2**31 - 1, step=1, help="What the parts are drawn from; another, others.")
    ] = 0
    label = "{}, cutouts"

    def __call__(self, reward: Reward) -> CutOut:
        """Reward -> Reward"""
        return CutOut(reward, self)

    def of(self, image: Tensor) -> list[Tensor]:
        """(B,3,H,W) -> the parts, each (B,3,h,w) with h/H = w/W, none without a pixel."""
        shares = torch.rand(
            self.count, 3, generator=torch.Generator().manual_seed(self.seed), dtype=torch.float64
        )
        cut = [image] if self.whole else []
        for number, (scale, *corner) in enumerate(shares.tolist()):
            side = self.smallest + (1 - self.smallest) * scale
            rows, columns = (
                _pixels(length, side, start)
                for length, start in zip(image.shape[2:], corner, strict=True)
            )
            part = image[:, :, rows, columns]
            cut.append(part.flip(3) if self.flips and number % 2 == 0 else part)
        return cut


@dataclass(frozen=True)
class CutOut(Composed):
    """The mean of a reward over parts of the picture; several such rewards share the parts."""

    reward: Reward
    cutouts: Cutouts

    def check(self) -> None:
        if self.space == "latent":
            raise ValueError("This reward scores the latent, not the picture: it has no cutouts.")

    @property
    def parts(self) -> tuple[Reward, ...]:
        return (self.reward,)

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        pictures = once(self.cutouts, image, self.cutouts.of)
        return torch.stack([self.reward(picture) for picture in pictures]).mean(dim=0)


def _pixels(length: int, side: float, start: float) -> slice:
    size = max(1, round(length * side))
    first = round((length - size) * start)
    return slice(first, first + size)
