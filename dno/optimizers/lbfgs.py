from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..fields import Range
from .base import Gradients, Optimizer, Step

_ENDLESS = 2**31 - 1


@dataclass(frozen=True)
class LBFGS(Optimizer):
    """L-BFGS with a strong Wolfe line search, each image by itself (D-Flow, arXiv 2402.14017).

    torch's own. Every evaluation is an iteration of the climb, those of the line search too, which
    tries steps that may be worse: the best is kept. The learning rate is the first step that each
    search tries, 1 as a rule. A gradient that is clipped does not fit the objective: clip at 0.
    """

    title = "L-BFGS"

    memory: Annotated[int, Range(1, 100, 1, "Steps that the curvature is learned from.")] = 10

    def start(self, leaves: Sequence[Tensor], learning_rate: float) -> Step:
        return _Searches(self, leaves, learning_rate)


class _Searches:
    """One L-BFGS per image, all of them in turns with the climb."""

    def __init__(self, settings: LBFGS, leaves: Sequence[Tensor], learning_rate: float):
        self._images = [
            _Search(settings, [leaf.detach()[i] for leaf in leaves], learning_rate)
            for i in range(len(leaves[0]))
        ]

    def __call__(self, gradients: Gradients, objective: Tensor) -> None:
        pulled = gradients()
        for i, image in enumerate(self._images):
            image.answer(float(objective[i]), [gradient[i] for gradient in pulled])

    def close(self) -> None:
        """End every search."""
        for image in self._images:
            image.close()


class _Ended(BaseException):
    """Ends the thread of a search that is not asked any more."""


class _Search:
    """torch's L-BFGS calls its objective; a climb is a loop that asks for its next point.

    So it runs in a thread, in strict turns with the climb: it leaves the point to evaluate in
    `rows`, views of the noise, and waits for the answer. Vectors alone are computed there.
    """

    def __init__(self, settings: LBFGS, rows: list[Tensor], learning_rate: float):
        self._rows = rows
        self._optimizer = torch.optim.LBFGS(
            rows,
            lr=learning_rate,
            max_iter=_ENDLESS,
            max_eval=_ENDLESS,
            history_size=settings.memory,
            line_search_fn="strong_wolfe",
            tolerance_grad=0.0,
            tolerance_change=0.0,
        )
        self._asks, self._answers = threading.Semaphore(0), threading.Semaphore(0)
        self._value: float = 0.0
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._over = False

    def answer(self, value: float, gradients: list[Tensor]) -> None:
        """The objective at the point that was asked for; returns when the next one is asked."""
        self._value = value
        for row, gradient in zip(self._rows, gradients, strict=True):
            row.grad = -gradient  # torch minimises
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
            self._asks.acquire()  # the first point is where we are
        if self._over:
            return  # it found its optimum
        self._answers.release()
        self._asks.acquire()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        if self._thread is not None and not self._over:
            self._value = float("nan")
            self._answers.release()
            self._thread.join()

    def _run(self) -> None:
        try:
            self._optimizer.step(self._closure)
        except _Ended:
            pass
        except Exception as error:  # told where the climb is, which is another thread
            self._error = error
        finally:
            self._over = True
            self._asks.release()

    def _closure(self) -> float:
        self._asks.release()
        self._answers.acquire()
        if self._value != self._value:
            raise _Ended
        return -self._value
