"""The blocks of a network that nobody has described, found by how its modules are nested."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import nn

LISTS = (nn.ModuleList, nn.ModuleDict)


@contextmanager
def calls_noted(networks: Iterable[nn.Module]) -> Iterator[set[int]]:
    """Within, the id of every module that is called joins the set."""
    called: set[int] = set()
    handles = [
        module.register_forward_pre_hook(lambda module, arguments: called.add(id(module)))
        for network in networks
        for module in network.modules()
    ]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()


def find_blocks(network: nn.Module, called: set[int]) -> list[nn.Module]:
    """The outermost elements of a network's module lists, of those that an evaluation called.

    An element that is walked by somebody else, as a UNet's stages are, is opened: its modules are
    the blocks, and where one of these has lists of its own, as a stack of transformer blocks, those
    lists' elements. So is a sequence that is walked outside of a list (a UNet's middle).
    """
    return [block for child in network.children() for block in _within(child, called)]


def _within(module: nn.Module, called: set[int]) -> list[nn.Module]:
    """The blocks in a module that is no list's element."""
    if isinstance(module, LISTS):
        return [block for element in module.children() for block in _element(element, called)]
    if isinstance(module, nn.Sequential) and id(module) not in called:
        return _opened(module, called)
    return find_blocks(module, called)


def _element(module: nn.Module, called: set[int]) -> list[nn.Module]:
    if id(module) in called:
        return [module] if any(module.children()) else []
    return _opened(module, called)


def _opened(module: nn.Module, called: set[int]) -> list[nn.Module]:
    blocks = []
    for child in module.children():
        blocks += _within(child, called) or _element(child, called)
    return blocks
