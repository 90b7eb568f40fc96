from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..fields import Range
from .base import Optimizer, Step, follow


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (arXiv 1412.6980), the paper's choice: each number moves by about the learning rate."""

    beta1: Annotated[float, Range(0.0, 0.999, 0.001, "Memory of the gradient's mean.")] = 0.9
    beta2: Annotated[float, Range(0.0, 0.9999, 0.0001, "Memory of the gradient's square.")] = 0.999

    def start(self, leaves: Sequence[Tensor], learning_rate: float) -> Step:
        adam = torch.optim.Adam(
            leaves, lr=learning_rate, betas=(self.beta1, self.beta2), maximize=True
        )
        return follow(leaves, adam)
