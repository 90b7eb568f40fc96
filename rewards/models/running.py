"""Running an encoder with a gradient: little memory, and half precision without underflow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

_HALF_PEAK = 16.0

Answer = TypeVar("Answer", Tensor, tuple[Tensor, ...])


def recompute(layers: Iterable[nn.Module]) -> None:
    """From now on each layer is computed again in backward: only its input is kept."""
    for layer in layers:
        layer.forward = partial(_recomputed, layer.forward)


def _recomputed(forward: Callable, *arguments, **keywords):
    if not torch.is_grad_enabled():
        return forward(*arguments, **keywords)
    return checkpoint(
        forward, *arguments, use_reentrant=False, preserve_rng_state=False, **keywords
    )


def encode(network: nn.Module, image: Tensor, compute: Callable[[Tensor], Answer]) -> Answer:
    """`compute(image)` where the weights are and in their precision; in and out as `image` is.

    The answer, one tensor or several, is fp32 at least. Where the weights are fp16, the gradient
    is scaled on its way through them: d(score)/d(pixel) is often below fp16's smallest number.
    """
    weight = next(network.parameters())
    scale = _Scale()
    half = weight.dtype == torch.float16
    given = _ScaledIn.apply(image, scale) if half else image
    answer = compute(given.to(weight.device, weight.dtype))
    parts = (answer,) if isinstance(answer, Tensor) else answer
    precision = torch.promote_types(image.dtype, torch.float32)
    parts = tuple(part.to(image.device).to(precision) for part in parts)
    parts = _ScaledOut.apply(scale, *parts) if half else parts
    return parts[0] if isinstance(answer, Tensor) else parts


def read(tokenizer, prompts: Sequence[str], length: int):
    """What a tokenizer makes of prompts, cut off or filled up: input_ids (B,length) and more."""
    return tokenizer(
        list(prompts),
        padding="max_length",
        truncation=True,
        max_length=length,
        return_tensors="pt",
    )


def unit(vectors: Tensor) -> Tensor:
    """Vectors (...,D) of length 1."""
    return normalize(vectors, dim=-1)


class _Scale:
    """What the gradient is multiplied by between `_ScaledOut` and `_ScaledIn`: a power of two."""

    factor = 1.0

    def fit(self, gradients: Iterable[Tensor]) -> None:
        """Such that the largest number comes to about `_HALF_PEAK`."""
        peak = max((float(gradient.abs().amax()) for gradient in gradients), default=0.0)
        usable = 0 < peak < math.inf
        self.factor = 2.0 ** round(math.log2(_HALF_PEAK / peak)) if usable else 1.0


class _ScaledIn(torch.autograd.Function):
    @staticmethod
    def forward(ctx, image: Tensor, scale: _Scale) -> Tensor:
        ctx.scale = scale
        return image.view_as(image)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient / ctx.scale.factor, None


class _ScaledOut(torch.autograd.Function):
    @staticmethod
    def forward(ctx, scale: _Scale, *answers: Tensor) -> tuple[Tensor, ...]:
        ctx.scale = scale
        ctx.set_materialize_grads(False)
        return tuple(answer.view_as(answer) for answer in answers)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        ctx.scale.fit(gradient for gradient in gradients if gradient is not None)
        factor = ctx.scale.factor
        return None, *(None if one is None else one * factor for one in gradients)
