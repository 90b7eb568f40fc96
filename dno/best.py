"""Best of N: the noise whose picture scores best among several, chosen for each image by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from .ascent import NonFiniteError
from .noise import Noise


@dataclass(frozen=True)
class Best:
    """noise: row i is image i's best; place: (B,) which candidate that was; score: (B,) its."""

    noise: Noise
    place: Tensor
    score: Tensor


def best_of(
    candidates: Iterable[Noise], score: Callable[[Noise], Tensor], together: bool = False
) -> Best:
    """The best of some noises of one batch, image by image; of equal ones the first.

    candidates: drawn one after the other; only the best and the one being scored are held.
    score:      noise -> (B,), higher is better; it may record injected draws on the noise.
    together:   the images share one candidate, the best by their mean.

    Raises NonFiniteError, naming the candidate, and ValueError where there is none.
    """
    best: Best | None = None
    for place, noise in enumerate(candidates):
        scores = score(noise).detach()
        if not torch.isfinite(scores).all():
            raise NonFiniteError(
                f"The reward is not finite (NaN or infinity) for candidate {place} of best_of."
            )
        if together:
            scores = scores.mean().expand_as(scores)
        if best is None:
            places = torch.zeros(len(scores), dtype=torch.long, device=scores.device)
            best = Best(noise.snapshot(), places, scores.clone())
            continue
        better = scores > best.score
        best.noise.copy_rows(noise, better.to(noise.initial.device))
        best.place[better], best.score[better] = place, scores[better]
    if best is None:
        raise ValueError("best_of: there is no candidate to choose from.")
    return best
