"""Where a climb starts: the given noise, or the best of N seeds, drawn as KSampler draws them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import comfy.model_management as management
import torch
from torch import Tensor

from ....dno.best import Best, best_of
from ....dno.history import History
from ....dno.noise import Noise
from ....dno.objective import Objective
from ..progress import Progress
from .job import seed_at
from .render import Sampling


def best_start(
    sampling: Sampling,
    decode: Callable[[Tensor], Tensor],
    objective: Objective,
    given: Noise,
    draw: Callable[[int], Tensor],
    count: int,
    progress: Progress,
    history: History,
) -> Noise:
    """For each image the noise of the best of `count` seeds, the given noise being the first.

    draw: the noise of a seed, as the host draws it. What the sampler draws comes from that seed
    too. `sampling` keeps the seed of the best if the images share it, else the given one.
    """
    if count <= 1:
        return given
    first = sampling.seed

    def candidates() -> Iterator[Noise]:
        yield given
        for place in range(1, count):
            sampling.seed = seed_at(first, place)
            yield Noise(draw(sampling.seed).to(sampling.noise), scope=given.scope)

    done = 0

    @torch.no_grad()
    def score(noise: Noise) -> Tensor:
        nonlocal done
        latent = sampling.render(noise)
        image = decode(latent)
        rewards, _ = objective.reward(image, latent)
        done += 1
        progress.picture(image, f"best of {count}: {done}/{count}, reward {rewards.mean():.3g}")
        management.throw_exception_if_processing_interrupted()
        progress.next_sampling()
        return rewards

    best = best_of(candidates(), score, together=not sampling.by_image)
    places = set(best.place.tolist())
    shared = places.pop() if len(places) == 1 else 0
    sampling.seed = seed_at(first, shared) if shared else first
    history.start = _words(best, first, count)
    history.seconds_before = progress.seconds
    return best.noise


def _words(best: Best, first: int | None, count: int) -> str:
    """`the best of 4 seeds, 17`; of a batch, the seed of each image."""
    seeds = [str(seed_at(first, place)) for place in best.place.tolist()]
    return f"the best of {count} seeds, {', '.join(seeds if len(set(seeds)) > 1 else seeds[:1])}"
