"""Modules that keep their inputs only, and are computed again in backward: a network by blocks.

In backward one block holds its activations at a time. A block may take and give tensors in any
nesting of tuples, lists, dicts and dataclasses, write into its inputs and into its containers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .arguments import Nested, write
from .graph import HiddenInputError
from .recompute import Recomputer


@contextmanager
def by_block(
    modules: Iterable[nn.Module],
    known: MutableMapping[nn.Module, Recomputer] | None = None,
    **options,
) -> Iterator[Blocks]:
    """Within, each of the modules is recomputed in backward; `options` are a Recomputer's.

    Where grad mode is off nothing changes. A module's `forward` is put back as it was, also where
    somebody had given that one instance a forward of its own.

    known: the Recomputers of earlier times, with what they have learnt; new ones are added to it.
    """
    blocks, before, known = Blocks(), [], {} if known is None else known
    try:
        for module in {id(module): module for module in modules}.values():
            before.append((module, vars(module).get("forward")))
            if module not in known:
                known[module] = Recomputer(complete=True, **options)
            block = Block(module, blocks, known[module])
            blocks.all.append(block)
            module.forward = block
        yield blocks
    finally:
        for module, forward in reversed(before):
            if forward is None:
                vars(module).pop("forward", None)
            else:
                module.forward = forward


class Blocks:
    """The blocks of a network, switched together.

    active: whether they are recomputed; else they run as if they were not there.
    """

    def __init__(self) -> None:
        self.all: list[Block] = []
        self.active = True

    @contextmanager
    def switched(self, active: bool, measuring: bool = False) -> Iterator[None]:
        """Within, recomputed or not; `measuring`: see Recomputer."""
        before, self.active = self.active, active
        for block in self.all:
            block.recomputer.measuring = measuring
        try:
            yield
        finally:
            self.active = before
            for block in self.all:
                block.recomputer.measuring = False

    @property
    def sizes(self) -> list[int]:
        """Bytes that a record of each block keeps, of those that are known."""
        known = (block.recomputer.bytes_per_call for block in self.all)
        return [size for size in known if size is not None]

    def restart(self) -> None:
        """A new sampling begins: see Recomputer.restart."""
        for block in self.all:
            block.recomputer.restart()


class Block:
    """A module's `forward` of which only the inputs are kept."""

    def __init__(self, module: nn.Module, blocks: Blocks, recomputer: Recomputer):
        self.forward, self.name, self.recomputer = module.forward, type(module).__name__, recomputer
        self._blocks = blocks
        self._plain = False  # it depends on more than its arguments: recorded as it is

    def __call__(self, *arguments, **keywords):
        if self._plain or not (self._blocks.active and torch.is_grad_enabled()):
            return self.forward(*arguments, **keywords)
        nested = Nested((arguments, keywords))
        tensors, containers = nested.taken()
        if not any(tensor.requires_grad for tensor in tensors):
            return self.forward(*arguments, **keywords)
        call = _Call(self.forward, nested)
        try:
            outputs = self.recomputer(call, *tensors)
        except HiddenInputError as error:
            logging.warning("DNO records %s instead of computing it again. %s", self.name, error)
            self._plain = True
            return self.forward(*arguments, **keywords)
        result, changes = call.outcome(outputs)
        write(containers, changes)
        return result


class _Call:
    """A forward as a function of tensors that returns tensors, in the same order every time."""

    def __init__(self, forward: Callable, nested: Nested):
        self._forward, self._nested = forward, nested
        self._outcome: Nested | None = None

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        (arguments, keywords), built = self._nested.build(tensors)
        result = self._forward(*arguments, **keywords)
        self._outcome = Nested((result, built.changes()))
        return tuple(self._outcome.taken()[0])

    def outcome(self, outputs: Sequence[Tensor | None]):
        """What the forward returned and did to its containers, made of the outputs."""
        nested, self._outcome = self._outcome, None
        assert nested is not None
        return nested.build(outputs)[0]
