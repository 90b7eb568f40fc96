"""What a recomputed call gives and takes where it meets the graph around it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .saved import storage


class GradientCutError(ValueError):
    """A call that was to be differentiated gave an output without a gradient."""


class HiddenInputError(ValueError):
    """A call depends on a tensor with a gradient that is not among its arguments."""


def insist_on_known(outputs: Sequence[Tensor | None], leaves: Sequence[Tensor]) -> None:
    """Raise HiddenInputError if the outputs' graph reaches beyond the leaves."""
    ours = {id(leaf) for leaf in leaves}
    nodes = [o.grad_fn for o in outputs if o is not None and o.grad_fn is not None]
    seen = set(nodes)
    while nodes:
        node = nodes.pop()
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in ours:
            raise HiddenInputError(
                "A block of the network depends on a tensor that is not among its arguments."
            )
        new = {following for following, _ in node.next_functions if following} - seen
        seen |= new
        nodes += new


def gradients_of(outputs, leaves: Sequence[Tensor], gradients) -> Iterator[Tensor | None]:
    """d(outputs * gradients)/d(leaf) for every leaf; None where they are not connected."""
    pairs = [
        (output, gradient)
        for output, gradient in zip(outputs, gradients, strict=True)
        if gradient is not None and output.requires_grad
    ]
    if not pairs:
        return iter([None] * len(leaves))
    pulled, given = zip(*pairs, strict=True)
    return iter(torch.autograd.grad(pulled, leaves, given, allow_unused=True))


def sum_of(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """None counts as zero."""
    return b if a is None else a if b is None else a + b


def unrelated(outputs, inputs: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """Outputs that share nothing with the inputs that are kept, and may be written to later."""
    seen = {storage(tensor) for tensor in inputs}
    named: set[int] = set()
    free = []
    for output in outputs:
        if output is not None and storage(output) in seen:
            output = output.clone()
        elif output is not None and (output._is_view() or id(output) in named):
            output = output.data  # a view made in here could not be written to in place
        named.add(id(output))
        free.append(output)
    return tuple(free)
