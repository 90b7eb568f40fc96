from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..fields import Range, Switch
from .base import Optimizer, Step, follow


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient ascent with momentum; ReNO (arXiv 2406.04312) uses Nesterov, rate 5, clip 0.1."""

    momentum: Annotated[float, Range(0.0, 0.999, 0.01, "Share of the last step that is kept.")] = (
        0.9
    )
    nesterov: Annotated[bool, Switch("Look ahead along the momentum.")] = True

    def start(self, leaves: Sequence[Tensor], learning_rate: float) -> Step:
        sgd = torch.optim.SGD(
            leaves,
            lr=learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov and self.momentum > 0,
            maximize=True,
        )
        return follow(leaves, sgd)
