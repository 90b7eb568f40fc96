"""Drawing with Pillow alone: antialiased lines, dots and words, and the axes of a chart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

INK, MUTED, GRID = "#222222", "#5a5a5a", "#e3e3e3"
ARROW = "→"  # drawn by hand: Pillow's own font has none

Point = tuple[float, float]


@lru_cache(maxsize=16)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font: nothing to install, the same on every machine."""
    return ImageFont.load_default(size=max(size, 6))


class Canvas:
    """A picture in pixels, white if no other paper is wanted, drawn larger and then reduced."""

    def __init__(self, width: int, height: int, paper: str = "white"):
        self.width, self.height, self._paper = width, height, paper
        self._scale = 3 if max(width, height) <= 1024 else 2
        self._image = Image.new("RGB", (width * self._scale, height * self._scale), paper)
        self._draw = ImageDraw.Draw(self._image)

    def finish(self) -> Image.Image:
        """The picture in its own size."""
        return self._image.resize((self.width, self.height), Image.Resampling.BOX)

    def line(self, points: Sequence[Point], colour: str, thickness: float, dash: float = 0) -> None:
        """A line through `points` with round joints; dashes of `dash` pixels, or none."""
        big = [(x * self._scale, y * self._scale) for x, y in points]
        width = max(round(thickness * self._scale), 1)
        for piece in _dashes(big, dash * self._scale) if dash else [big]:
            if len(piece) > 1:
                self._draw.line(piece, colour, width, joint="curve")
            if not dash:
                for x, y in (piece[0], piece[-1]):
                    self._disc(x, y, width / 2, colour)

    def picture(self, x: int, y: int, picture: Image.Image) -> None:
        """A picture, pixel by pixel, with its upper left corner at a point."""
        scale = self._scale
        big = picture.resize(
            (picture.width * scale, picture.height * scale), Image.Resampling.NEAREST
        )
        self._image.paste(big, (x * scale, y * scale))

    def dot(self, point: Point, radius: float, colour: str) -> None:
        """A disc with a rim of paper, to stand out on a line."""
        x, y = point[0] * self._scale, point[1] * self._scale
        self._disc(x, y, radius * 1.45 * self._scale, self._paper)
        self._disc(x, y, radius * self._scale, colour)

    def _disc(self, x: float, y: float, radius: float, colour: str) -> None:
        self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), colour)

    def width_of(self, words: str, size: float) -> float:
        """How many pixels `words` take."""
        parts = words.split(ARROW)
        letters = sum(font(round(size * self._scale)).getlength(part) for part in parts)
        return letters / self._scale + (len(parts) - 1) * 1.1 * size

    def text(
        self, x: float, y: float, words: str, size: float, colour=INK, anchor="lm", halo=0.12
    ) -> None:
        """`words` at a point, `anchor` as in Pillow; a halo of paper, in sizes, keeps lines off."""
        face, scale = font(round(size * self._scale)), self._scale
        if anchor[0] != "l":
            x -= self.width_of(words, size) * {"m": 0.5, "r": 1.0}[anchor[0]]
        for number, part in enumerate(words.split(ARROW)):
            if number:
                self._arrow(x + 0.1 * size, y, 0.85 * size, colour)
                x += 1.1 * size
            self._draw.text(
                (x * scale, y * scale), part, colour, face, "l" + anchor[1],
                stroke_width=round(halo * size * scale), stroke_fill=self._paper,
            )  # fmt: skip
            x += face.getlength(part) / scale

    def _arrow(self, x: float, y: float, length: float, colour: str) -> None:
        tip, head = x + length, 0.32 * length
        self.line([(x, y), (tip, y)], colour, 0.1 * length)
        self.line([(tip - head, y - head), (tip, y), (tip - head, y + head)], colour, 0.1 * length)


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high`."""

    low: float
    high: float

    @staticmethod
    def around(values: Sequence[float], margin: float = 0.08) -> Scale:
        """The range of `values` with room around it; never empty."""
        low, high = min(values), max(values)
        span = high - low
        if span <= 1e-6 * max(abs(low), abs(high), 1e-6):  # constant, to rounding
            span = max(abs(high), 1e-3)
            return Scale(low - span / 2, high + span / 2)
        return Scale(low - margin * span, high + margin * span)

    def at(self, value: float) -> float:
        """Where `value` lies: 0 at the low end, 1 at the high end."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self, most: int, whole: bool = False) -> list[tuple[float, str]]:
        """At most `most` round numbers within, at least one, and how they are written."""
        power = 10.0 ** math.floor(math.log10((self.high - self.low) / most))
        steps = [power * factor for factor in (1, 2, 2.5, 5, 10, 20, 25, 50)]
        for step in [max(step, 1.0) if whole else step for step in steps]:
            if whole and step % 1:
                continue
            first = math.ceil(self.low / step - 1e-9)
            last = math.floor(self.high / step + 1e-9)
            if 0 <= last - first < most:
                digits = 2 - math.floor(math.log10(step))
                ticks = [round(step * index, digits) for index in range(first, last + 1)]
                return [(value, f"{value:.10g}") for value in ticks]
        return [(self.low, number(self.low))]


def number(value: float) -> str:
    """Three significant digits, without exponents where they can be avoided."""
    if value == 0 or not 1e-4 <= abs(value) < 1e6:
        return f"{value:.3g}"
    digits = max(2 - math.floor(math.log10(abs(value))), 0)
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def thin(xs: Sequence[float], ys: Sequence[float], most: int) -> list[Point]:
    """About `most` finite points that draw the same line: lowest and highest of each stretch."""
    points = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
    stretch = math.ceil(2 * len(points) / max(most, 2))
    if stretch <= 2:
        return points
    kept = {0, len(points) - 1}
    for start in range(0, len(points), stretch):
        block = range(start, min(start + stretch, len(points)))
        kept |= {min(block, key=lambda i: points[i][1]), max(block, key=lambda i: points[i][1])}
    return [points[i] for i in sorted(kept)]


def _dashes(points: Sequence[Point], length: float) -> list[list[Point]]:
    """Every other stretch of `length` along a line."""
    pieces, piece, left, drawn = [], [points[0]], length, True
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        whole, done = math.hypot(x1 - x0, y1 - y0), 0.0
        while whole - done > left:
            done += left
            corner = (x0 + (x1 - x0) * done / whole, y0 + (y1 - y0) * done / whole)
            if drawn:
                pieces.append([*piece, corner])
            piece, left, drawn = [corner], length * (1.0 if not drawn else 0.7), not drawn
        left -= whole - done
        piece.append((x1, y1))
    return [*pieces, piece] if drawn else pieces


def side_by_side(image: Tensor) -> Image.Image:
    """The batch (B,3,H,W) side by side, at most four."""
    row = image[:4].clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return Image.fromarray(np.concatenate(list(row), axis=1))
