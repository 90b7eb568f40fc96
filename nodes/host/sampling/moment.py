"""The moment of a block's evaluation: cheap to note, as there are many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import torch

from ....dno.autograd.generators import TorchGenerators
from ....dno.autograd.recompute import Remember


def block_moment(patcher, device: torch.device) -> Remember:
    """What a block's evaluation depends on beside its arguments: generators and hooked weights."""

    def moment() -> Callable[[], AbstractContextManager]:
        then, hooks = TorchGenerators.now(device), getattr(patcher, "current_hooks", None)

        @contextmanager
        def again() -> Iterator[None]:
            with then.during():
                if getattr(patcher, "current_hooks", None) != hooks:
                    with torch.no_grad():
                        patcher.apply_hooks(hooks=hooks)
                yield

        return again

    return moment
