"""A sampler's own code, outside the network: its draws are taped, its writes in place survived.

The network's calls look after themselves (they are recomputed), and step outside of this.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ....dno.autograd.saved import Ledger, writes_allowed
from ....dno.draws import Draws, run

NO_SAMPLING = ("torch", "comfy.", "latent_preview")  # whose code may go without a gradient
_now: ContextVar[Outside | None] = ContextVar("outside", default=None)


class Outside:
    """What holds while a sampler's function runs, but for the network's calls.

    like: a batch of latents. tell: is given words for what cannot be mended, once each.
    """

    def __init__(self, like: Tensor, tell: Callable[[str], None]):
        self._like, self._tell = like, tell
        self._ledger, self._stack = Ledger(), ExitStack()
        self._differentiating = torch.is_grad_enabled()

    @contextmanager
    def entered(self) -> Iterator[None]:
        token = _now.set(self)
        self._enter()
        try:
            yield
        finally:
            self._stack.close()
            _now.reset(token)

    def _enter(self) -> None:
        if self._differentiating:
            self._stack.enter_context(writes_allowed(ledger=self._ledger))
            self._stack.enter_context(_CutsTold(self._tell))
        self._stack.enter_context(Draws(self._like, self._tell))

    @contextmanager
    def left(self) -> Iterator[None]:
        self._stack.close()
        token = _now.set(None)
        try:
            yield
        finally:
            _now.reset(token)
            self._enter()


@contextmanager
def outside(like: Tensor, tell: Callable[[str], None]) -> Iterator[None]:
    """A sampler's function runs; one inside another shares what holds."""
    if _now.get() is not None:
        yield
        return
    with Outside(like, tell).entered():
        yield


@contextmanager
def inside() -> Iterator[None]:
    """A call of the network: nothing of it is watched here."""
    now = _now.get()
    if now is None:
        yield
        return
    with now.left():
        yield


class _CutsTold(TorchFunctionMode):
    """Tells of code that cuts the gradient by switching it off, which no twin was made of."""

    def __init__(self, tell: Callable[[str], None]):
        super().__init__()
        self._tell = tell

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = run(func, args, kwargs)
        if not torch.is_grad_enabled() and isinstance(result, Tensor) and _cut(result, args):
            caller = sys._getframe(1)
            while caller.f_code.co_name == "__torch_function__":  # another mode's
                caller = caller.f_back
            module = str(caller.f_globals.get("__name__", ""))
            if not module.startswith((*NO_SAMPLING, __name__.split(".")[0])):
                self._tell(f"{caller.f_code.co_name} of {module} computes without a gradient")
        return result


def _cut(result: Tensor, args: tuple) -> bool:
    wanted = any(isinstance(each, Tensor) and each.requires_grad for each in args)
    return wanted and result.is_floating_point() and not result.requires_grad
