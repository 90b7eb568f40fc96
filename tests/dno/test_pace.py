"""How long the rest takes: nothing is promised too early, and what is promised holds."""

from __future__ import annotations

import random

import pytest

from ComfyUI_DNO.dno.method import Ascent, Then
from ComfyUI_DNO.dno.optimizers import Adam
from ComfyUI_DNO.dno.pace import Pace, in_words
from ComfyUI_DNO.dno.search import BestOf
from ComfyUI_DNO.dno.steer import FAST, ONE_PASS, Steer

CLIMB = Ascent(Adam(), iterations=30)
WAYS = {
    "climb": CLIMB,
    "fast": Steer(FAST),
    "one pass": Steer(ONE_PASS),
    "thorough": Then(Steer(FAST), Ascent(Adam(), iterations=9)),
    "best of n": BestOf(12),
}
SECONDS = {"sampled": 10.0, "climbed": 31.0, "turned": 24.0}


def promises(way, seconds, first: int = 0) -> list[tuple[int, float | None, float]]:
    """(step, what is promised there, what it takes) of a run on a clock of its own."""
    pace, found = Pace(way.kind, way.iterations), []
    took = [seconds(step, way.kind(step)) for step in range(first, way.iterations + 1)]
    for place, each in enumerate(took):
        step = first + place
        pace.took(step, each)
        found.append((step, pace.left(step), sum(took[place + 1 :])))
    return found


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("shaky", [0.0, 0.2])
def test_what_is_promised_is_right_within_thirty_percent(way, shaky):
    chance = random.Random(3)

    def seconds(step, kind):
        return SECONDS[kind] * chance.uniform(1 - shaky, 1 + shaky)

    told = 0
    for _, promised, taken in promises(way, seconds):
        if promised is not None:
            told += 1
            assert abs(promised - taken) <= 0.3 * taken + 1e-9
    assert told >= way.iterations / 3


def test_nothing_is_promised_before_a_kind_has_been_timed():
    told = promises(CLIMB, lambda step, kind: SECONDS[kind])
    assert told[0][1] is None and told[1][1] == told[1][2]
    told = promises(WAYS["thorough"], lambda step, kind: SECONDS[kind])
    assert [step for step, promised, _ in told if promised is None] == list(range(7))


def test_a_slow_beginning_and_a_hiccup_are_forgotten():
    def seconds(step, kind):
        return {1: 100.0, 7: 500.0}.get(step, SECONDS[kind])

    for step, promised, _ in promises(CLIMB, seconds):
        if step >= 3:
            assert promised == pytest.approx(SECONDS["climbed"] * (30 - step))


def test_at_the_end_nothing_is_left():
    for way in WAYS.values():
        assert promises(way, lambda step, kind: SECONDS[kind])[-1][1] == 0


def test_long_times_are_said_in_minutes_and_hours():
    told = [in_words(seconds) for seconds in (0.4, 59.6, 76, 155, 3599, 5399, 5401, 86400)]
    assert told == [
        "0 s",
        "60 s",
        "1 min 30 s",
        "2 min 30 s",
        "60 min",
        "1 h 30 min",
        "1 h 30 min",
        "24 h 00 min",
    ]
