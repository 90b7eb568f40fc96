"""Where a climb starts: the given noise, or the best of N seeds, drawn as KSampler draws them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import comfy.model_management as management
import torch
from torch import Tensor

from ....dno.best import Chosen, best_of
from ....dno.noise import Noise
from ....dno.objective import Objective
from ..progress import Progress
from .job import seed_at
from .render import Origin, Sampling
from .state import Generators


@dataclass(frozen=True)
class Start:
    """noise: where the climb begins; origin: what the sampler's own draws come from.

    words: what was chosen, for the user, empty for the given noise; seconds: what choosing took.
    """

    noise: Noise
    origin: Origin
    words: str = ""
    seconds: float = 0.0


def best_start(
    sampling: Sampling,
    decode: Callable[[Tensor], Tensor],
    objective: Objective,
    given: Noise,
    draw: Callable[[int], Tensor],
    count: int,
    progress: Progress,
) -> Start:
    """For each image the noise of the best of `count` seeds, the given noise being the first.

    draw: the noise of a seed, as the host draws it. What the sampler draws comes from that seed
    too. The start has the origin of the best if the images share it, else the given one.
    """
    if count <= 1:
        return Start(given, sampling.origin)
    origins: list[Origin] = []

    @torch.no_grad()
    def reward(noise: Noise) -> Tensor:
        latent = sampling.from_origin(origins[-1]).render(noise)
        image = decode(latent)
        rewards, _ = objective.reward(image, latent)
        words = f"best of {count}: {len(origins)}/{count}, reward {rewards.mean():.3g}"
        progress.picture(image, words)
        management.throw_exception_if_processing_interrupted()
        progress.next_sampling()
        return rewards

    candidates = _candidates(sampling, given, draw, count, origins)
    best = best_of(candidates, reward, together=not sampling.by_image)
    shared = set(best.index.tolist())
    origin = origins[shared.pop()] if len(shared) == 1 else sampling.origin
    return Start(best.noise, origin, _words(best, origins), progress.seconds)


def _candidates(
    sampling: Sampling,
    given: Noise,
    draw: Callable[[int], Tensor],
    count: int,
    origins: list[Origin],
) -> Iterator[Noise]:
    """The given noise and those of the next seeds; where each draws from is added to `origins`."""
    origins.append(sampling.origin)
    yield given
    for index in range(1, count):
        seed = seed_at(sampling.origin.seed, index)
        noise = draw(seed).to(sampling.noise)
        origins.append(Origin(seed, Generators.now(noise.device)))  # as that seed leaves them
        yield Noise(noise, scope=given.scope)


def _words(best: Chosen, origins: list[Origin]) -> str:
    """`the best of 4 seeds, 17`; of a batch, the seed of each image."""
    seeds = [str(origins[index].seed) for index in best.index.tolist()]
    chosen = ", ".join(seeds if len(set(seeds)) > 1 else seeds[:1])
    return f"the best of {len(origins)} seeds, {chosen}"
