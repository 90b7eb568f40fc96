"""Random draws of a sampler's code, seen where torch is called, by whatever name it is called."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from .noise import Tape

STANDARD = frozenset({torch.randn, torch.randn_like, torch.normal, Tensor.normal_})
OTHER = frozenset(
    {torch.rand, torch.rand_like, torch.bernoulli, torch.poisson}
    | {Tensor.uniform_, Tensor.bernoulli_, Tensor.exponential_, Tensor.cauchy_, Tensor.log_normal_}
)
NUMBERS = frozenset({Tensor.__float__, Tensor.__int__, Tensor.item, Tensor.tolist})
OWN_BOOKS = ("torchsde",)  # draws for itself, from seeds of its own

_tape: ContextVar[Tape | None] = ContextVar("tape", default=None)
_seen: ContextVar[bool] = ContextVar("seen", default=False)  # a draw that `Draws` looks after


@contextmanager
def over(tape: Tape | None) -> Iterator[None]:
    """Within, draws go over `tape`; over none if it is None."""
    token = _tape.set(tape)
    try:
        yield
    finally:
        _tape.reset(token)


def taped(draw: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`draw` as one draw over the tape of the moment, whatever it draws from inside."""

    def drawn(*args, **kwargs) -> Tensor:
        tape = _tape.get()
        if tape is None:
            return draw(*args, **kwargs)
        with over(None):
            return tape.draw(lambda: draw(*args, **kwargs))

    return drawn


def run(func, args: tuple, kwargs: dict | None):
    """The call itself, without torch's warning that a number has no gradient."""
    if func in NUMBERS and args[0].requires_grad:
        args = (args[0].detach(), *args[1:])
    return func(*args, **(kwargs or {}))


class Draws(TorchFunctionMode):
    """Within, every Gaussian draw of a batch of latents goes over the tape.

    It is drawn by the host even when another one is known, so that its generator is where it would
    be for what is not taped. like: (B,C,...), such a latent; it may grow or shrink on the way.
    tell: is given words for what cannot be taped, and so stays the same at every sampling.
    """

    def __init__(self, like: Tensor, tell: Callable[[str], None] = lambda words: None):
        super().__init__()
        self._batch, self._ndim, self._tell = len(like), like.ndim, tell

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func not in STANDARD and func not in OTHER:
            return run(func, args, kwargs)
        token = _seen.set(True)
        try:
            result = run(func, args, kwargs)
        finally:
            _seen.reset(token)
        tape = _tape.get()
        if tape is None or _keeps_own_books():
            return result
        if not isinstance(result, Tensor) or result.ndim != self._ndim:
            return result
        if func in OTHER or not self._is_standard(func, result, args, kwargs or {}):
            name = getattr(func, "__name__", str(func))
            self._tell(f"The sampler draws by torch's {name} what DNO cannot move")
            return result
        if func is Tensor.normal_:
            return result.copy_(tape.draw(result.clone))
        return tape.draw(lambda: result)

    def _is_standard(self, func, result: Tensor, args: tuple, kwargs: dict) -> bool:
        if len(result) != self._batch or not result.is_floating_point() or "out" in kwargs:
            return False
        if func in (torch.normal, Tensor.normal_):
            given = args if func is torch.normal else args[1:]
            named = dict(zip(("mean", "std"), given, strict=False)) | kwargs
            mean, std = named.get("mean", 0.0), named.get("std", 1.0)
            return (
                not isinstance(mean, Tensor)
                and not isinstance(std, Tensor)
                and (mean, std) == (0, 1)
            )
        return True


class UnseenDraws(TorchDispatchMode):
    """Tells of draws of a batch of latents that reach torch by another way than its functions."""

    def __init__(self, like: Tensor, tell: Callable[[str], None]):
        super().__init__()
        self._ndim, self._tell = like.ndim, tell

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        unseen = torch.Tag.nondeterministic_seeded in func.tags and not _seen.get()
        if unseen and _tape.get() and isinstance(result, Tensor) and result.ndim == self._ndim:
            self._tell(f"The sampler draws by torch's {func} what DNO cannot move")
        return result


def _keeps_own_books() -> bool:
    """Whether a library that is known to draw for itself has called."""
    caller = sys._getframe(2)
    return str(caller.f_globals.get("__name__", "")).startswith(OWN_BOOKS)
