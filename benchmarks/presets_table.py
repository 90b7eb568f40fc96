"""The rows of presets.py as a table and a contact sheet."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import mean, median, stdev

import numpy as np
from demo_runs import HOME, sheet

HERE = Path(__file__).resolve().parent
ROWS = HERE / "presets.jsonl"
STEPS, BUDGET, LONG = 10, 60, 1510
SETS = {
    "tune": (("a penguin", 11), ("an apple", 12), ("a house", 13), ("a robot", 14)),
    "confirm": (("a fox", 201), ("a duck", 202), ("a car", 203), ("a mushroom", 204)),
}
REWARDS = ("darkness", "text", "palette", "style", "combination", "halves")
START, SEEDS, PAPER, LONG_PAPER = "plain", "best of N", "DNO paper", "DNO paper, whole"
STOCHASTIC = ("one pass", "fast", "fast, five samplings", "thorough", PAPER, "NTRK-like one pass")
METHODS = (
    *("fast", SEEDS, "one pass", PAPER, "fast, five samplings", "TRS", "SONIC", "SDO", "WGNC"),
    *("ReNO", "DOODL", "ORIGEN", "D-Flow", "NTRK-like one pass", "thorough", LONG_PAPER),
)


def read_rows() -> list[dict]:
    if not ROWS.exists():
        return []
    return [json.loads(line) for line in ROWS.read_text("utf-8").splitlines() if line.strip()]


def picture_file(row: dict) -> Path:
    words = "_".join(str(row[key]) for key in ("set", "reward", "prompt", "method"))
    return HOME / "presets" / (words.replace(" ", "_").replace(",", "") + ".npy")


def report(chosen: str) -> str:
    """presets.md and presets.jpg from the rows that are there."""
    rows = [row for row in read_rows() if row["set"] == chosen]
    by_problem = {(r["method"], r["reward"], r["prompt"]): r for r in rows}
    table = [
        "| preset | runs | evaluations | processor s | gain | beats the best of N | P(z) | "
        "recognised |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for method in METHODS:
        mine = [row for row in rows if row["method"] == method]
        if mine:
            table.append(_line(method, mine, by_problem))
    prompts, rewards = ({row[key] for row in rows} for key in ("prompt", "reward"))
    note = (
        f"Set {chosen!r}: {len(prompts)} prompts, {len(rewards)} rewards, {len(rows)} runs of the "
        "demo checkpoint. Gain: over the plain picture's reward, in units of the best of N's mean "
        "gain on that reward, mean ± standard error; P(z) is the median. Only problems that both "
        "were run on are compared."
    )
    (HERE / "presets.md").write_text("\n".join([*table, "", note, ""]), encoding="utf-8")
    _sheet(rows)
    return "\n".join([*table, "", note])


def _line(method: str, rows: list[dict], by_problem: dict) -> str:
    scale, gains, won, met = _units(by_problem), [], 0, 0
    for row in rows:
        seeds = by_problem.get((SEEDS, row["reward"], row["prompt"]))
        if seeds is None or not scale.get(row["reward"]):
            continue
        met += 1
        start = seeds["curve"][0][1]
        gains.append((row["reward_value"] - start) / scale[row["reward"]])
        won += row["reward_value"] > seeds["reward_value"]
    error = stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
    gain = f"{mean(gains):.2f} ± {error:.2f}" if gains else "-"
    return "| {} | {} | {:.0f} | {:.0f} | {} | {} | {:.2g} | {:.2f} |".format(
        method,
        len(rows),
        mean(row["evaluations"] for row in rows),
        mean(row["seconds"] for row in rows),
        gain,
        f"{won} of {met}" if method != SEEDS else "-",
        median(row["probability"] for row in rows),
        mean(row["recognised"] for row in rows),
    )


def _units(by_problem: dict) -> dict[str, float]:
    """Mean gain of the best of N on each reward."""
    gains: dict[str, list[float]] = {}
    for (method, reward, _), row in by_problem.items():
        if method == SEEDS:
            gains.setdefault(reward, []).append(row["reward_value"] - row["curve"][0][1])
    return {reward: mean(values) for reward, values in gains.items()}


def _sheet(rows: list[dict]) -> None:
    """The pictures of the first prompt: a row for each preset, a column for each reward."""
    prompt = rows[0]["prompt"] if rows else ""
    lines = []
    for method in METHODS:
        files = [
            picture_file(row)
            for reward in REWARDS
            for row in rows
            if (row["method"], row["reward"], row["prompt"]) == (method, reward, prompt)
        ]
        if len(files) == len(REWARDS) and all(file.exists() for file in files):
            lines.append((method, [np.load(file) for file in files]))
    if lines:
        sheet(lines, HERE / "presets.jpg", REWARDS)
