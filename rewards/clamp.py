from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..dno.fields import Range
from ..dno.objective import Modifier, Reward
from ._modified import Modified


@dataclass(frozen=True)
class Clamp(Modifier):
    """Stops caring about a reward beyond a value.

    Score: that of the reward, held between `lowest` and `highest`. Beyond them there is no
    gradient, so that other rewards have their way once this one is satisfied.

    >>> Clamp(highest=0.5)(Darkness())(torch.zeros(1, 3, 8, 8))
    tensor([0.5000])
    """

    group = "modifiers"
    aliases = ("limit", "enough", "stop at", "cap")

    lowest: Annotated[
        float, Range(-1e6, 1e6, step=0.01, help="Below this score all is equally bad.")
    ] = -1e6
    highest: Annotated[
        float, Range(-1e6, 1e6, step=0.01, help="Above this score all is equally good.")
    ] = 1e6
    label = "{}, clamped"

    def check(self) -> None:
        if self.lowest >= self.highest:
            raise ValueError(
                f"Clamp: lowest is {self.lowest} and highest {self.highest}; lowest must be less."
            )

    def __call__(self, reward: Reward) -> Modified:
        """Reward -> Reward"""
        return Modified(reward, after=self._hold)

    def _hold(self, reward: Tensor) -> Tensor:
        return reward.clamp(self.lowest, self.highest)
