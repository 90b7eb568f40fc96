from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..dno.fields import Image
from ..dno.objective import Modifier, Reward
from ._modified import Modified


@dataclass(frozen=True, eq=False)
class Normalise(Modifier):
    """Brings a reward to the scale of its spread over some pictures, so that unlike rewards mix.

    Score: (score - mean) / standard deviation, both over `pictures`: 0 is an average one, 1 better
    by one standard deviation. Give it a batch of the same prompt with different seeds, from a
    plain KSampler.

    >>> levels = torch.tensor([0.25, 0.5, 0.75]).view(3, 1, 1, 1).expand(3, 3, 8, 8)
    >>> Normalise(levels)(Darkness())(levels)
    tensor([ 1.,  0., -1.])
    """

    group = "modifiers"
    aliases = ("normalize", "scale", "balance", "standard deviation")

    pictures: Annotated[
        Tensor,
        Image(help="At least two pictures of the same prompt, for example a batch of 8 seeds."),
    ]
    label = "{}, normalised"

    def check(self) -> None:
        if len(self.pictures) < 2:
            raise ValueError("Normalise: pictures has one picture; give it a batch of two or more.")

    @torch.no_grad()
    def __call__(self, reward: Reward) -> Modified:
        """Reward -> Reward; scores the pictures once."""
        rewards = reward(self.pictures).double()
        mean, spread = rewards.mean().item(), rewards.std().item()
        if not spread > 1e-9:
            raise ValueError(
                "Normalise: all pictures have the same score; give it pictures that differ."
            )
        return Modified(reward, after=lambda value: (value - mean) / spread)
