"""Mean curves of several variants as one inline SVG, with their standard errors."""

from __future__ import annotations

import math
from html import escape
from statistics import fmean, stdev

# Okabe and Ito's palette: told apart with any colour vision.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8a7a00", "#777777")
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 520, 260, 54, 34, 10, 10


def mean_curve(curves: list[list[float | None]]) -> list[tuple[float, float]]:
    """Mean and standard error at every iteration; a curve that ended keeps its last value."""
    curves = [[v for v in curve if v is not None] for curve in curves]
    curves = [curve for curve in curves if curve]
    length = max(map(len, curves), default=0)
    means = []
    for step in range(length):
        values = [curve[min(step, len(curve) - 1)] for curve in curves]
        error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0
        means.append((fmean(values), error))
    return means


def chart(curves: dict[str, list[tuple[float, float]]], name: str) -> str:
    """One line for each variant over the iterations, a band of a standard error around it."""
    lows = [mean - error for curve in curves.values() for mean, error in curve]
    highs = [mean + error for curve in curves.values() for mean, error in curve]
    low, high = min(lows), max(highs)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    steps = max(map(len, curves.values())) - 1 or 1

    def x(step: float) -> float:
        return LEFT + step / steps * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(name)} by iteration">'
    ]
    for value in ticks(low, high):
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(value):.1f}" '
            f'y2="{y(value):.1f}"/><text x="{LEFT - 6}" y="{y(value) + 4:.1f}" '
            f'text-anchor="end">{value:.4g}</text>'
        )
    for step in {round(value) for value in ticks(0, steps)}:
        parts.append(
            f'<text x="{x(step):.1f}" y="{HEIGHT - 14}" text-anchor="middle">{step}</text>'
        )
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 1}" text-anchor="end">iteration</text>')
    for index, curve in enumerate(curves.values()):
        colour = COLOURS[index % len(COLOURS)]
        upper = [f"{x(s):.1f},{y(m + e):.1f}" for s, (m, e) in enumerate(curve)]
        lower = [f"{x(s):.1f},{y(m - e):.1f}" for s, (m, e) in enumerate(curve)][::-1]
        line = " ".join(f"{x(s):.1f},{y(m):.1f}" for s, (m, _) in enumerate(curve))
        parts.append(f'<polygon points="{" ".join(upper + lower)}" fill="{colour}" opacity=".15"/>')
        dash = ' stroke-dasharray="6 3"' if index >= len(COLOURS) else ""
        parts.append(f'<polyline points="{line}" stroke="{colour}"{dash}/>')
    return "".join([*parts, "</svg>"])


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from low to high."""
    step = 10 ** math.floor(math.log10((high - low) / most))
    step = next(step * k for k in (1, 2, 5, 10) if (high - low) / (step * k) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]
