"""Ordinary tensors for the time of a run, in place of the inference tensors of earlier nodes.

ComfyUI runs nodes under `torch.inference_mode`, so weights, conditioning and sigmas made before us
cannot be saved for backward. An ordinary tensor on the same storage can; nothing is copied.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ...dno.autograd.ordinary import ordinary_tensor
from ...dno.autograd.saved import address


@contextmanager
def ordinary_modules(modules: Iterable[torch.nn.Module]) -> Iterator[frozenset[int]]:
    """Give every parameter and buffer an ordinary, frozen twin; put the originals back at the end.

    Yields the storage addresses of the weights.
    """
    memo: dict[int, Tensor] = {}
    swapped: list[tuple[dict, str, object]] = []
    try:
        for module in _every_module(modules):
            for table in (module._parameters, module._buffers, vars(module)):
                for name, value in list(table.items()):
                    if isinstance(value, Tensor):
                        swapped.append((table, name, value))
                        table[name] = _frozen(value, memo)
        yield frozenset(address(tensor) for tensor in memo.values())
    finally:
        for table, name, value in reversed(swapped):
            table[name] = value


def _every_module(modules: Iterable[torch.nn.Module]) -> Iterator[torch.nn.Module]:
    seen: set[int] = set()
    for root in modules:
        for module in root.modules():
            if id(module) not in seen:
                seen.add(id(module))
                yield module


def _frozen(value: Tensor, memo: dict[int, Tensor]) -> Tensor:
    if id(value) not in memo:
        tensor = ordinary_tensor(value)
        if isinstance(value, torch.nn.Parameter):
            tensor = torch.nn.Parameter(tensor.detach(), requires_grad=False)
        memo[id(value)] = tensor
    return memo[id(value)]


def ordinary(value):
    """`value` with every inference tensor in its dicts, lists, tuples and conditions replaced.

    Containers are copied, so that the caller's stay what they were.
    """
    if isinstance(value, Tensor):
        return ordinary_tensor(value)
    if isinstance(value, dict):
        return {key: ordinary(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(ordinary(item) for item in value)
    if hasattr(value, "_copy_with") and hasattr(value, "cond"):  # comfy.conds.CONDRegular and kin
        twin = copy.copy(value)
        twin.cond = ordinary(value.cond)
        return twin
    return value
