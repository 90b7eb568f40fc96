"""How often the network was asked, there and back."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


class Evaluations:
    """Evaluations of the network, there and back, in pictures; CFG's two halves are one."""

    def __init__(self) -> None:
        self.pictures = 0
        self.check: Callable[[], None] = lambda: None  # before each, there and back

    def count(self, x: Tensor, outputs: tuple[Tensor, ...]) -> None:
        """One evaluation of `x` (B,C,...), and its backward pass when it comes."""
        self._add(x)
        for output in outputs:
            if isinstance(output, Tensor) and output.requires_grad:
                output.register_hook(self._add)
                break  # both halves go back together

    def _add(self, pictures: Tensor) -> None:
        self.check()
        self.pictures += len(pictures)
