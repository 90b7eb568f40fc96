"""What the rows of presets.py say about this pack's own presets, beside the paper's and seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, median, stdev

from presets_settings import (
    BUDGET,
    FAST,
    LINEAR,
    LONG,
    LONG_PAPER,
    LONG_SEEDS,
    POLISHED,
    REWARDS,
    SEEDS,
    STEPS,
)

SHOWN = {  # in the figure: preset -> colour
    LONG_SEEDS: "#777777",
    LONG_PAPER: "#D55E00",
    "thorough": "#009E73",
    FAST: "#0072B2",
    "one pass": "#CC79A7",
}
WIDTH, HEIGHT, LEFT, FOOT = 480, 360, 46, 44  # of one panel of the figure


class Problems:
    """The rows by preset, reward and prompt, in units of what many seeds gain on a reward."""

    def __init__(self, rows: list[dict]):
        self.rows = {(r["method"], r["reward"], r["prompt"]): r for r in rows}
        gains: dict[str, list[float]] = {}
        for (method, reward, _), row in self.rows.items():
            if method == LONG_SEEDS:
                gains.setdefault(reward, []).append(row["reward_value"] - row["curve"][0][1])
        self._units = {reward: mean(values) for reward, values in gains.items()}

    def of(self, method: str) -> list[dict]:
        return [row for (name, _, _), row in self.rows.items() if name == method]

    def start(self, row: dict) -> float | None:
        """The plain picture's reward on this problem."""
        seeds = self.rows.get((SEEDS, row["reward"], row["prompt"]))
        return None if seeds is None else seeds["curve"][0][1]

    def gain(self, row: dict, reward: float | None = None) -> float | None:
        """Of a row, or of another reward on its problem; None where no seeds were drawn."""
        start, unit = self.start(row), self._units.get(row["reward"])
        if start is None or not unit:
            return None
        return ((row["reward_value"] if reward is None else reward) - start) / unit

    def seeds(self, row: dict, evaluations: float) -> float | None:
        """The best reward of as many seeds as these evaluations draw on this problem."""
        method = SEEDS if evaluations <= BUDGET else LONG_SEEDS
        drawn = self.rows.get((method, row["reward"], row["prompt"]))
        return None if drawn is None else reached(drawn, evaluations)

    def pairs(self, first: str, second: str) -> list[tuple[dict, dict]]:
        """The two presets' rows on the problems that both were run on."""
        found = ((row, self.rows.get((second, row["reward"], row["prompt"])))
                 for row in self.of(first))  # fmt: skip
        return [(row, other) for row, other in found if other is not None]


def reached(row: dict, evaluations: float) -> float:
    """The best reward of a run within so many evaluations."""
    within = [value for spent, value in row["curve"] if spent <= evaluations]
    return max(within, default=row["curve"][0][1])


def with_error(values: Sequence[float]) -> str:
    """Mean and standard error."""
    if not values:
        return "-"
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{mean(values):.2f} ± {error:.2f}"


