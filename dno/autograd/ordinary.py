"""Inference tensors as ordinary ones, which autograd can save, on the same storage."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only


def ordinary_tensor(tensor: Tensor) -> Tensor:
    """An inference tensor as one that autograd can save, on the same storage where possible.

    >>> with torch.inference_mode():
    ...     weight = torch.ones(2)
    >>> ordinary = ordinary_tensor(weight)
    >>> ordinary.is_inference(), ordinary.data_ptr() == weight.data_ptr()
    (False, True)
    """
    if not tensor.is_inference():
        return tensor
    with torch.inference_mode(False):
        if hasattr(tensor, "__tensor_flatten__"):  # a wrapper: ComfyUI's quantised weights
            return _rewrapped(tensor)
        if type(tensor) not in (Tensor, torch.nn.Parameter):
            return tensor.clone()
        alias = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        storage, offset = tensor.untyped_storage(), tensor.storage_offset()
        return alias.set_(storage, offset, tensor.size(), tensor.stride())


def _rewrapped(tensor: Tensor) -> Tensor:
    names, context = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    parts = {name: ordinary_tensor(getattr(tensor, name)) for name in names}
    unflatten = type(tensor).__tensor_unflatten__  # type: ignore[attr-defined]
    return unflatten(parts, context, tensor.size(), tensor.stride())


class OrdinaryArguments(TorchFunctionMode):
    """Hands every torch function ordinary tensors, wherever the model keeps inference tensors."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        args, kwargs = tree_map_only(Tensor, _unless_in_place(func), (args, kwargs or {}))
        return func(*args, **kwargs)


def _unless_in_place(func) -> Callable[[Tensor], Tensor]:
    attribute = getattr(func, "__name__", "") in ("__get__", "__set__", "is_inference")
    return (lambda tensor: tensor) if attribute else ordinary_tensor
