"""Gradient checkpointing that stays exact on models that write into tensors in place.

`torch.utils.checkpoint` hides the in-place error of Flux, Chroma, HunyuanVideo and LTXV and returns
wrong gradients without a word. Here the first call is watched for such writes, and later ones run
under plain autograd, whose version counters see them; what cures a call is remembered.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .ordinary import OrdinaryArguments
from .saved import OVERWRITTEN, writes_allowed

Call = Callable[[Tensor], tuple[Tensor, ...]]


class GradientCutError(ValueError):
    """A call that was to be differentiated gave an output without a gradient."""


# What autograd says -> what makes the same call differentiable.
REMEDIES: dict[str, Callable[[], AbstractContextManager]] = {
    OVERWRITTEN: writes_allowed,
    "Inference tensors cannot be saved": OrdinaryArguments,
}


class Recomputer:
    """Runs calls so that memory is flat in their number, recording some outright if there is room.

    budget:   bytes that recorded calls may keep until their backward (0: recompute every call).
    resident: storage addresses of weights, which cost nothing to save.
    watch:    called before every evaluation, forward and recomputed (interrupt, progress).
    remember: called before every evaluation; gives a context in which to repeat it.
    """

    def __init__(
        self,
        budget: int = 0,
        resident: frozenset[int] = frozenset(),
        watch: Callable[[bool], None] = lambda recomputed: None,
        remember: Callable[[], Callable[[], AbstractContextManager]] | None = None,
    ):
        self.budget, self.resident, self.watch = budget, resident, watch
        self._remember = remember or (lambda: nullcontext)
        self.remedies: list[str] = []
        self.bytes_per_call: int | None = None
        self._kept = 0

    def restart(self) -> None:
        """Forget what the last sampling kept: its graph is gone."""
        self._kept = 0

    @property
    def recording(self) -> bool:
        """Whether any call of this sampling was recorded outright."""
        return self._kept > 0

    def __call__(self, call: Call, x: Tensor) -> tuple[Tensor, ...]:
        """`call(x)`, differentiable with respect to `x` if grad mode is on and `x` requires it."""
        self.watch(False)
        if not (torch.is_grad_enabled() and x.requires_grad):
            return call(x)
        if self._room():
            self._kept += self.bytes_per_call or 0
            return call(x)
        return _Recompute.apply(self, call, x)

    def _room(self) -> bool:
        if self.bytes_per_call is None or self.remedies:
            return False
        return self._kept + self.bytes_per_call <= self.budget

    def pull(self, call: Call, x: Tensor, gradients, again) -> Tensor | None:
        """Repeat `call(x)` with a graph, within `again()`, and pull `gradients` back to `x`."""
        self.watch(True)
        while True:
            try:
                with again():
                    return self._remedied(call, x, gradients)
            except RuntimeError as error:
                self._learn(error)

    def _remedied(self, call: Call, x: Tensor, gradients) -> Tensor | None:
        unknown = self.bytes_per_call is None and OVERWRITTEN not in self.remedies
        with ExitStack() as stack:
            for remedy in self.remedies:
                stack.enter_context(REMEDIES[remedy]())
            ledger = stack.enter_context(writes_allowed(self.resident)) if unknown else None
            result = self._pull(call, x, gradients)
        if ledger and ledger.overwritten:
            self.remedies.append(OVERWRITTEN)
        elif ledger:
            self.bytes_per_call = ledger.bytes
        return result

    def _learn(self, error: RuntimeError) -> None:
        for message in REMEDIES:
            if message in str(error) and message not in self.remedies:
                self.remedies.append(message)
                return
        raise error

    def _pull(self, call: Call, x: Tensor, gradients: tuple[Tensor | None, ...]) -> Tensor | None:
        leaf = x.detach().requires_grad_()
        with torch.enable_grad():
            outputs = call(leaf.clone())  # the call may write into its input
            pairs = [
                (output, gradient)
                for output, gradient in zip(outputs, gradients, strict=True)
                if gradient is not None and output.requires_grad
            ]
            if not any(output.requires_grad for output in outputs):
                raise GradientCutError(
                    "The model cannot be differentiated: its output has lost the gradient."
                )
            if not pairs:
                return None
            wanted, given = zip(*pairs, strict=True)
            (result,) = torch.autograd.grad(wanted, leaf, given, allow_unused=True)
        return result


class _Recompute(torch.autograd.Function):
    @staticmethod
    def forward(ctx, recomputer: Recomputer, call: Call, x: Tensor):
        ctx.recomputer, ctx.call, ctx.again = recomputer, call, recomputer._remember()
        ctx.save_for_backward(x)
        ctx.set_materialize_grads(False)
        return call(x.clone())

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        (x,) = ctx.saved_tensors
        return None, None, ctx.recomputer.pull(ctx.call, x, gradients, ctx.again)