def by_reward(problems: Problems) -> str:
    """Each reward's mean where it starts, by more and more seeds, and by the climbs."""
    columns: dict[str, Callable[[dict], float | None]] = {
        "plain": problems.start,
        **{
            f"best of {count}": lambda row, count=count: problems.seeds(row, count * STEPS)
            for count in (BUDGET // STEPS, 60, LONG // STEPS)
        },
    }
    climbs = ("one pass", "fast", "thorough", LONG_PAPER)
    lines = [
        f"| reward | {' | '.join([*columns, *climbs])} |",
        "|---" * (1 + len(columns) + len(climbs)) + "|",
    ]
    for reward in REWARDS:
        rows = [row for row in problems.of(LONG_PAPER) if row["reward"] == reward]
        cells = [_mean([read(row) for row in rows]) for read in columns.values()]
        for method in climbs:
            values = [row["reward_value"] for row in problems.of(method) if row["reward"] == reward]
            cells.append(_mean(values))
        lines.append(f"| {reward} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{mean(known):.3f}" if known else "-"


def claims(problems: Problems) -> str:
    """How this pack's presets compare with others, problem by problem."""
    lines = [
        "| preset | beside | reaches its reward | gain, difference | recognised, difference | "
        "evaluations | processor s |",
        "|---|---|---|---|---|---|---|",
    ]
    for first, second in (
        (FAST, LONG_PAPER), (LINEAR, LONG_PAPER), ("thorough", LONG_PAPER), ("thorough", FAST),
        (POLISHED, FAST), ("one pass", FAST),
    ):  # fmt: skip
        pairs = problems.pairs(first, second)
        if pairs:
            lines.append(_compared(first, second, pairs, problems))
    return "\n".join(lines)


def _compared(first: str, second: str, pairs: list[tuple[dict, dict]], problems: Problems) -> str:
    won = sum(mine["reward_value"] >= other["reward_value"] for mine, other in pairs)
    both = [(problems.gain(mine), problems.gain(other)) for mine, other in pairs]
    gains = [one - two for one, two in both if one is not None and two is not None]
    judged = [mine["recognised"] - other["recognised"] for mine, other in pairs]

    def share(key: str) -> str:
        part = sum(mine[key] for mine, _ in pairs) / sum(other[key] for _, other in pairs)
        return f"1 / {1 / part:.1f}" if part < 1 else f"{part:.1f} times"

    return (
        f"| {first} | {second} | {won} of {len(pairs)} | {with_error(gains)} | "
        f"{with_error(judged)} | {share('evaluations')} | {share('seconds')} |"
    )


def figure(problems: Problems, path: Path) -> None:
    """Mean gain against evaluations and against processor seconds, both on logarithmic axes."""
    from ComfyUI_DNO.nodes.drawing.canvas import INK, MUTED, Canvas, Scale

    curves = {method: _mean_curve(problems, method) for method in SHOWN}
    curves = {method: curve for method, curve in curves.items() if curve}
    if not curves:
        return
    canvas = Canvas(2 * WIDTH, HEIGHT)
    gains = Scale(0.0, 1.05 * max(gain for curve in curves.values() for _, gain in curve))
    _panel(canvas, curves, gains, 0, (10, 20, 60, 100, 200, 400, 800, LONG))
    _panel(canvas, _by_time(problems, curves), gains, WIDTH, (1, 2, 5, 10, 20, 50, 100))
    for left, words in ((0, "evaluations of the network"), (WIDTH, "processor seconds")):
        canvas.text(left + WIDTH - 8, HEIGHT - 12, words, 13, MUTED, "rm")
    for place, method in enumerate(curves):
        y = 24 + 20 * place
        canvas.line([(LEFT + 12, y), (LEFT + 40, y)], SHOWN[method], 2.5)
        canvas.text(LEFT + 48, y, method.replace(", whole", ""), 14, INK)
    canvas.finish().save(path)


def _panel(canvas, curves: dict, gains, left: int, ticks: Sequence[int]) -> None:
    """Curves over a logarithmic axis with these numbers."""
    from ComfyUI_DNO.nodes.drawing.canvas import GRID, INK, MUTED

    low = min(curve[0][0] for curve in curves.values())
    span = math.log(max(curve[-1][0] for curve in curves.values()) / low)

    def point(spent: float, gain: float) -> tuple[float, float]:
        x = left + LEFT + math.log(spent / low) / span * (WIDTH - LEFT - 16)
        return x, HEIGHT - FOOT - gains.at(gain) * (HEIGHT - FOOT - 16)

    for tick, words in gains.ticks(6):
        y = point(low, tick)[1]
        canvas.line([(left + LEFT, y), (left + WIDTH - 16, y)], GRID, 1)
        canvas.text(left + LEFT - 6, y, words, 13, INK, "rm")
    for spent in ticks:
        x = point(spent, 0)[0]
        if left + LEFT <= x <= left + WIDTH - 8:
            canvas.text(min(x, left + WIDTH - 20), HEIGHT - FOOT + 12, str(spent), 13, MUTED, "mm")
    for method, curve in curves.items():
        if len(curve) > 1:
            canvas.line([point(*each) for each in curve], SHOWN[method], 2.5)
        canvas.dot(point(*curve[-1]), 4, SHOWN[method])


def _by_time(problems: Problems, curves: dict) -> dict:
    """The same over processor seconds: seeds take alike; of the others the end alone is known."""
    found = {}
    for method, curve in curves.items():
        rows = problems.of(method)
        seconds = mean(row["seconds"] for row in rows)
        pace = seconds / mean(row["evaluations"] for row in rows)
        seeds = [(spent * pace, gain) for spent, gain in curve]
        found[method] = seeds if method == LONG_SEEDS else [(seconds, curve[-1][1])]
    return found


def _mean_curve(problems: Problems, method: str) -> list[tuple[float, float]]:
    """(evaluations, mean gain), as far as the preset's runs go."""
    rows = problems.of(method)
    if not rows:
        return []
    end = median(row["evaluations"] for row in rows)
    spent, curve = float(STEPS), []
    while spent <= end + 1:
        gains = [problems.gain(row, reached(row, spent)) for row in rows]
        known = [gain for gain in gains if gain is not None]
        if known:
            curve.append((spent, mean(known)))
        spent = max(spent + STEPS, spent * 1.05)
    return curve
