"""What the user sees while it climbs: one bar over the whole job, the picture, a line of text."""

from __future__ import annotations

import sys
import time

import comfy.utils
from comfy_execution.utils import get_executing_context
from torch import Tensor

from ...dno.history import History
from ..drawing.canvas import side_by_side

TICKS = 120  # of the bar, per iteration
PREVIEW_SIDE = 512


class Progress:
    """Progress of `samplings` of `calls` evaluations each, told to the node that is executed."""

    def __init__(self, samplings: int, calls: int):
        self._total = samplings
        self._bar = comfy.utils.ProgressBar(self._total * TICKS)
        self._expected, self._seen, self._step = max(calls, 1), 0, 0
        self._climbing = False
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def watch(self, recomputed: bool) -> None:
        """One denoiser evaluation; those of the backward pass cost twice those of the forward."""
        self._seen += 2 if recomputed else 1
        self._show()

    def picture(self, image: Tensor | None, text: str) -> None:
        """One picture has been scored: show it."""
        self._show(image)
        say(text)

    def next_iteration(self) -> None:
        """What follows, a backward pass and a sampling, makes the next iterate."""
        cost = 1 if self._climbing else 3  # the first iterate is a sampling alone
        self._climbing = True
        self._next(cost)

    def next_sampling(self) -> None:
        """What follows is a sampling alone, as the last one was."""
        self._next(1)

    def _next(self, cost: int) -> None:
        self._step, self._expected, self._seen = self._step + 1, max(cost * self._seen, 1), 0

    def _show(self, image: Tensor | None = None) -> None:
        fraction = min(self._seen / self._expected, 1.0)
        self._update(int((self._step + fraction) * TICKS), image)

    def _update(self, value: int, image: Tensor | None) -> None:
        preview = None if image is None else ("JPEG", side_by_side(image), PREVIEW_SIDE)
        self._bar.update_absolute(value, self._total * TICKS, preview)

    def finish(self, image: Tensor | None, text: str) -> None:
        """The run is over: leave the picture that was kept."""
        self._update(self._total * TICKS, image)
        say(text)


def say(text: str) -> None:
    """Show a text on the node that is being executed, where a web UI is listening."""
    context = get_executing_context()
    module = sys.modules.get("server")  # not there when ComfyUI is used as a library
    server = module and getattr(module.PromptServer, "instance", None)
    if server is not None and context is not None:
        server.send_progress_text(text, context.node_id)


def line(history: History, iterations: int) -> str:
    """The run so far, in two lines: iteration, reward (start, now, kept); noise, time left.

    Kept is the best by the whole objective, so its reward need not be the highest seen.
    """
    first, last = history.records[0], history.records[-1]
    left = history.seconds_each * (iterations - last.step)
    reward = f"{_mean(first.reward)} → {_mean(last.reward)}, kept {_mean(history.best.reward)}"
    reads = "".join(f"{name} {_mean(value)}, " for name, value in last.indicators.items())
    return f"iteration {last.step} of {iterations}: reward {reward}\n{reads}{left:.0f} s left"


def _mean(values: Tensor) -> str:
    return f"{float(values.mean()):.3g}"
