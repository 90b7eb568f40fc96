"""Running an encoder with a gradient: little memory, and half precision without underflow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from ...dno.autograd.blocks import by_block
from ...dno.autograd.recompute import Recomputer
from ...dno.autograd.scaled import Answer, scaled

_recomputers: WeakKeyDictionary[nn.Module, Recomputer] = WeakKeyDictionary()


def recompute(layers: Iterable[nn.Module]) -> None:
    """From now on `encode` computes each layer again in backward: only its input is kept."""
    for layer in layers:
        _recomputers[layer] = Recomputer()


def encode(network: nn.Module, image: Tensor, compute: Callable[[Tensor], Answer]) -> Answer:
    """`compute(image)` where the weights are and in their precision; in and out as `image` is.

    image: (B,...), and so is the answer, one tensor or several, fp32 at least. Where the weights
    are fp16, the gradient is scaled on its way: d(reward)/d(pixel) is often below fp16's smallest.
    """
    weight = next(network.parameters())
    precision = torch.promote_types(image.dtype, torch.float32)

    def run(given: Tensor) -> Answer:
        with by_block(filter(_recomputers.__contains__, network.modules()), _recomputers):
            answer = compute(given.to(weight.device, weight.dtype))
        if isinstance(answer, Tensor):
            return answer.to(image.device).to(precision)
        return tuple(part.to(image.device).to(precision) for part in answer)

    return (scaled(run) if weight.dtype == torch.float16 else run)(image)


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
