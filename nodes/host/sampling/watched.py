"""A sampler's twin as it runs: its draws taped, its writes survived, its predictions shown."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .outside import outside
from .twins import Twins

Seen = Callable[[Tensor, Tensor], None]


class Twin:
    """A sampler's differentiable twin, or the sampler itself where none can be made."""

    def __init__(self, sampler):
        self.twin, self._reason = sampler, ""
        try:
            self.twin = Twins().sampler(sampler)
        except TypeError as error:
            self._reason = f"This sampler cannot be differentiated: {error}."

    def watched(self, like: Tensor, warn: Callable[[str], None], seen: Seen | None = None):
        """A copy whose function runs with its draws taped and its writes survived."""
        if self._reason and torch.is_grad_enabled():
            raise ValueError(f"{self._reason} Choose one of ComfyUI's own.")
        sampler = copy.copy(self.twin)
        name = "sampler_function" if hasattr(sampler, "sampler_function") else "sample"
        function = getattr(sampler, name)

        def run(model, *args, **kwargs):
            with outside(like, warn), _own_sigmas(args) as own:
                return function(_Watched(model, seen) if seen else model, *own, **kwargs)

        setattr(sampler, name, run)
        return sampler


@contextmanager
def _own_sigmas(args: tuple) -> Iterator[tuple]:
    """uni_pc writes into sigmas that autograd has saved: let it write into a copy, then tell."""
    own = tuple(a.clone() if isinstance(a, Tensor) and a.ndim == 1 else a for a in args)
    yield own
    for given, written in zip(args, own, strict=True):
        if written is not given:
            given.data.copy_(written)  # past the version counter: what was saved did not change


class _Watched:
    """A denoiser that shows what it predicts; in all else the denoiser itself."""

    def __init__(self, model, seen: Seen):
        vars(self).update(model=model, seen=seen)

    def __call__(self, x: Tensor, sigma: Tensor, *args, **kwargs) -> Tensor:
        denoised = self.model(x, sigma, *args, **kwargs)
        self.seen(denoised, sigma)
        return denoised

    def __getattr__(self, name: str):
        return getattr(self.model, name)

    def __setattr__(self, name: str, value) -> None:
        setattr(self.model, name, value)
