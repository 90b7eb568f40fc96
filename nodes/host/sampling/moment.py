"""The moment of a block's evaluation: cheap to note, as there are many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from ....dno.autograd.recompute import Remember


def block_moment(patcher, device: torch.device) -> Remember:
    """What a block's evaluation depends on beside its arguments: generators and hooked weights."""
    generators = None if device.type == "cpu" else getattr(torch, device.type, None)

    def states() -> tuple:
        return torch.get_rng_state(), generators.get_rng_state(device) if generators else None

    def put(then: tuple) -> None:
        torch.set_rng_state(then[0])
        if generators:
            generators.set_rng_state(then[1], device)

    def moment() -> Callable[[], AbstractContextManager]:
        then, hooks = states(), getattr(patcher, "current_hooks", None)

        @contextmanager
        def again() -> Iterator[None]:
            present = states()
            put(then)
            if getattr(patcher, "current_hooks", None) != hooks:
                with torch.no_grad():
                    patcher.apply_hooks(hooks=hooks)
            try:
                yield
            finally:
                put(present)

        return again

    return moment
