"""What the user sees while it climbs: one bar over the whole job, the picture, a line of text."""

from __future__ import annotations

import time

import comfy.utils
from torch import Tensor

from ..drawing.canvas import side_by_side
from ..drawing.strip import Standing, with_strip
from .web import say

TICKS = 120  # of the bar, per iteration
PREVIEW_SIDE = 512
DRAWING = 1 / 40  # of the time of a run at most goes into pictures of it


class Progress:
    """Progress of `samplings` of `calls` evaluations each, told to the node that is executed."""

    def __init__(self, samplings: int, calls: int):
        self._total = samplings
        self._bar = comfy.utils.ProgressBar(self._total * TICKS)
        self._expected, self._seen, self._step = max(calls, 1), 0, 0
        self._climbing = False
        self._started = time.monotonic()
        self._rested = self._started  # when the next picture may be drawn

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def watch(self, recomputed: bool) -> None:
        """One denoiser evaluation; those of the backward pass cost twice those of the forward."""
        self._seen += 2 if recomputed else 1
        self._show()

    def picture(self, image: Tensor | None, text: str, standing: Standing | None = None) -> None:
        """One picture has been scored: show it, above how the run stands, if that is worth it.

        Where iterations take less time than drawing them many are left out, never the first.
        """
        begun = time.monotonic()
        if begun < self._rested:
            self._show()
        else:
            self._show(image, standing)
            ended = time.monotonic()
            self._rested = ended + (ended - begun) / DRAWING
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

    def _show(self, image: Tensor | None = None, standing: Standing | None = None) -> None:
        fraction = min(self._seen / self._expected, 1.0)
        self._update(int((self._step + fraction) * TICKS), image, standing)

    def _update(self, value: int, image: Tensor | None, standing: Standing | None) -> None:
        preview = None
        if image is not None:
            drawn, side = side_by_side(image), PREVIEW_SIDE
            if standing is not None:
                drawn = with_strip(drawn, standing)
                side = max(drawn.size)  # ComfyUI fits it into a square of that side: as it is
            preview = "JPEG", drawn, side
        self._bar.update_absolute(value, self._total * TICKS, preview)

    def finish(self, image: Tensor | None, text: str, standing: Standing | None = None) -> None:
        """The run is over: leave the picture that was kept."""
        self._update(self._total * TICKS, image, standing)
        say(text)
