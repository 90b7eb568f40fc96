"""Best of N: the noise whose picture scores best among several, chosen for each image by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .checks import NonFiniteError
from .noise import Noise


@dataclass(frozen=True)
class Chosen:
    """noise: row i is image i's best; index: (B,) which candidate that was; reward: (B,) its."""

    noise: Noise
    index: Tensor
    reward: Tensor


def best_of(
    candidates: Iterable[Noise], reward: Callable[[Noise], Tensor], together: bool = False
) -> Chosen:
    """The best of some noises of one batch, image by image; of equal ones the first.

    candidates: drawn one after the other; only the best and the one being scored are held.
    reward:     noise -> (B,), higher is better; it may record injected draws on the noise.
    together:   the images share one candidate, the best by their mean.

    Raises NonFiniteError, naming the candidate, and ValueError where there is none.
    """
    best: Chosen | None = None
    for index, noise in enumerate(candidates):
        rewards = reward(noise).detach()
        if not torch.isfinite(rewards).all():
            raise NonFiniteError(
                f"The reward is not finite (NaN or infinity) for candidate {index} of best_of."
            )
        if together:
            rewards = rewards.mean().expand_as(rewards)
        if best is None:
            first = torch.zeros(len(rewards), dtype=torch.long, device=rewards.device)
            best = Chosen(noise.snapshot(), first, rewards.clone())
            continue
        better = rewards > best.reward
        best.noise.copy_rows(noise, better)
        best.index[better], best.reward[better] = index, rewards[better]
    if best is None:
        raise ValueError("best_of: there is no candidate to choose from.")
    return best
