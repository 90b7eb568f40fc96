"""The states of torch's generators, so that the same numbers are drawn again."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class TorchGenerators:
    """Where torch's generator on the CPU stands, and a device's own where it has one.

    Cheap to note; ``own`` is None where the device has none that can be asked.
    """

    cpu: Tensor
    own: Tensor | None
    device: torch.device

    @classmethod
    def now(cls, device: torch.device) -> TorchGenerators:
        """As they stand.

        >>> then = TorchGenerators.now(torch.device("cpu"))
        >>> first = torch.rand(2)
        >>> with then.during():
        ...     torch.equal(torch.rand(2), first)
        True
        """
        own = _own(device)
        return cls(torch.get_rng_state(), own[0]() if own else None, device)

    def restore(self) -> None:
        """Go on from here."""
        torch.set_rng_state(self.cpu)
        own = _own(self.device)
        if own and self.own is not None:
            own[1](self.own)

    @contextmanager
    def during(self) -> Iterator[None]:
        """Within, numbers come from here; after it, the generators go on as if nothing was."""
        present = TorchGenerators.now(self.device)
        self.restore()
        try:
            yield
        finally:
            present.restore()


@contextmanager
def same_draws(device: torch.device) -> Iterator[None]:
    """Within, torch draws the same numbers every time; after it, those that it would have drawn."""
    present = TorchGenerators.now(device)
    try:
        torch.default_generator.manual_seed(0)
        seed = getattr(getattr(torch, device.type), "manual_seed", None)
        if present.own is not None and seed:
            seed(0)
        yield
    finally:
        present.restore()


@cache
def _own(device: torch.device) -> tuple[Callable[[], Tensor], Callable[[Tensor], None]] | None:
    """How to read and to set the state of a device's own generator."""
    module = None if device.type == "cpu" else getattr(torch, device.type, None)
    if module is None or not hasattr(module, "get_rng_state"):
        return None
    if not inspect.signature(module.get_rng_state).parameters:  # MPS of older torch
        return module.get_rng_state, module.set_rng_state
    return (
        lambda: module.get_rng_state(device),
        lambda state: module.set_rng_state(state, device),
    )
