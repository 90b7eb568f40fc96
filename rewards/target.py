from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..dno.fields import Range
from ..dno.objective import Modifier, Reward
from ._modified import Modified


@dataclass(frozen=True)
class Target(Modifier):
    """Pulls a reward to a value instead of upwards.

    Score: minus the distance of the reward's score from `value`, on its own scale; 0 at the value.

    >>> Target(0.5)(Darkness())(torch.zeros(1, 3, 8, 8))
    tensor([-0.5000])
    """

    group = "modifiers"
    aliases = ("value", "aim", "exactly", "set to")

    value: Annotated[
        float, Range(-1e6, 1e6, step=0.01, help="The score that the reward shall have.")
    ] = 0.5

    @property
    def label(self) -> str:
        return f"{{}} to {self.value:g}"

    def __call__(self, reward: Reward) -> Modified:
        """Reward -> Reward"""
        return Modified(reward, after=self._distance)

    def _distance(self, reward: Tensor) -> Tensor:
        return -(reward - self.value).abs()
