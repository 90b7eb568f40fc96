"""A strip below the preview that says how the run stands: every web UI shows it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from .canvas import Canvas, Scale, thin

SIDE = 512  # the picture's longer side, in pixels
NARROWEST = 384  # a strip that holds its words
PAPER, PALE, DIM, LINE = "#1e1e1e", "#f2f2f2", "#a8a8a8", "#56b4e9"


@dataclass(frozen=True)
class Standing:
    """How a run stands.

    words:   a few short lines, the most important first. foot: longer ones below, in small letters.
    steps:   of the iterates so far, and `rewards` of each; best: of these, the index of the best.
    """

    words: Sequence[str]
    foot: Sequence[str]
    steps: Sequence[int]
    rewards: Sequence[float]
    best: int


def with_strip(picture: Image.Image, standing: Standing) -> Image.Image:
    """The picture, its longer side `SIDE`, above its strip; nothing of it is covered."""
    factor = SIDE / max(picture.size)
    size = max(round(picture.width * factor), 1), max(round(picture.height * factor), 1)
    shown = picture.resize(size, Image.Resampling.BICUBIC)
    strip = _strip(max(size[0], NARROWEST), standing)
    whole = Image.new("RGB", (strip.width, size[1] + strip.height), PAPER)
    whole.paste(shown, ((strip.width - size[0]) // 2, 0))
    whole.paste(strip, (0, size[1]))
    return whole


def _strip(width: int, standing: Standing) -> Image.Image:
    """Words on the left, the curve on the right, the long lines below both."""
    size = width / 19  # the web UI shows it half as large, or less
    pad, leading = 0.4 * size, 1.2 * size
    middle = 0.7 * width
    tall, step = len(standing.words) * leading, 0.9 * size
    canvas = Canvas(width, math.ceil(tall + len(standing.foot) * step + 2 * pad), PAPER)
    fitting = _fitting(canvas, standing.words, size, middle - 2 * pad)
    for index, words in enumerate(standing.words):
        canvas.text(pad, pad + (index + 0.5) * leading, words, fitting, PALE if index < 2 else DIM)
    _curve(canvas, standing, (middle, pad, width - 1.5 * pad, pad + tall))
    for index, line in enumerate(standing.foot):
        small = _fitting(canvas, [line], 0.72 * size, width - 2 * pad)
        canvas.text(pad, pad + tall + (index + 0.6) * step, line, small, DIM)
    return canvas.finish()


def _fitting(canvas: Canvas, lines: Sequence[str], size: float, room: float) -> float:
    """The size of letters, `size` at most, in which the longest of these lines has room."""
    while size > 1 and any(canvas.width_of(line, size) > room for line in lines):
        size *= 0.97
    return size


def _curve(canvas: Canvas, standing: Standing, box: tuple[float, float, float, float]) -> None:
    """The reward so far; a dot at the best, and a dashed line where it started."""
    known = [value for value in standing.rewards if math.isfinite(value)]
    if not known:
        return
    left, top, right, bottom = box
    scale, first = Scale.around(known, 0.12), standing.steps[0]
    span = max(standing.steps[-1] - first, 3)
    xs = [left + (step - first) / span * (right - left) for step in standing.steps]
    ys = [bottom - scale.at(value) * (bottom - top) for value in standing.rewards]
    start = bottom - scale.at(known[0]) * (bottom - top)
    canvas.line([(left, start), (right, start)], "#6a6a6a", 1.2, dash=6)
    points = thin(xs, ys, int(2 * (right - left)))
    if len(points) > 1:
        canvas.line(points, LINE, 3.0)
    if math.isfinite(ys[standing.best]):
        canvas.dot((xs[standing.best], ys[standing.best]), 4.5, PALE)
