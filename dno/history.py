"""What happened: a record per iteration, the best of each image, and what is kept of the others.

Things that can be read apart, all in ordinary memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .ascent import Iterate
from .film import Film, Moments
from .noise import Noise


@dataclass(frozen=True)
class Record:
    """The numbers of one iteration, each (B,); `objective` is all of it, `seconds` since the start.

    terms and indicators by name, unweighted.
    evaluations: of the network, forward and backward, per image, of a run that ended here; with the
    sampling that makes sure of the best where that is needed.
    """

    step: int
    seconds: float
    objective: Tensor
    reward: Tensor
    terms: dict[str, Tensor]
    indicators: dict[str, Tensor]
    evaluations: float = 0.0


@dataclass(frozen=True)
class Best:
    """The best iterate of each image by the whole objective.

    step, objective, reward: (B,); latent (B,C,...) and image (B,3,H,W) of each image's best, noise:
    what gives them.
    """

    step: Tensor
    objective: Tensor
    reward: Tensor
    latent: Tensor
    image: Tensor
    noise: Noise

    @classmethod
    def of(cls, iterate: Iterate, record: Record) -> Best:
        """The first iterate is the best of all images."""
        return cls(
            torch.full((len(record.objective),), record.step, dtype=torch.long),
            record.objective.clone(),
            record.reward.clone(),
            iterate.latent.to("cpu", copy=True),
            iterate.image.to("cpu", copy=True),
            iterate.noise.snapshot("cpu"),
        )

    def or_better(self, iterate: Iterate, record: Record) -> Best:
        """The same with the images taken over that are better in `iterate`."""
        rows = record.objective > self.objective
        if not rows.any():
            return self
        noise = self.noise.snapshot()
        noise.copy_rows(iterate.noise, rows)
        return Best(
            torch.where(rows, record.step, self.step),
            torch.where(rows, record.objective, self.objective),
            torch.where(rows, record.reward, self.reward),
            _rows(rows, iterate.latent, self.latent),
            _rows(rows, iterate.image, self.image),
            noise,
        )


@dataclass
class History:
    """Records of every iteration so far, the best of each image, the film and the moments.

    first: the first picture (B,3,H,W) in [0,1]. source: what the host needs to hand a moment on.
    start: where it started, in words for the user; empty for the given noise. seconds_before: what
    choosing that took, counted in every record's seconds.
    stop_reason: why it ended early, in words for the user; empty when every iteration was done.
    """

    film: Film = field(default_factory=Film)
    moments: Moments = field(default_factory=Moments)
    first: Tensor | None = None
    source: Any = None
    records: list[Record] = field(default_factory=list)
    start: str = ""
    seconds_before: float = 0.0
    stop_reason: str = ""
    _best: Best | None = None

    @property
    def best(self) -> Best:
        """The best so far. Raises ValueError before the first iterate."""
        if self._best is None:
            raise ValueError("The history is empty: nothing was sampled.")
        return self._best

    def add(self, iterate: Iterate, seconds: float, evaluations: float = 0.0) -> None:
        """Take in one iterate, `seconds` after the start."""
        record = Record(
            iterate.step,
            seconds,
            _numbers(iterate.objective),
            _numbers(iterate.reward),
            {name: _numbers(value) for name, value in iterate.terms.items()},
            {name: _numbers(value) for name, value in iterate.indicators.items()},
            evaluations,
        )
        self.records.append(record)
        self.film.add(iterate.step, iterate.image)
        self.moments.add(iterate.step, iterate.latent, iterate.noise)
        if self._best is None:
            self.first = iterate.image.to("cpu", copy=True)
            self._best = Best.of(iterate, record)
        else:
            self._best = self._best.or_better(iterate, record)

    @property
    def seconds_each(self) -> float:
        """Mean seconds of the iterations so far."""
        last = self.records[-1]
        return (last.seconds - self.seconds_before) / (last.step + 1)

    def at_best(self, read: Callable[[Record], Tensor]) -> Tensor:
        """Per image, `read(record)` (B,) at that image's best step."""
        by_step = {record.step: record for record in self.records}
        best = enumerate(self.best.step.tolist())
        return torch.stack([read(by_step[step])[image] for image, step in best])


def _rows(rows: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """`new` in the images where `rows` (B,) is true, else `old`."""
    return torch.where(rows.reshape(-1, *[1] * (old.ndim - 1)), new.to(old), old)


def _numbers(values: Tensor) -> Tensor:
    return values.detach().float().cpu()
