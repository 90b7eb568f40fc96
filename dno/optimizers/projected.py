from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..projections import Projection
from .adam import Adam
from .base import Gradients, Optimizer, Step


@dataclass(frozen=True)
class Projected(Optimizer):
    """Another optimizer whose gradient is projected before each step and its noise after it.

    WGNC (arXiv 2602.08646): Adam with `BlockNorms` on both. DOODL: SGD with `Sphere` on the noise.
    """

    optimizer: Optimizer = field(default_factory=Adam)
    gradient: Projection | None = None
    noise: Projection | None = None

    def start(self, leaves: Sequence[Tensor], learning_rate: float) -> Step:
        inner = self.optimizer.start(leaves, learning_rate)
        project = self.noise and self.noise.at(leaves)

        def step(gradients: Gradients, objective: Tensor) -> None:
            inner(lambda: self.gradient(gradients()) if self.gradient else gradients(), objective)
            if project:
                with torch.no_grad():
                    for leaf, moved in zip(leaves, project(leaves), strict=True):
                        leaf.copy_(moved)

        return step
