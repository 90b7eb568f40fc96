"""From tensors to a network that holds them: no memory but the file's, no random weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.overrides import TorchFunctionMode

Network = TypeVar("Network", bound=nn.Module)
Shapes = Mapping[str, tuple[int, ...]]


def assemble(make: Callable[[], Network], state: Mapping[str, Tensor], title: str) -> Network:
    """`make()` with the tensors of `state` as its weights, frozen and in evaluation mode.

    Names that the network does not have are left out. Raises ValueError, naming `title`, where a
    weight is missing or has another shape.

    >>> assemble(lambda: nn.Linear(2, 1), {"weight": torch.ones(1, 2), "bias": torch.ones(1)}, "")
    Linear(in_features=2, out_features=1, bias=True)
    """
    with _WithoutStorage():
        network = make()
    wanted = network.state_dict()
    for name, weight in wanted.items():
        given = state.get(name)
        if given is not None and given.shape != weight.shape:
            raise ValueError(
                f"This {title} file does not fit: {name} has shape {tuple(given.shape)} where "
                f"{tuple(weight.shape)} is needed; get the published file."
            )
    network.load_state_dict({n: t for n, t in state.items() if n in wanted}, False, assign=True)
    lacking = [n for n, weight in network.named_parameters() if n not in state or weight.is_meta]
    if lacking:
        raise ValueError(
            f"This {title} file is incomplete: {lacking[0]} and {len(lacking) - 1} more are "
            "missing; get the published file."
        )
    return network.train(False).requires_grad_(False)


def without_prefix(names: Iterable[str], prefixes: Iterable[str]) -> dict[str, str]:
    """Every name -> the name without the first of the prefixes that it has.

    >>> without_prefix(["model.a", "b"], ["model."])
    {'model.a': 'a', 'b': 'b'}
    """
    prefixes = tuple(prefixes)
    return {
        name: next((name[len(p) :] for p in prefixes if name.startswith(p)), name) for name in names
    }


def layers(names: Iterable[str], stem: str) -> int:
    """How many numbers follow `stem`: `layers(names, "encoder.layers.")`.

    >>> layers(["h.0.weight", "h.0.bias", "h.1.weight"], "h.")
    2
    """
    return len({n[len(stem) :].split(".")[0] for n in names if n.startswith(stem)})


def dense(linears: Iterable[nn.Module], values: Tensor) -> Tensor:
    """Linear layers one after the other, in the precision and on the device of the values.

    >>> dense([nn.Linear(2, 1)], torch.ones(3, 2)).shape
    torch.Size([3, 1])
    """
    for layer in linears:
        assert isinstance(layer, nn.Linear)
        bias = None if layer.bias is None else layer.bias.to(values)
        values = linear(values, layer.weight.to(values), bias)
    return values


class _WithoutStorage(TorchFunctionMode):
    """Weights are made without memory; buffers, which no file holds, are made as they are."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)
