"""Which evaluations of the network a climb differentiates; the others are constants to it."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Carried = Callable[[Tensor], bool]


def carrying(which: str, sigmas: Tensor) -> Carried:
    """The sampler's own arithmetic carries the gradient always.

    which: "all", "first" or "last N" steps. sigmas: the (steps + 1) levels.
    """
    if which == "all":
        return lambda sigma: True
    if which == "first":
        highest = sigmas[0] * (1 - 1e-4)
        return lambda sigma: bool((sigma >= highest.to(sigma)).all())
    steps = len(sigmas) - 1
    top = sigmas[steps - min(int(which.split()[-1]), steps)] * (1 + 1e-4)
    return lambda sigma: bool((sigma <= top.to(sigma)).all())
