"""One or two panels of curves over the iterations, drawn for a glance at thumbnail size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from .canvas import GRID, INK, MUTED, Canvas, Scale, number, thin


@dataclass(frozen=True)
class Curve:
    """One line and the scale it is drawn on; `legend` names it, with its first and best values."""

    legend: str
    colour: str
    values: Sequence[float]
    scale: Scale
    thickness: float
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """Curves over the iterations, and the scales of the left and, if any, the right axis."""

    curves: Sequence[Curve]
    left: Scale
    right: Scale | None = None
    colours: tuple[str, str] = (INK, INK)
    dots: Sequence[tuple[int, float]] = ()


class Frame:
    """A canvas with the size of its letters and where the first and last iteration lie."""

    def __init__(self, canvas: Canvas, steps: Sequence[int], panels: Sequence[Panel]):
        self.canvas, self.steps = canvas, steps
        self.size = max(min(canvas.height / 19, canvas.width / 28), 7)
        self.left = self._margin([panel.left for panel in panels])
        rights = [panel.right for panel in panels if panel.right]
        self.right = canvas.width - self._margin(rights)

    def _margin(self, scales: Sequence[Scale]) -> float:
        """Room for the numbers of these axes."""
        words = [text for scale in scales for most in (3, 4) for _, text in scale.ticks(most)]
        widest = max((self.canvas.width_of(text, self.size) for text in words), default=0)
        return widest + 0.9 * self.size

    def x(self, step: float) -> float:
        first, last = self.steps[0], max(self.steps[-1], self.steps[0] + 1)
        return self.left + (step - first) / (last - first) * (self.right - self.left)


def draw(
    above: Panel,
    below: Panel | None,
    steps: Sequence[int],
    width: int,
    height: int,
    axis: str = "iteration",
) -> Image.Image:
    """The panels one above the other, over one axis of whole numbers, iterations as a rule."""
    canvas = Canvas(width, height)
    frame = Frame(canvas, steps, [above, below] if below else [above])
    foot = height - 2.2 * frame.size
    middle = foot if below is None else 0.61 * foot
    _panel(frame, above, 0.2 * frame.size, middle)
    if below:
        _panel(frame, below, middle + 0.5 * frame.size, foot)
    _iterations(frame, foot, axis)
    return canvas.finish()


def _panel(frame: Frame, panel: Panel, top: float, foot: float) -> None:
    """Legend, axes, curves and dots between `top` and `foot`."""
    size, canvas = frame.size, frame.canvas
    top = _legend(frame, panel, top, 0.6 * top + 0.4 * foot) + (1.7 if panel.dots else 0.3) * size
    foot -= 0.3 * size

    def y(scale: Scale, value: float) -> float:
        return foot - scale.at(value) * (foot - top)

    most = 4 if foot - top > 7 * size else 3
    for tick, words in panel.left.ticks(most):
        height = y(panel.left, tick)
        canvas.line([(frame.left, height), (frame.right, height)], GRID, size / 14)
        canvas.text(frame.left - 0.4 * size, height, words, size, panel.colours[0], "rm")
    for tick, words in panel.right.ticks(most) if panel.right else []:
        at = frame.right + 0.4 * size, y(panel.right, tick)
        canvas.text(*at, words, size, panel.colours[1], "lm")
    for curve in reversed(panel.curves):
        _curve(frame, curve, [y(curve.scale, value) for value in curve.values])
    _mark(frame, panel, [y(panel.left, value) for _, value in panel.dots])


def _curve(frame: Frame, curve: Curve, heights: Sequence[float]) -> None:
    """One line; thinner where it is crowded, a dot where there is one iterate only."""
    size, room = frame.size, frame.right - frame.left
    points = thin([frame.x(step) for step in frame.steps], heights, int(2 * room))
    if len(points) == 1:
        frame.canvas.dot(points[0], 0.25 * size, curve.colour)
    elif points:
        crowd = min(max(5 * room / (size * len(points)), 0.35), 1)
        dash = 0.6 * size if curve.dashed else 0
        frame.canvas.line(points, curve.colour, crowd * curve.thickness * size / 10, dash)


def _mark(frame: Frame, panel: Panel, heights: Sequence[float]) -> None:
    """A dot at each image's best, and its number at the highest."""
    size, dots = frame.size, list(zip(panel.dots, heights, strict=True))
    dots = [(step, value, y) for (step, value), y in dots if math.isfinite(value)]
    for step, _, y in dots:
        frame.canvas.dot((frame.x(step), y), (0.34 if len(dots) == 1 else 0.26) * size, INK)
    if dots:
        step, value, y = max(dots, key=lambda dot: dot[1])
        words = f"best {number(value)} at {step}"
        half = frame.canvas.width_of(words, size) / 2
        x = min(max(frame.x(step), frame.left + half), frame.right - half)
        frame.canvas.text(x, y - 1.05 * size, words, size, anchor="mm", halo=0.3)


def _legend(frame: Frame, panel: Panel, top: float, foot: float) -> float:
    """Name the curves in rows between `top` and `foot`; the height at which the rows end."""
    size, canvas = 0.95 * frame.size, frame.canvas
    x, y, swatch = 0.5 * size, top + 0.75 * size, 1.7 * size
    named = [curve for curve in panel.curves if curve.legend]
    for index, curve in enumerate(named):
        width = swatch + canvas.width_of(curve.legend, size)
        full = y + 1.25 * size > foot
        edge = canvas.width - (3.2 if full and curve is not named[-1] else 0.4) * size
        if x > size and x + width > edge:
            if full:
                canvas.text(x, y, f"+ {len(named) - index}", size, MUTED)
                break
            x, y = 0.5 * size, y + 1.25 * size
        thickness = max(curve.thickness * frame.size / 10, size / 8)
        line = [(x, y), (x + 1.3 * size, y)]
        canvas.line(line, curve.colour, thickness, 0.48 * size if curve.dashed else 0)
        canvas.text(x + swatch, y, curve.legend, size)
        x += width + 0.9 * size
    return y + 0.6 * size


def _iterations(frame: Frame, foot: float, axis: str) -> None:
    """The axis below, in whole numbers."""
    canvas, size, last = frame.canvas, frame.size, frame.steps[-1]
    canvas.line([(frame.left, foot), (frame.right, foot)], MUTED, size / 12)
    for tick, words in Scale(frame.steps[0], max(last, frame.steps[0] + 1)).ticks(5, whole=True):
        if tick <= last:
            x, half = frame.x(tick), canvas.width_of(words, size) / 2
            canvas.line([(x, foot), (x, foot + 0.25 * size)], MUTED, size / 12)
            centre = min(x, canvas.width - half - 2)
            canvas.text(centre, foot + 0.9 * size, words, size, MUTED, "mm")
    canvas.text(frame.right, foot + 1.75 * size, axis, 0.85 * size, MUTED, "rm")
