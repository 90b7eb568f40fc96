"""What happened: a record per iteration, the best of each image, a thinned film of the pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .ascent import Iterate
from .noise import Noise


@dataclass(frozen=True)
class Record:
    """The numbers of one iteration, on the CPU, each (B,)."""

    step: int
    seconds: float
    score: Tensor
    reward: Tensor
    terms: dict[str, Tensor]
    indicators: dict[str, Tensor]


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


class History:
    """Records of every iteration so far and, per image, the best iterate by the whole objective.

    stop_reason: why it ended early, in words for the user; empty when every iteration was done.
    start: where it started, in words for the user; empty for the given noise. seconds_before: what
    choosing that took, counted in every record's seconds.
    best_step, best_score, best_reward: (B,); best_latent, best_image: the best of each image;
    best_noise: the noise that gives them. All of them are empty before the first iterate.
    """

    def __init__(self, film: Film | None = None):
        self.records: list[Record] = []
        self.film: Film = film or Film()
        self.stop_reason: str = ""
        self.start: str = ""
        self.seconds_before: float = 0.0
        self.best_step: Tensor = torch.empty(0, dtype=torch.long)
        self.best_score: Tensor = torch.empty(0)
        self.best_reward: Tensor = torch.empty(0)
        self.best_latent: Tensor = torch.empty(0)
        self.best_image: Tensor | None = None
        self.best_noise: Noise = Noise(torch.empty(0))

    def add(self, iterate: Iterate, seconds: float) -> Tensor:
        """Take in one iterate, `seconds` after the start; return which images (B,) improved."""
        record = Record(
            iterate.step,
            seconds,
            _numbers(iterate.score),
            _numbers(iterate.reward),
            {name: _numbers(value) for name, value in iterate.terms.items()},
            {name: _numbers(value) for name, value in iterate.indicators.items()},
        )
        self.records.append(record)
        if iterate.image is not None:
            self.film.add(iterate.step, iterate.image)
        if len(self.records) == 1:
            return self._first(iterate, record)
        better = record.score > self.best_score
        if better.any():
            self._replace(iterate, record, better)
        return better

    def _first(self, iterate: Iterate, record: Record) -> Tensor:
        self.best_score, self.best_reward = record.score.clone(), record.reward.clone()
        self.best_step = torch.full((len(record.score),), record.step, dtype=torch.long)
        self.best_latent = iterate.latent.clone()
        self.best_image = None if iterate.image is None else iterate.image.clone()
        self.best_noise = iterate.noise.snapshot()
        return torch.ones(len(record.score), dtype=torch.bool)

    def _replace(self, iterate: Iterate, record: Record, rows: Tensor) -> None:
        self.best_score[rows], self.best_reward[rows] = record.score[rows], record.reward[rows]
        self.best_step[rows] = record.step
        on_device = rows.to(iterate.latent.device)
        self.best_latent[on_device] = iterate.latent[on_device]
        if self.best_image is not None and iterate.image is not None:
            self.best_image[on_device] = iterate.image[on_device]
        self.best_noise.copy_rows(iterate.noise, on_device)

    @property
    def seconds_each(self) -> float:
        """Mean seconds of the iterations so far."""
        last = self.records[-1]
        return (last.seconds - self.seconds_before) / (last.step + 1)

    def at_best(self, read: Callable[[Record], Tensor]) -> Tensor:
        """Per image, `read(record)` (B,) at that image's best step."""
        by_step = {record.step: record for record in self.records}
        best = enumerate(self.best_step.tolist())
        return torch.stack([read(by_step[step])[image] for image, step in best])


def _numbers(values: Tensor) -> Tensor:
    return values.detach().float().cpu()
