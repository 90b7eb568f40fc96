"""Running an encoder with a gradient: little memory, and half precision without underflow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

_HALF_SCALE = 4096.0


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


def encode(network: nn.Module, image: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """`compute(image)` where the weights are and in their precision; in and out as `image` is.

    The answer is fp32 at least. Where the weights are fp16, the gradient is large on its way
    through them: d(score)/d(pixel) is often below fp16's smallest number.
    """
    weight = next(network.parameters())
    scale = _HALF_SCALE if weight.dtype == torch.float16 else 1.0
    given = _ScaleGradient.apply(image, 1 / scale).to(weight.device, weight.dtype)
    answer = compute(given).to(image.device)
    answer = answer.to(torch.promote_types(image.dtype, torch.float32))
    return _ScaleGradient.apply(answer, scale)


def unit(vectors: Tensor) -> Tensor:
    """Vectors (...,D) of length 1."""
    return normalize(vectors, dim=-1)


class _ScaleGradient(torch.autograd.Function):
    """Its argument; the gradient is multiplied."""

    @staticmethod
    def forward(ctx, tensor: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return tensor.view_as(tensor)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.factor, None
