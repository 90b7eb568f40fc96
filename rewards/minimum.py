from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..dno.objective import Weighted, of_latent


@dataclass(frozen=True, eq=False)
class Minimum:
    """Lifts the worst of several rewards first.

    Score: the soft minimum -softness log mean exp(-s / softness) of the weighted scores s. It is
    their common value where all are equal, near the lowest where they differ by much more than
    `softness`, near their mean where by much less. Softness 0 is the lowest alone.
    """

    terms: Mapping[str, Weighted]
    softness: float = 0.1

    def __post_init__(self) -> None:
        if not self.terms:
            raise ValueError("Minimum: there are no rewards; connect at least one.")
        if not self.softness >= 0:
            raise ValueError(f"Minimum: softness is {self.softness}; it must be 0 or more.")
        if len({of_latent(term.score) for term in self.terms.values()}) > 1:
            raise ValueError(
                "Minimum: some rewards score the picture and some the latent; take one kind, or "
                "combine them with Combine Rewards."
            )

    @property
    def space(self) -> str:
        """What every term scores: "image" or "latent"."""
        return "latent" if any(of_latent(t.score) for t in self.terms.values()) else "image"

    @property
    def differentiable(self) -> bool:
        """Whether every term has a gradient."""
        return all(term.score.differentiable for term in self.terms.values())

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        scores = torch.stack([term.weight * term.score(image) for term in self.terms.values()])
        if self.softness == 0:
            return scores.amin(dim=0)
        total = torch.logsumexp(-scores / self.softness, dim=0)
        return -self.softness * (total - math.log(len(scores)))
