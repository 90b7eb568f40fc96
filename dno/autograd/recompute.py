"""Gradient checkpointing that stays exact on models that write into tensors in place.

`torch.utils.checkpoint` hides the in-place error of Flux, Chroma, HunyuanVideo and LTXV and returns
wrong gradients without a word. Here the first call is watched for such writes, and later ones run
under plain autograd, whose version counters see them; what cures a call is remembered.
A call may hold calls that are recomputed themselves, such as a network's blocks (`blocks.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .fingerprint import fingerprint, gaps
from .graph import GradientCutError, gradients_of, insist_on_known, sum_of, unrelated
from .ordinary import OrdinaryArguments, ordinary_tensor
from .saved import OVERWRITTEN, Again, Ledger, saved_on, writes_allowed

Call = Callable[..., tuple[Tensor | None, ...]]
Context = Callable[[], AbstractContextManager]
Remember = Callable[[], Context]

# What autograd says, and there is a cure for.
INFERENCE = "Inference tensors cannot be saved"
LEAF_WRITTEN = "a leaf Variable that requires grad"


@dataclass
class _Run:
    """One call: how to repeat it, and what its first outputs were like.

    alone: for each output a call that gives it alone; they are then pulled one after the other.
    """

    call: Call
    alone: Sequence[Call] = ()
    again: Context = nullcontext
    print: Sequence[Tensor | None] | None = None


class Recomputer:
    """Runs calls so that only their inputs are kept for backward, which repeats them.

    resident:  storage addresses of weights, which cost nothing to save.
    again:     for a tensor that need not be saved, what gives it again: a weight that was cast.
    watch:     called before every evaluation, forward and recomputed (interrupt, progress).
    remember:  called before each first evaluation; what it returns gives a context within which
               the call repeats itself: random numbers, counters of the host's own.
    differs:   told at `restart` how far a recomputed output was off, relative to its size, if by
               more than rounding in `precision`, by default the output's own.
    complete:  whether a call may depend on nothing but its arguments: else HiddenInputError.

    While `measuring` is set, first evaluations record a graph, see what it keeps, and drop it.
    """

    def __init__(
        self,
        resident: frozenset[int] = frozenset(),
        again: Again | None = None,
        watch: Callable[[bool], None] = lambda recomputed: None,
        remember: Remember | None = None,
        differs: Callable[[float], None] | None = None,
        precision: torch.dtype | None = None,
        complete: bool = False,
    ):
        self.resident, self.again, self.watch = resident, again, watch
        self.remember = remember or (lambda: nullcontext)
        self.differs, self.precision = differs, precision
        self.complete, self.measuring, self.remedies = complete, False, set[str]()
        self.bytes_per_call: int | None = None  # what a recorded call would keep
        self._written: frozenset[int] | None = None  # which inputs the call writes to, once known
        self._gaps: list[tuple[Tensor, float]] = []

    def restart(self, tells: bool = True) -> None:
        """A new sampling begins: tell how far the last one's recomputed outputs were off."""
        gaps, self._gaps = self._gaps, []
        beyond = [off for off, bound in ((float(gap), bound) for gap, bound in gaps) if off > bound]
        if beyond and self.differs and tells:
            self.differs(max(beyond))

    def __call__(
        self, call: Call, *tensors: Tensor, alone: Sequence[Call] = ()
    ) -> tuple[Tensor | None, ...]:
        """`call(*tensors)`, differentiable by those that require it, if grad mode is on."""
        self.watch(False)
        if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
            return call(*tensors)
        again = self.remember()
        kept = [ordinary_tensor(tensor) for tensor in tensors]
        return _Recompute.apply(self, _Run(call, alone, again), *kept)

    @contextmanager
    def graph(self, watched: bool = False) -> Iterator[Ledger | None]:
        """Within, autograd records as the call needs it; `watched`: and finds out what it needs."""
        with ExitStack() as stack:
            if INFERENCE in self.remedies:
                stack.enter_context(OrdinaryArguments())
            if watched or OVERWRITTEN in self.remedies:
                yield stack.enter_context(writes_allowed(self.resident, self.again))
            elif self.again:
                yield stack.enter_context(saved_on(Ledger(self.resident, self.again)))
            else:
                yield None

    def record(self, call: Call, *tensors: Tensor) -> tuple[tuple, Ledger | None]:
        """`call(*tensors)` with a graph that stays as it is, and what is known of what it saved."""
        self.watch(False)
        again: Context = self.remember()
        repeated: Context = nullcontext
        while True:
            try:
                with repeated(), self.graph(watched=self.bytes_per_call is None) as ledger:
                    outputs = call(*self._given(tensors))
                break
            except RuntimeError as error:
                if not self._cures(error):
                    raise
                repeated = again
        if self.bytes_per_call is None:
            self.learn_from(ledger)
        return outputs, ledger

    def first(self, run: _Run, tensors: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        """The first evaluation, without a graph; what is kept of the inputs is not written to."""
        outputs = self._measured(run, tensors) if self.measuring else self._plain(run, tensors)
        if self.differs:
            run.print = fingerprint(outputs)
        return unrelated(outputs, tensors)

    def _plain(self, run: _Run, tensors: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        given = self._given(tensors)
        versions = [tensor._version for tensor in given]
        outputs = run.call(*given)
        written = frozenset(i for i, t in enumerate(given) if t._version != versions[i])
        if self._written is None:
            self._written = written
        elif self.complete and not written <= self._written:
            self._written |= written
            raise RuntimeError(f"An input needed for the gradient was {OVERWRITTEN}.")
        return outputs

    def _measured(self, run: _Run, tensors: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
        leaves = [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in tensors]
        repeated: Context = nullcontext  # the first attempt moves the host on, as any does
        while True:
            try:
                with repeated(), torch.enable_grad(), self.graph(watched=True) as ledger:
                    assert ledger is not None
                    ledger.ignore(tensors)
                    outputs = self._plain(_Run(run.call), leaves)
                break
            except RuntimeError as error:
                if not self._cures(error):
                    raise
                repeated = run.again
        if self.complete:
            insist_on_known(outputs, leaves)
        self.learn_from(ledger)
        return tuple(output if output is None else output.detach() for output in outputs)

    def _given(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """What the call is given: copies where it may write to what is kept."""
        return [t.clone() if self._copied(index) else t for index, t in enumerate(tensors)]

    def _copied(self, index: int) -> bool:
        """A whole call's inputs are few: they are copied each time, whatever was seen before."""
        return not self.complete or self._written is None or index in self._written

    def pull(
        self, run: _Run, tensors: Sequence[Tensor], wanted: Sequence[bool], gradients
    ) -> list[Tensor | None]:
        """Repeat the call with a graph and pull its outputs' gradients back to its inputs."""
        self.watch(True)
        if not run.alone:
            return self._cured(run, run.call, run.print, tensors, wanted, gradients)
        total: list[Tensor | None] = [None] * len(tensors)
        for index, gradient in enumerate(gradients):
            if gradient is not None:
                prints = run.print and run.print[index : index + 1]
                one = (run, run.alone[index], prints, tensors, wanted, (gradient,))
                total = [sum_of(*pair) for pair in zip(total, self._cured(*one), strict=True)]
        return total

    def _cured(self, run: _Run, call: Call, prints, *pulled) -> list[Tensor | None]:
        while True:
            try:
                with run.again(), self.graph(watched=self.bytes_per_call is None) as ledger:
                    gradients = self._pull(call, prints, *pulled)
                if self.bytes_per_call is None:
                    self.learn_from(ledger)
                return gradients
            except RuntimeError as error:
                if not self._cures(error):
                    raise

    def learn_from(self, ledger: Ledger | None) -> None:
        """Of a call that was watched: what a record of it keeps, and whether it writes into it."""
        assert ledger is not None
        self.bytes_per_call = ledger.bytes
        if ledger.overwritten:
            self.remedies.add(OVERWRITTEN)

    def _cures(self, error: RuntimeError) -> bool:
        """Whether something was learnt of it that may let the call pass."""
        text = str(error)
        cure = next((known for known in (OVERWRITTEN, INFERENCE) if known in text), None)
        if cure and cure not in self.remedies:
            self.remedies.add(cure)
        elif LEAF_WRITTEN in text and self._written is not None:
            self._written = None
        else:
            return False
        return True

    def _pull(self, call: Call, prints, tensors, wanted, gradients) -> list[Tensor | None]:
        leaves = [t.detach().requires_grad_(w) for t, w in zip(tensors, wanted, strict=True)]
        with torch.enable_grad():
            outputs = call(*self._given(leaves))
            if prints is not None:
                self._gaps += gaps(outputs, prints, self.precision)
            if self.complete and self.bytes_per_call is None:
                insist_on_known(outputs, leaves)
            if not self.complete and not any(o is not None and o.requires_grad for o in outputs):
                raise GradientCutError(
                    "The model cannot be differentiated: its output has lost the gradient."
                )
            leaf_gradients = gradients_of(
                outputs, [leaf for leaf in leaves if leaf.requires_grad], gradients
            )
        return [next(leaf_gradients) if leaf.requires_grad else None for leaf in leaves]


class _Recompute(torch.autograd.Function):
    @staticmethod
    def forward(ctx, recomputer: Recomputer, run: _Run, *tensors: Tensor):
        ctx.recomputer, ctx.run = recomputer, run
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        return recomputer.first(run, tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx, *gradients):
        wanted = ctx.needs_input_grad[2:]
        return None, None, *ctx.recomputer.pull(ctx.run, ctx.saved_tensors, wanted, gradients)
