"""Better noise by trying alone: the best of N draws, and trust regions around the best."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .ascent import Iterate
from .fresh import fresh, generators
from .method import SAMPLED, Task
from .noise import Noise


@dataclass(frozen=True)
class BestOf:
    """`count` draws of all the noise, the given one first: the baseline of everything else."""

    count: int = 8

    differentiates = False

    @property
    def iterations(self) -> int:
        return self.count - 1

    def kind(self, step: int) -> str:
        return SAMPLED

    def iterates(self, task: Task) -> Iterator[Iterate]:
        first = task.noise.snapshot()
        yield task.evaluate(first, 0)
        for step in range(1, self.count):
            yield task.evaluate(fresh(first, task.seed, step), step)


@dataclass(frozen=True)
class TrustRegions:
    """Trust regions around the best noises so far (TRS, arXiv 2603.14504), each image by itself.

    A fifth of the budget are draws; the best `regions` of them are centres. Each later try takes
    the next region in turn and moves a random share of its centre's numbers by a Gaussian step,
    z <- sqrt(1 - l^2) z + l xi there, l the region's length, so that the noise stays Gaussian. A
    try that betters its region becomes its centre; three in a row widen the region by 1.5, three
    failures narrow it. Numbers in the paper: 15 regions, 1.5, 3 and 3, a fifth, eta 0; the share
    and the first length are this pack's.
    """

    budget: int = 60
    regions: int = 15
    prior: float = 0.2
    share: float = 0.5
    length: float = 0.5
    factor: float = 1.5
    streak: int = 3

    differentiates = False

    @property
    def iterations(self) -> int:
        return self.budget - 1

    def kind(self, step: int) -> str:
        return SAMPLED

    def iterates(self, task: Task) -> Iterator[Iterate]:
        first, tried = task.noise.snapshot(), []
        count = max(1, round(self.prior * self.budget))
        for step in range(count):
            noise = first if step == 0 else fresh(first, task.seed, step)
            iterate = task.evaluate(noise, step)
            tried.append((noise.snapshot(), iterate.objective.detach().float().cpu()))
            yield iterate
        regions = _Regions(self, tried)
        for step in range(count, self.budget):
            noise, region = regions.propose(task.seed, step)
            iterate = task.evaluate(noise, step)
            regions.learn(region, noise, iterate.objective.detach().float().cpu())
            yield iterate


class _Regions:
    """Centres, objectives, lengths and streaks, (regions, B) each."""

    def __init__(self, settings: TrustRegions, tried: list[tuple[Noise, Tensor]]):
        self._settings = settings
        objectives = torch.stack([objective for _, objective in tried])
        kept = min(settings.regions, len(tried))
        order = objectives.argsort(0, descending=True)[:kept]
        self._centres = [_taken([noise for noise, _ in tried], row) for row in order]
        self._objectives = objectives.gather(0, order)
        self._lengths = torch.full_like(self._objectives, settings.length)
        self._streaks = torch.zeros_like(self._objectives)
        self._turn = 0

    def propose(self, seed: int, step: int) -> tuple[Noise, int]:
        """A try in the next region, and which that is."""
        region = self._turn = (self._turn + 1) % len(self._centres)
        centre = self._centres[region]
        own = generators(seed, step, len(centre.initial))

        def moved(tensor: Tensor) -> Tensor:
            rows = []
            for i, generator in enumerate(own):
                length = float(self._lengths[region, i])
                fresh = torch.randn(tensor[i].shape, generator=generator).to(tensor)
                chosen = torch.rand(tensor[i].shape, generator=generator).to(tensor.device)
                step_to = math.sqrt(1 - length**2) * tensor[i] + length * fresh
                rows.append(torch.where(chosen < self._settings.share, step_to, tensor[i]))
            return torch.stack(rows)

        with torch.no_grad():
            tensors = [moved(t) if t.requires_grad else t for t in centre.tensors()]
        return Noise(tensors[0], tensors[1:], centre.scope), region

    def learn(self, region: int, noise: Noise, objective: Tensor) -> None:
        """Take in what a try gave, image by image."""
        better, settings = objective > self._objectives[region], self._settings
        self._centres[region].copy_rows(noise, better)
        self._objectives[region] = torch.where(better, objective, self._objectives[region])
        streak = self._streaks[region]
        streak = torch.where(better, streak.clamp(min=0) + 1, streak.clamp(max=0) - 1)
        wide, narrow = streak >= settings.streak, streak <= -settings.streak
        length = self._lengths[region]
        length = torch.where(wide, length * settings.factor, length)
        length = torch.where(narrow, length / settings.factor, length)
        self._lengths[region] = length.clamp(max=1.0)
        self._streaks[region] = torch.where(wide | narrow, torch.zeros_like(streak), streak)


def _taken(noises: list[Noise], row: Tensor) -> Noise:
    """Image i of the noise that `row[i]` names, as one noise."""
    chosen = noises[int(row[0])].snapshot()
    for index in set(row.tolist()):
        chosen.copy_rows(noises[index], row == index)
    return chosen
