"""What several terms of one objective have in common is computed once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch

T = TypeVar("T")

_shared: ContextVar[dict | None] = ContextVar("shared", default=None)


@contextmanager
def sharing() -> Iterator[None]:
    """Within, `once` remembers; a scope inside another shares the outer one's values.

    >>> with sharing():
    ...     image = torch.ones(1)
    ...     once('a', image, torch.exp) is once('a', image, torch.exp)
    True
    """
    if _shared.get() is not None:
        yield
        return
    token = _shared.set({})
    try:
        yield
    finally:
        _shared.reset(token)


def once(owner: Hashable, argument: object, compute: Callable[[Any], T]) -> T:
    """`compute(argument)`; the second time in a `sharing` scope, what it gave the first time.

    Values, tensors or tuples of them, are told apart by `owner` (what computes), by the very object
    `argument`, and by whether gradients are recorded: without, one that has a graph is detached.

    >>> once("twice", torch.ones(1), lambda x: 2 * x)
    tensor([2.])
    """
    values = _shared.get()
    if values is None:
        return compute(argument)
    key, recording = (owner, id(argument)), torch.is_grad_enabled()
    if (key, True) in values and not recording:
        return _detached(values[key, True][1])
    if (key, recording) not in values:
        # the argument is kept, so that its id is too
        values[key, recording] = (argument, compute(argument))
    return values[key, recording][1]


def _detached(value):
    if isinstance(value, tuple):
        return tuple(map(_detached, value))
    return value.detach()
