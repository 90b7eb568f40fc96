from __future__ import annotations

from dataclasses import dataclass

import torch

from ..dno.objective import Modifier, Reward
from ._modified import Modified


@dataclass(frozen=True)
class Negate(Modifier):
    """Turns a reward around: what it liked is now avoided.

    Score: minus that of the reward.

    >>> Negate()(Darkness())(torch.zeros(1, 3, 8, 8))
    tensor([-1.])
    """

    group = "modifiers"
    aliases = ("opposite", "avoid", "less", "not", "invert")

    label = "not {}"

    def __call__(self, reward: Reward) -> Modified:
        """Reward -> Reward"""
        return Modified(reward, after=torch.neg)
