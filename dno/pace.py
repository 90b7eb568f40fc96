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

    def left(self, step: int, goes_on: Callable[[int, float], bool] | None = None) -> float | None:
        """Seconds from iterate `step` to the last one; None if that is not known yet.

        goes_on: whether another follows iterate (step), so many seconds from now, if not always.
        """
        coming = Counter(self._kind(each) for each in range(step + 1, self._last + 1))
        if any(kind not in self._took for kind in coming):
            return None
        each = {kind: self._typical(kind) for kind in coming}
        if goes_on is None:
            return sum(count * each[kind] for kind, count in coming.items())
        total = 0.0
        while step < self._last and goes_on(step, total):
            step += 1
            total += each[self._kind(step)]
        return total

    def _typical(self, kind: str) -> float:
        timed = self._took[kind]
        warm = timed[1:] or timed  # the first also loads, measures and compiles
        return statistics.median(warm[-RECENT:])


def in_words(seconds: float) -> str:
    """`40 s`, `2 min 30 s`, `12 min` or `1 h 20 min`.

    >>> in_words(40.2), in_words(155), in_words(700), in_words(6000)
    ('40 s', '2 min 30 s', '12 min', '1 h 40 min')
    """
    if seconds < 75:
        return f"{seconds:.0f} s"
    minutes, half = divmod(round(seconds / 30), 2)
    if minutes < 5:
        return f"{minutes} min" + " 30 s" * half
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"
