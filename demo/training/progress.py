"""What every training loop here needs: a budget in minutes, checkpoints, resuming."""

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch

Item = TypeVar("Item")

SAVE_EVERY = 120.0
"""Seconds between two checkpoints: the most that an interruption costs."""


class Session:
    """A training run with a budget of computing time that survives interruptions.

    Time is the processor's per thread, not the clock's: on a machine that does other things too the
    learning rate falls with the work that was done.

    Whatever has ``state_dict`` and ``load_state_dict`` is saved and restored by name.
    """

    def __init__(self, path: Path, minutes: float, **parts: Any) -> None:
        """Resume from ``path`` if it is there."""
        self._path = path
        self._budget = minutes * 60
        self._parts = parts
        self._spent = 0.0
        self.step = 0
        if path.exists():
            self._restore()
        self._mark, self._saved = time.process_time(), time.monotonic()

    def _restore(self) -> None:
        state = torch.load(self._path, weights_only=True)
        self.step, self._spent = state.pop("step"), state.pop("seconds")
        torch.set_rng_state(state.pop("random"))
        for name, part in self._parts.items():
            part.load_state_dict(state[name])

    @property
    def seconds(self) -> float:
        """Processor time spent training, per thread, over all interruptions."""
        return self._spent + (time.process_time() - self._mark) / torch.get_num_threads()

    @property
    def progress(self) -> float:
        """Part of the budget that is used up, 1 when it is over."""
        return min(1.0, self.seconds / self._budget)

    def pace(self, warm: int) -> float:
        """Share of the full rate: up over the first `warm` steps, to zero over the second half."""
        return min(1.0, (self.step + 1) / warm) * min(1.0, max(0.005, 2 * (1 - self.progress)))

    def advance(self) -> None:
        """Count one step, and save when it is time."""
        self.step += 1
        if time.monotonic() - self._saved > SAVE_EVERY:
            self.save()

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {name: part.state_dict() for name, part in self._parts.items()}
        state |= {"step": self.step, "seconds": self.seconds, "random": torch.get_rng_state()}
        temporary = self._path.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, self._path)
        self._saved = time.monotonic()


def load_part(path: Path, name: str) -> dict[str, Any]:
    """The state of one part of a checkpoint."""
    return torch.load(path, weights_only=True)[name]


def say_progress(items: Iterable[Item], title: str, every: int = 20) -> Iterator[Item]:
    """The items; every so many a line with their number and the seconds spent."""
    start = time.monotonic()
    for index, item in enumerate(items):
        if index % every == 0:
            print(f"{title} {time.monotonic() - start:.0f} s batch {index}", flush=True)
        yield item
