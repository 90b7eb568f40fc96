"""Evaluations of the network in a climb, each at the fastest level of memory that fits."""

from __future__ import annotations

import gc
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext

import comfy.model_management as management
import torch
from torch import Tensor, nn

from ....dno.autograd.blocks import Blocks, by_block
from ....dno.autograd.recompute import Call, Recomputer, Remember
from ....dno.autograd.structure import calls_noted, find_blocks
from .guards import attention_everywhere, own_kernels
from .plan import LOWERED, NOT_APART, NOT_BY_BLOCK, WORDS, Level, Sizes, plan, said
from .weights import Weights, casting, offload_streams_wait

SHARE = 0.85  # of the free memory that a climb plans with
LEAST = 512 * 2**20  # bytes that even `least` may keep: less is not worth computing anything twice


class Levels:
    """Evaluations of a network within a climb, each at its level. A context: all put back after.

    networks:  those that an evaluation runs, ControlNets included.
    resident:  storage addresses of weights, which cost nothing to save.
    remember:  see Recomputer; `moment` the same for a block: cheap, as there are many.
    differs:   told how far a recomputed evaluation was off, if by more than rounding.
    precision: what the network computes in.
    weights:   of the whole climb, watched by whoever gives them; else those of the networks.
    """

    def __init__(
        self,
        networks: Iterable[nn.Module],
        resident: frozenset[int] = frozenset(),
        remember: Remember | None = None,
        moment: Remember | None = None,
        differs: Callable[[float], None] | None = None,
        precision: torch.dtype | None = None,
        weights: Weights | None = None,
    ):
        self.networks, self._moment = list(networks), moment
        self._weights, self._watches = weights or Weights(), weights is None
        self._common = {"resident": resident, "precision": precision}
        self._tell = differs or (lambda off: None)
        self.recomputer = Recomputer(**self._common, remember=remember, differs=self._differs)
        self.forced: Level | None = None
        self.sizes: Sizes | None = None
        self._wanted, self._room, self._reserved, self._expected = "call", 0, 0, 1
        self._fastest = Level.RECORDED  # that is allowed: others ran out of memory
        self._blocks: Blocks | None = None
        self._by_block, self._apart, self._exact = True, True, False
        self._used: Counter[Level] = Counter()
        self._waiting: Counter[Level] = Counter()  # of the last sampling that was differentiated
        self._failed, self._stack = False, ExitStack()  # failed: what it held may be there still

    def begin(
        self, memory: str, free: int, reserved: int, steps: int, watch: Callable[[bool], None]
    ) -> None:
        """What the user wants, see needed.MEMORY; bytes that are free, that decoding needs of them.

        steps: how many evaluations a sampling is expected to make; watch: see Recomputer.
        """
        self._wanted, self._reserved = memory, reserved
        self._room, self._expected = int(SHARE * free), max(steps, 1)
        self.recomputer.watch = watch

    def __enter__(self) -> Levels:
        if self._watches:
            self._stack.enter_context(self._weights.watched(self.networks))
        if casting(self.networks):
            self._common["again"] = self.recomputer.again = self._weights.again
        self._stack.enter_context(attention_everywhere())
        return self

    def __exit__(self, *error) -> None:
        self._blocks, self.recomputer.again = None, None
        self._common.pop("again", None)
        self._stack.close()

    def restart(self) -> None:
        """A new sampling begins: what the last one kept is gone."""
        self._expected = sum(self._used.values()) or self._expected
        self._waiting = self._used.copy() or self._waiting  # while neighbours are sampled plainly
        self._used.clear()
        if self._failed:  # not while its error is handled, which holds all that was there
            self._failed = False
            gc.collect()
            management.soft_empty_cache()
        self.recomputer.restart()
        if self._blocks:
            self._blocks.restart()

    def lower(self) -> bool:
        """An iteration ran out of memory: go on with less, from its start. False: with what?"""
        held = self._used or self._waiting
        used = self.forced if self.forced is not None else min(held, default=Level.SPLIT)
        used = max(used, self._fastest)  # by whole calls where blocks do not repeat themselves
        if used == Level.SPLIT:
            return False
        self._fastest = Level(used + 1)
        self.forced = self._fastest if self.forced is not None else None
        self._used, self._waiting, self._failed = Counter(), Counter(), True
        logging.warning(LOWERED, WORDS[self._fastest])
        return True

    def differed(self) -> bool:
        """Whether a backward found that blocks differ, or prompts, and larger parts take over."""
        before = self._by_block, self._apart
        if self._blocks:
            self._blocks.restart()
        self.recomputer.restart(tells=self._by_block or not before[0])  # else by what blocks differ
        return before != (self._by_block, self._apart)

    @property
    def words(self) -> str:
        """What is done with the evaluations of a sampling, for the user."""
        return said(self._used)

    @property
    def rounded(self) -> bool:
        """Whether this sampling ran kernels of whose results a plain one may differ by rounding."""
        return not self._exact and any(self._used[lv] for lv in (Level.RECORDED, Level.KEPT))

    def __call__(
        self, call: Call, x: Tensor, alone: Sequence[Call] = (), steady: bool = True
    ) -> tuple[Tensor | None, ...]:
        """`call(x)`, differentiable where a gradient is wanted.

        alone:  for each output a call that gives it alone, where there are several.
        steady: whether the weights stay the same from the call's beginning to its backward.
        """
        if not (torch.is_grad_enabled() and x.requires_grad):
            return self.recomputer(call, x)
        calls = [self._with_weights(each, steady) for each in (call, *alone)]
        if self.sizes is None and self.forced is None and self._measures():
            return self._measured(calls[0], x, calls[1:], steady)
        return self._at(self._level(steady), calls[0], x, calls[1:])

    def _with_weights(self, call: Call, steady: bool) -> Call:
        def run(x: Tensor) -> tuple[Tensor | None, ...]:
            offload_streams_wait(x.device)  # also where backward computes it again
            self._weights.steady = steady
            return call(x)

        return run

    def _measures(self) -> bool:
        return self._wanted != "call" and self._fastest < Level.SPLIT

    def _level(self, steady: bool) -> Level:
        """Of the next evaluation."""
        level = self._chosen()
        if not steady:  # a record that waits would be read with other weights
            level = {Level.RECORDED: Level.CALL, Level.KEPT: Level.NESTED}.get(level, level)
        level = Level.NESTED if level is Level.SPLIT and not self._apart else level
        if not self._by_block and level in (Level.KEPT, Level.NESTED):
            level = Level.CALL
        return level

    def _chosen(self) -> Level:
        if self.forced is not None:
            return self.forced
        if self._wanted in ("recorded", "call") or self.sizes is None:
            return max(Level.CALL if self._wanted == "call" else Level.RECORDED, self._fastest)
        room, fastest = self._room, self._fastest
        if self._wanted == "least":
            room = min(room, max(LEAST, self.sizes.peak(Level.SPLIT)))
        elif self._wanted == "blocks":
            fastest = max(fastest, Level.KEPT)
        chosen = plan(self.sizes, room, self._reserved, fastest)
        last = sum(self._used.values()) >= self._expected - chosen.count
        return chosen.fast if last and self._used[chosen.fast] < chosen.count else chosen.slow

    def _at(self, level: Level, call: Call, x: Tensor, alone: Sequence[Call]):
        self._used[level] += 1
        if level >= Level.KEPT and self._by_block and self._blocks is None:
            self._observed(call, x)
        if level in (Level.RECORDED, Level.KEPT):
            with own_kernels(), self._switched(level is Level.KEPT):
                return self.recomputer.record(call, x)[0]
        if level is Level.CALL:
            return self.recomputer(call, x)
        alone = [self._blockwise(each) for each in alone] if level is Level.SPLIT else ()
        return self.recomputer(self._blockwise(call), x, alone=alone if len(alone) > 1 else ())

    def _blockwise(self, call: Call) -> Call:
        def run(x: Tensor) -> tuple[Tensor | None, ...]:
            with self._switched(True):
                return call(x)

        return run

    def _switched(self, active: bool, measuring: bool = False) -> AbstractContextManager:
        if self._blocks is None:
            return nullcontext()
        return self._blocks.switched(active and self._by_block, measuring)

    def _observed(
        self, call: Call, x: Tensor
    ) -> tuple[tuple, Callable[[], AbstractContextManager]]:
        """A plain evaluation, which shows the blocks, and how to go on from before it."""
        again = self.recomputer.remember()
        with torch.no_grad(), calls_noted(self.networks) as called:
            outputs = call(x.detach().clone())
        if self._blocks is None:
            modules = [block for network in self.networks for block in find_blocks(network, called)]
            options = {**self._common, "remember": self._moment, "differs": self._not_by_block}
            options["watch"] = lambda recomputed: recomputed and offload_streams_wait(x.device)
            self._blocks = self._stack.enter_context(by_block(modules, **options))
            self._blocks.active = False
        return outputs, again

    def _measured(self, call: Call, x: Tensor, alone: Sequence[Call], steady: bool):
        """The first evaluation: plain, then with a graph, to see what it keeps and rounds."""
        plain, again = self._observed(call, x)
        self._used[Level.NESTED] += 1  # it takes as much, and stays counted where that is too much
        with again(), own_kernels(), self._switched(True, measuring=True):
            outputs, ledger = self.recomputer.record(call, x)
        self._used.clear()
        blocks = self._blocks
        assert blocks is not None and ledger is not None
        self.recomputer.remedies.update(*(block.recomputer.remedies for block in blocks.all))
        kept, each = ledger.bytes, blocks.sizes
        self.sizes = Sizes(kept + sum(each), kept, max(each, default=0), len(alone))
        self._exact = all(torch.equal(a, b) for a, b in zip(plain, outputs, strict=True))
        level = self._level(steady)
        if level in (Level.RECORDED, Level.KEPT):
            self._used[level] += 1
            return outputs
        del outputs
        first = [plain]
        return self._at(level, lambda given: first.pop() if first else call(given), x, alone)

    def _differs(self, off: float) -> None:
        if self._apart and Level.SPLIT in (self._used or self._waiting):
            logging.warning(NOT_APART, off)
            self._apart = False
        else:
            self._tell(off)

    def _not_by_block(self, off: float) -> None:
        if self._by_block:
            logging.warning(NOT_BY_BLOCK, off)
        self._by_block = False
