"""What happened: a record per iteration, the best of each image, a thinned film of the pictures.

Three things that can be read apart, all in ordinary memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .ascent import Iterate
from .noise import Noise


@dataclass(frozen=True)
class Record:
    """The numbers of one iteration, each (B,); `objective` is all of it, `seconds` since the start.

    terms and indicators by name, unweighted.
    """

    step: int
    seconds: float
    objective: Tensor
    reward: Tensor
    terms: dict[str, Tensor]
    indicators: dict[str, Tensor]


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
class Film:
    """Pictures of the evolution as bytes; when `limit` bytes are full, every second one goes.

    images: step -> (B,3,H,W) uint8.
    """

    limit: int = 256 * 2**20
    stride: int = 1
    images: dict[int, Tensor] = field(default_factory=dict)

    def add(self, step: int, image: Tensor) -> None:
        """Keep `image` (B,3,H,W) in [0,1] if `step` is on the stride."""
        if step % self.stride:
            return
        self.images[step] = image.clamp(0, 1).mul(255).round().to("cpu", torch.uint8)
        while len(self.images) > 2 and self.bytes > self.limit:
            self.stride *= 2
            self.images = {s: i for s, i in self.images.items() if s % self.stride == 0}

    @property
    def bytes(self) -> int:
        return sum(image.numel() for image in self.images.values())


@dataclass
class History:
    """Records of every iteration so far, the best of each image, and the film.

    start: where it started, in words for the user; empty for the given noise. seconds_before: what
    choosing that took, counted in every record's seconds.
    stop_reason: why it ended early, in words for the user; empty when every iteration was done.
    """

    film: Film = field(default_factory=Film)
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

    def add(self, iterate: Iterate, seconds: float) -> None:
        """Take in one iterate, `seconds` after the start."""
        record = Record(
            iterate.step,
            seconds,
            _numbers(iterate.objective),
            _numbers(iterate.reward),
            {name: _numbers(value) for name, value in iterate.terms.items()},
            {name: _numbers(value) for name, value in iterate.indicators.items()},
        )
        self.records.append(record)
        self.film.add(iterate.step, iterate.image)
        if self._best is None:
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
