"""Gradients that survive half precision: scaled on their way through a call, image by image.

fp16 has no number below 6e-8, and d(reward)/d(pixel) is often smaller. A gradient's way through a
call is linear in it, so it may be multiplied where it enters and divided where it leaves, by powers
of two without any rounding. Every image of a batch has a factor of its own: one whose reward is a
thousand times steeper does not drown its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

PEAK = 0  # the largest number of each image's gradient comes to 2**PEAK, or up to twice that

Answer = TypeVar("Answer", Tensor, tuple[Tensor, ...])


def scaled(call: Callable[..., Answer], apart: bool = True) -> Callable[..., Answer]:
    """`call`, from tensors (B,...) to a tensor or several, with its gradient scaled inside.

    Row i of an output belongs to row i of the inputs alone; if not (`apart` is False), or if an
    output has not B rows, the batch has one factor. Inputs and outputs are of a precision that
    holds the gradient outside: the casts to half and back belong into `call`.

    >>> half = scaled(lambda x: (x.half() * 0.5).float())
    >>> x = torch.ones(1, 3, requires_grad=True)
    >>> torch.autograd.grad(half(x).sum() * 2.0**-40, x)[0] == 2.0**-41
    tensor([[True, True, True]])
    """

    def run(*inputs: Tensor) -> Answer:
        if not (torch.is_grad_enabled() and any(x.requires_grad for x in inputs)):
            return call(*inputs)
        scale = _Scale(len(inputs[0]) if apart else 1)
        answer = call(*_Leaving.apply(scale, *inputs))
        if isinstance(answer, Tensor):
            return _Entering.apply(scale, answer)[0]
        return _Entering.apply(scale, *answer)

    return run


class _Scale:
    """The factors of one call: powers of two, set where its gradient enters it."""

    def __init__(self, images: int) -> None:
        self.images = images
        self.exponents: Tensor | None = None  # (B,), or (1,) for the batch as one

    def fit(self, gradients: list[Tensor]) -> None:
        """From the largest number of each image's gradient; nothing is read back from the card."""
        alone = all(len(gradient) == self.images for gradient in gradients)
        rows = [gradient.reshape(self.images if alone else 1, -1) for gradient in gradients]
        peaks = [row.abs().amax(1).float().to(gradients[0].device) for row in rows]
        peak = torch.stack(peaks).amax(0)
        exponents = (PEAK + 1 - torch.frexp(peak).exponent).clamp(-100, 100)
        self.exponents = torch.where((peak > 0) & peak.isfinite(), exponents, 0)

    def times(self, gradient: Tensor, sign: int) -> Tensor:
        if self.exponents is None:
            return gradient
        shape = (-1, *[1] * (gradient.ndim - 1))
        exponents = (sign * self.exponents).to(gradient.device).reshape(shape)
        return gradient * torch.ldexp(torch.ones_like(exponents, dtype=gradient.dtype), exponents)


class _Leaving(torch.autograd.Function):
    """The inputs of a call: here its gradient leaves, as it would without scaling."""

    @staticmethod
    def forward(ctx, scale: _Scale, *inputs: Tensor) -> tuple[Tensor, ...]:
        ctx.scale = scale
        ctx.set_materialize_grads(False)
        return tuple(x.view_as(x) for x in inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, *(None if one is None else ctx.scale.times(one, -1) for one in gradients)


class _Entering(torch.autograd.Function):
    """The outputs of a call: here its gradient enters."""

    @staticmethod
    def forward(ctx, scale: _Scale, *outputs: Tensor) -> tuple[Tensor, ...]:
        ctx.scale = scale
        ctx.set_materialize_grads(False)
        return tuple(output.view_as(output) for output in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        ctx.scale.fit([one for one in gradients if one is not None])
        return None, *(None if one is None else ctx.scale.times(one, 1) for one in gradients)
