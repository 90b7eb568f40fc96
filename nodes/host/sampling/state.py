"""What the host and other packs keep between two calls: the same at every sampling from one noise.

A sampling is a pure function of its noise. But hook keyframes, step caches, counters in closures
and torch's generators go on from call to call, and the host resets them once per sampling, of
which a climb makes hundreds inside one. So they are put back to where the run began before each
rendering, and to where they were before each call of the network that is recomputed. They are
found by what they are: containers, closures and attributes within reach of the model's options.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import comfy.hooks
import numpy as np
import torch
from torch import Tensor, nn

from ....dno.autograd.generators import TorchGenerators
from .holders import Holder, Running
from .reachable import reachable

SAMPLES = 64  # of a tensor, for its fingerprint


@dataclass(frozen=True)
class Generators:
    """The states of the generators that code may draw from: torch's, numpy's and Python's."""

    torch: TorchGenerators
    numpy: tuple
    python: tuple

    @classmethod
    def now(cls, device: torch.device) -> Generators:
        return cls(TorchGenerators.now(device), np.random.get_state(), random.getstate())

    def restore(self) -> None:
        self.torch.restore()
        np.random.set_state(self.numpy)
        random.setstate(self.python)

    @contextmanager
    def during(self) -> Iterator[None]:
        """Within, code draws from here; after, the present generators go on as if nothing was."""
        present = Generators.now(self.torch.device)
        self.restore()
        try:
            yield
        finally:
            present.restore()


class HostState:
    """The state within reach of some roots, as it was when this was made and as it is now.

    roots:    a model's options, the sampler, the guider: whatever may lead to state.
    networks: modules whose own attributes other packs may use.
    patchers: ComfyUI's, whose weights follow hooks.
    """

    def __init__(
        self,
        roots: Iterable[object] = (),
        networks: Iterable[nn.Module] = (),
        patchers: Iterable[object] = (),
        device: torch.device | None = None,
    ):
        self._roots, self._patchers = list(roots), list(patchers)
        self._modules = [module for network in networks for module in network.modules()]
        self._device = device or torch.device("cpu")
        self.generators = Generators.now(self._device)
        self._start = self._holders()
        self._renderings = 0

    @property
    def running(self) -> list[str]:
        """Who keeps an iterator, which cannot be set back."""
        owners = (holder.owner for holder in self._start if isinstance(holder, Running))
        return [getattr(owner, "__qualname__", type(owner).__name__) for owner in owners]

    def restart(self, generators: Generators | None = None) -> None:
        """As it was at first, or with these generators instead: a rendering begins."""
        self._renderings += 1
        if self._renderings == 2:  # what one rendering has not touched is no state
            touched = {id(holder.owner) for holder in self._start if holder.changed()}
            self._modules = [module for module in self._modules if id(module) in touched]
        self._put(self._start)
        (generators or self.generators).restore()

    def capture(self) -> Callable[[], AbstractContextManager[None]]:
        """Before a call of the network: gives a context in which all is as it is now."""
        then, drawn = self._holders(), Generators.now(self._device)

        @contextmanager
        def again() -> Iterator[None]:
            now = self._holders()
            self._put(then)
            try:
                with drawn.during():
                    yield
            finally:
                self._put(now)

        return again

    def fingerprint(self) -> tuple[float, ...]:
        """Of every tensor that the state has gained without a gradient of its own.

        What differs depends on the noise, and its gradient is lost.
        """
        at_first = {id(value) for holder in self._start for value in holder.values()}
        gained = (value for holder in self._holders() for value in holder.values())
        return tuple(
            _fingerprint(value)
            for value in gained
            if isinstance(value, Tensor) and not value.requires_grad and id(value) not in at_first
        )

    def _holders(self) -> list[Holder]:
        return list(reachable(self._roots, self._modules))

    def _put(self, kept: list[Holder]) -> None:
        changed = [holder for holder in kept if holder.restore()]
        if any(isinstance(holder.owner, comfy.hooks.HookKeyframeGroup) for holder in changed):
            for patcher in self._patchers:  # its weights are of another keyframe: patch them anew
                patcher.cached_hook_patches.clear()
                patcher.patch_hooks(None)


@torch.no_grad()
def _fingerprint(tensor: Tensor) -> float:
    flat = tensor.detach().reshape(-1)
    sample = flat[:: max(1, len(flat) // SAMPLES)]
    return float(sample.double().abs().sum()) if sample.numel() else 0.0
