"""The rows of presets.py as a table and a contact sheet."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from statistics import mean, median

import numpy as np
from demo_runs import HOME, sheet
from presets_claims import Problems, by_reward, claims, figure, with_error
from presets_settings import HERE, LONG, LONG_SEEDS, METHODS, REWARDS, ROWS, SEEDS, STEPS


def read_rows() -> list[dict]:
    if not ROWS.exists():
        return []
    return [json.loads(line) for line in ROWS.read_text("utf-8").splitlines() if line.strip()]


def picture_file(row: dict) -> Path:
    words = "_".join(str(row[key]) for key in ("set", "reward", "prompt", "method"))
    return HOME / "presets" / (words.replace(" ", "_").replace(",", "") + ".npy")


def report(chosen: str) -> str:
    """presets.md, presets.jpg and presets.png from the rows that are there."""
    rows = [row for row in read_rows() if row["set"] == chosen]
    problems = Problems(rows)
    table = [
        "| preset | runs | evaluations | processor s | gain | beats the best of N | P(z) | "
        "spectral deviation | recognised |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for method in METHODS:
        mine = [row for row in rows if row["method"] == method]
        if mine and method != LONG_SEEDS:
            table.append(_line(method, mine, problems))
    prompts, rewards = ({row[key] for row in rows} for key in ("prompt", "reward"))
    note = (
        f"Set {chosen!r}: {len(prompts)} prompts, {len(rewards)} rewards, {len(rows)} runs of the "
        "demo checkpoint. Gain: over the plain picture's reward, in units of the gain of the best "
        f"of {LONG // STEPS} seeds on that reward, mean ± standard error; the best of N has the "
        "same evaluations; P(z) and spectral deviation are medians, the rest means."
    )
    parts = ["\n".join(table), note, by_reward(problems), claims(problems)]
    text = "\n\n".join(part for part in parts if part) + "\n"
    (HERE / "presets.md").write_text(text, encoding="utf-8")
    figure(problems, HERE / "presets.png")
    _sheet(rows)
    return text


def _line(method: str, rows: list[dict], problems: Problems) -> str:
    gains = [problems.gain(row) for row in rows]
    rivals = [(row, problems.seeds(row, row["evaluations"])) for row in rows]
    met = [(row["reward_value"], best) for row, best in rivals if best is not None]
    beaten = f"{sum(mine > best for mine, best in met)} of {len(met)}"
    return "| {} | {} | {:.0f} | {:.0f} | {} | {} | {:.2g} | {:.1f} | {:.2f} |".format(
        method,
        len(rows),
        mean(row["evaluations"] for row in rows),
        mean(row["seconds"] for row in rows),
        with_error([gain for gain in gains if gain is not None]),
        beaten if method != SEEDS else "-",
        median(row["probability"] for row in rows),
        median(row["deviation"] for row in rows),
        mean(row["recognised"] for row in rows),
    )


def _sheet(rows: list[dict]) -> None:
    """A row for each preset, a column for each reward, of the prompt with most pictures here."""
    drawn = [row for row in rows if picture_file(row).exists()]
    most = Counter(row["prompt"] for row in drawn).most_common(1)
    lines = []
    for method in METHODS:
        files = {
            row["reward"]: picture_file(row)
            for row in drawn
            if (row["method"], row["prompt"]) == (method, most[0][0])
        }
        if set(files) == set(REWARDS):
            lines.append((method, [np.load(files[reward]) for reward in REWARDS]))
    if lines:
        sheet(lines, HERE / "presets.jpg", REWARDS)
