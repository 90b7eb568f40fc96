"""The optimised variable: every Gaussian number that one sampling consumes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

SCOPES = ("all", "initial", "injected")


class Noise:
    """The initial noise and the noise injected at each step, as leaves that can be optimised.

    `z` of arXiv 2405.18881, section 3: with a deterministic sampler the initial noise alone, with a
    stochastic one the injected draws too. Every tensor is (B, ...) with image i in row i.

    initial:  (B,C,H,W) or (B,C,T,H,W), standard normal.
    injected: the draws in the order in which the sampler asked for them.
    scope:    which part is optimised: "all", "initial" (ReNO, D-Flow, DOODL) or "injected".
    """

    def __init__(self, initial: Tensor, injected: Iterable[Tensor] = (), scope: str = "all"):
        if scope not in SCOPES:
            raise ValueError(f"Noise: scope is {scope!r}; choose one of {', '.join(SCOPES)}.")
        self.scope = scope
        self.initial = self._leaf(initial, scope != "injected")
        self.injected = [self._leaf(draw, scope != "initial") for draw in injected]

    @staticmethod
    def _leaf(tensor: Tensor, optimised: bool) -> Tensor:
        return tensor.detach().clone().requires_grad_(optimised)

    def tensors(self) -> list[Tensor]:
        """Every tensor, the initial noise first."""
        return [self.initial, *self.injected]

    def leaves(self) -> list[Tensor]:
        """The tensors that are optimised."""
        return [tensor for tensor in self.tensors() if tensor.requires_grad]

    def tape(self) -> Tape:
        """A reader that plays the injected draws back from the first to the last."""
        return Tape(self)

    def snapshot(self, device: torch.device | str | None = None) -> Noise:
        """A detached copy, independent of further optimisation; on another device if given."""
        with torch.no_grad():
            tensors = [tensor.to(device or tensor.device) for tensor in self.tensors()]
            return Noise(tensors[0], tensors[1:], self.scope)

    def split(self, batch: int) -> list[Noise]:
        """Detached noises of `batch` images each, in order."""
        parts = zip(*(tensor.split(batch) for tensor in self.tensors()), strict=True)
        return [Noise(initial, injected, self.scope) for initial, *injected in parts]

    @torch.no_grad()
    def copy_rows(self, other: Noise, rows: Tensor) -> None:
        """Overwrite the images where `rows` (B,) is true with those of `other`."""
        while len(self.injected) < len(other.injected):
            draw = other.injected[len(self.injected)].to(self.initial.device)
            self.injected.append(self._leaf(draw, self.scope != "initial"))
        for mine, theirs in zip(self.tensors(), other.tensors(), strict=False):
            mine[rows.to(mine.device)] = theirs.to(mine.device)[rows.to(mine.device)]

    def record(self, draw: Tensor) -> Tensor:
        """Append a fresh draw of the host's and return the leaf that stands for it."""
        self.injected.append(self._leaf(draw, self.scope != "initial"))
        return self.injected[-1]


class Tape:
    """One sampling's view of the injected noise: records what is new, replays what is known."""

    def __init__(self, noise: Noise):
        self._noise = noise
        self._position = 0

    @property
    def used(self) -> int:
        """How many draws the sampling has asked for."""
        return self._position

    def draw(self, host: Callable[[], Tensor]) -> Tensor:
        """The next injected draw: the known one, or `host()` recorded as a new leaf."""
        position, self._position = self._position, self._position + 1
        if position < len(self._noise.injected):
            return self._noise.injected[position]
        return self._noise.record(host())
