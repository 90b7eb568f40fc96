"""Weights that come and go, as newer ComfyUI streams them on NVIDIA cards (dynamic VRAM)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.ops
import numpy as np
import torch
from torch import Tensor

from .device import OnDevice

NAN = 0xFF  # each byte of a float that is not a number


class Buffer:
    """Memory of the device into which every streamed weight is cast, one layer after another.

    Each cast gives new tensors over the same memory, so that neither autograd's version counters
    nor a storage's identity tell that it was written again. After its use it holds NaN. Layers
    that are in use together lie one behind the other.

    casts: how many layers were cast so far; spoilt: how often what was there became NaN after use.
    """

    def __init__(self, size: int):
        self._bytes = np.full(size, NAN, np.uint8)
        self._used: dict[int, Tensor] = {}
        self._end = 0
        self.casts = self.spoilt = 0

    def place(self, tensors: list[Tensor]) -> list[Tensor]:
        if not self._used:
            self._bytes.fill(NAN)
            self._end = 0
        self.casts += 1
        start, placed = self._end, []
        for tensor in tensors:
            count = tensor.numel() * tensor.element_size()
            memory = torch.from_numpy(self._bytes[start : start + count])
            memory = memory.view(tensor.dtype).view(tensor.shape)
            memory.copy_(tensor.raw)
            placed.append(OnDevice(memory))
            start += -(-count // 16) * 16
        self._used.update({id(tensor): tensor for tensor in placed})
        self._end = start
        return placed

    def release(self, *tensors: Tensor | None) -> None:
        for tensor in tensors:
            self._used.pop(id(tensor), None)
        if not self._used:
            self._bytes.fill(NAN)
            self.spoilt += 1


@contextmanager
def one_buffer(size: int = 2**22) -> Iterator[Buffer]:
    """Within, ComfyUI casts the weights that are not resident into one buffer."""
    buffer = Buffer(size)
    cast, uncast = comfy.ops.cast_bias_weight, comfy.ops.uncast_bias_weight

    def cast_bias_weight(s, *args, offloadable=False, **kwargs):
        got = cast(s, *args, offloadable=offloadable, **kwargs)
        own = {id(s.weight), id(s.bias)}
        streamed = [t for t in got[:2] if isinstance(t, OnDevice) and id(t) not in own]
        if not (offloadable and streamed):
            return got
        placed = dict(zip(map(id, streamed), buffer.place(streamed), strict=True))
        return (*(placed.get(id(tensor), tensor) for tensor in got[:2]), got[2])

    def uncast_bias_weight(s, weight, bias, stream):
        uncast(s, weight, bias, stream)
        buffer.release(weight, bias)

    comfy.ops.cast_bias_weight, comfy.ops.uncast_bias_weight = cast_bias_weight, uncast_bias_weight
    try:
        yield buffer
    finally:
        comfy.ops.cast_bias_weight, comfy.ops.uncast_bias_weight = cast, uncast
