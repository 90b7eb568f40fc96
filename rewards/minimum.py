from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..dno.fields import Range, Terms
from ..dno.objective import Reward, Weighted
from ._modified import Composed


@dataclass(frozen=True, eq=False)
class Minimum(Composed):
    """Lifts the worst of several rewards first.

    Score: the soft minimum -softness log mean exp(-s / softness) of the weighted scores s. It is
    their common value where all are equal, near the lowest where they differ by much more than
    `softness`, near their mean where by much less. Softness 0 is the lowest alone.

    >>> two = {"a": Weighted(1.0, Darkness()), "b": Weighted(2.0, Darkness())}
    >>> Minimum(two, softness=0.0)(torch.full((1, 3, 8, 8), 0.75))
    tensor([0.2500])
    """

    group = "modifiers"
    aliases = ("worst", "all of them", "balance", "both", "and")

    terms: Annotated[Mapping[str, Weighted], Terms()]
    softness: Annotated[
        float,
        Range(
            0.0,
            100.0,
            step=0.01,
            help="Smaller differences of weighted scores are shared out; 0 lifts the lowest.",
        ),
    ] = 0.1

    def check(self) -> None:
        if not self.terms:
            raise ValueError("Minimum: there are no rewards; connect at least one.")
        if len({part.space for part in self.parts}) > 1:
            raise ValueError(
                "Minimum: some rewards score the picture and some the latent; take one kind, or "
                "combine them with Combine Rewards."
            )

    @property
    def label(self) -> str:
        """The new term's name."""
        return f"lowest of {', '.join(self.terms)}"

    @property
    def parts(self) -> tuple[Reward, ...]:
        return tuple(term.function for term in self.terms.values())

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        rewards = torch.stack([term.weight * term.function(image) for term in self.terms.values()])
        if self.softness == 0:
            return rewards.amin(dim=0)
        total = torch.logsumexp(-rewards / self.softness, dim=0)
        return -self.softness * (total - math.log(len(rewards)))
