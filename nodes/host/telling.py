"""What the user is told of a climb while it runs and at its end, in words and below the picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from ...dno.history import History
from ...dno.pace import Pace, in_words
from ..drawing.canvas import number
from ..drawing.strip import Standing

STRAINED = {"P(z)": 0.01, "spectral deviation": 12.0}  # fresh noise is within, at any size
BROKEN = {"P(z)": 1e-3, "spectral deviation": 30.0}  # the subject is lost: reward_hacking.md


class Telling:
    """Of one climb. note: what is done, in words; pace: how long the rest takes."""

    def __init__(self, history: History, note: str, pace: Pace, iterations: int):
        self._history, self._note, self._pace = history, note, pace
        self._iterations, self._memory = iterations, ""

    def heard(self, seconds: float, memory: str) -> None:
        """One more iterate: how long it took, and at which level of memory; "" if at none."""
        self._pace.took(self._history.records[-1].step, seconds)
        self._memory = memory or self._memory

    def now(self, budget: float, *more: str) -> tuple[str, Standing]:
        """As it runs. budget: seconds that it may take in all."""
        last, before = self._history.records[-1], self._history.seconds_before

        def within(step: int, after: float) -> bool:
            """As the time budget sees it: by the mean of all iterations."""
            seconds = last.seconds + after
            return seconds + (seconds - before) / (step + 1) <= budget

        left = self._pace.left(last.step, within if math.isfinite(budget) else None)
        known = left is not None and last.step < self._iterations
        time = f"{in_words(left)} left" if known else ""
        return self._told(time, last.indicators, more)

    def ended(self, *more: str) -> tuple[str, Standing]:
        """What is kept, and how long it took."""
        history = self._history
        names = history.records[-1].indicators
        best = {name: history.at_best(lambda r, n=name: r.indicators[n]) for name in names}
        return self._told(f"done in {in_words(history.records[-1].seconds)}", best, more)

    def _told(
        self, time: str, indicators: Mapping[str, Tensor], more: Sequence[str]
    ) -> tuple[str, Standing]:
        records, best = self._history.records, self._history.best
        step = f"iteration {records[-1].step} of {self._iterations}"
        start, now = records[0].reward, records[-1].reward
        reward = f"reward {_mean(start)} → {_mean(now)}"
        noise = health(indicators)
        reads = [f"{name} {_mean(value)}" for name, value in indicators.items()]
        memory = f"memory: {self._memory}" if self._memory else ""
        lines = [
            f"{step}: {reward}, kept {_mean(best.reward)}",
            _joined(noise, *reads, time),
            *self._note.splitlines(),
            memory,
            *more,
        ]
        rewards = [float(record.reward.mean()) for record in records]
        index = next(at for at, each in enumerate(records) if each.step == int(best.step.max()))
        short = [step.removeprefix("iteration "), f"best {_mean(best.reward)}"]  # letters are large
        words = [_joined(short[0], time), reward, _joined(short[1], noise)]
        foot = list(filter(None, [memory, *self._note.splitlines()[-1:]]))  # what keeps the noise
        strip = Standing(words, foot, [record.step for record in records], rewards, index)
        return "\n".join(filter(None, lines)), strip


def health(indicators: Mapping[str, Tensor]) -> str:
    """How Gaussian the noise is, of the batch's worst image: healthy, strained or broken."""
    if not indicators:
        return ""
    if _beyond(indicators, BROKEN):
        return "noise broken"
    return "noise strained" if _beyond(indicators, STRAINED) else "noise healthy"


def _beyond(indicators: Mapping[str, Tensor], bounds: Mapping[str, float]) -> bool:
    low, high = bounds["P(z)"], bounds["spectral deviation"]
    probability = indicators.get("P(z)")
    deviation = indicators.get("spectral deviation")
    unlikely = probability is not None and not float(probability.min()) >= low
    return unlikely or (deviation is not None and not float(deviation.max()) <= high)


def _joined(*words: str) -> str:
    return ", ".join(filter(None, words))


def _mean(values: Tensor) -> str:
    return number(float(values.mean()))
