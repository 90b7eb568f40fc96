"""How long the rest of a run takes, by what its iterates took so far."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable

RECENT = 5  # iterates of a kind that speak for the next ones


class Pace:
    """Seconds of what is left, by kinds of iterates that take about as long as each other.

    kind: step -> its kind, see `Method`; iterations: the last step.

    Nothing is promised before one of every kind that is still to come has been timed.
    """

    def __init__(self, kind: Callable[[int], str], iterations: int):
        self._kind, self._last = kind, iterations
        self._took: dict[str, list[float]] = {}

    def took(self, step: int, seconds: float) -> None:
        """Iterate `step` is there, `seconds` after the one before."""
        self._took.setdefault(self._kind(step), []).append(seconds)

    def left(self, step: int) -> float | None:
        """Seconds from iterate `step` to the last one; None if that is not known yet."""
        total = 0.0
        coming = Counter(self._kind(each) for each in range(step + 1, self._last + 1))
        for kind, count in coming.items():
            timed = self._took.get(kind, [])
            if not timed:
                return None
            warm = timed[1:] or timed  # the first also loads, measures and compiles
            total += count * statistics.median(warm[-RECENT:])
        return total


def in_words(seconds: float) -> str:
    """`40 s`, `12 min` or `1 h 20 min`.

    >>> in_words(40.2), in_words(700), in_words(4780)
    ('40 s', '12 min', '1 h 20 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"
