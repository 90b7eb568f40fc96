"""A sampler's own code, outside the network: its draws are taped, its writes in place survived.

The network's calls look after themselves (they are recomputed), and step outside of this.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from types import FrameType

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ....dno.autograd.saved import Ledger, writes_allowed
from ....dno.draws import Draws, UnseenDraws, run
from .twins import HOST_PACKAGES

NO_SAMPLING = ("torch", "comfy.", "latent_preview")  # whose code may go without a gradient
TO_NUMPY = (Tensor.numpy, Tensor.__array__)
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
            self._stack.enter_context(_GradientKept(self._tell))
        self._stack.enter_context(UnseenDraws(self._like, self._tell))
        self._stack.enter_context(Draws(self._like, self._tell))
        self._stack.enter_context(_other_draws_told(self._tell))

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


@contextmanager
def _other_draws_told(tell: Callable[[str], None]) -> Iterator[None]:
    """Tells of draws from numpy's and Python's generators: repeated, but never moved."""
    before = _positions()
    yield
    for name, position in _positions().items():
        if position != before[name]:
            tell(f"The sampler draws by {name} what DNO cannot move")


def _positions() -> dict[str, object]:
    """How far the generators have come that torch does not know."""
    _, key, *place = np.random.get_state()  # the place comes round again after 624 draws
    return {"numpy": (key.tobytes(), *place), "Python's random": hash(random.getstate())}


class _GradientKept(TorchFunctionMode):
    """Where sampling code switches the gradient off or cuts it, by whatever way it was called, the
    gradient goes on; what cannot be kept is told.
    """

    def __init__(self, tell: Callable[[str], None]):
        super().__init__()
        self._tell = tell

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch._C._set_grad_enabled and not args[0] and _samples(_caller()[1]):
            return None
        if func is Tensor.detach and args[0].requires_grad and _samples(_caller()[1]):
            return args[0].clone()  # as in a twin
        if func in TO_NUMPY and args[0].requires_grad:
            self._tell("{} of {} computes with numpy, without a gradient".format(*_caller()))
            args = (args[0].detach(), *args[1:])
        result = run(func, args, kwargs)
        if not torch.is_grad_enabled() and isinstance(result, Tensor) and _cut(result, args):
            name, module = _caller()
            if _samples(module):
                self._tell(f"{name} of {module} computes without a gradient")
        return result


def _caller() -> tuple[str, str]:
    """Whose code has called torch: the function's name and its module's."""
    caller = sys._getframe(2)
    while _between(caller):
        decorated = caller.f_locals.get("func")
        if caller.f_code.co_name == "decorate_context" and decorated is not None:
            return decorated.__name__, str(decorated.__module__)
        caller = caller.f_back
    return caller.f_code.co_name, str(caller.f_globals.get("__name__", ""))


def _between(frame: FrameType) -> bool:
    """Whether a frame lies between the code that called torch and a mode that looks on."""
    module = str(frame.f_globals.get("__name__", ""))
    return module.split(".")[0] == "torch" or module in (__name__, run.__module__)


def _samples(module: str) -> bool:
    """Whether a module's code is a sampler's, ComfyUI's or another pack's."""
    return module.startswith(HOST_PACKAGES) or not module.startswith(
        (*NO_SAMPLING, __name__.split(".")[0])
    )


def _cut(result: Tensor, args: tuple) -> bool:
    wanted = any(isinstance(each, Tensor) and each.requires_grad for each in args)
    return wanted and result.is_floating_point() and not result.requires_grad
