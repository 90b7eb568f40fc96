"""What presets.py runs: prompts, rewards, presets and their budgets."""

from __future__ import annotations

from pathlib import Path

HERE = Path(__file__).resolve().parent
ROWS = HERE / "presets.jsonl"
STEPS, BUDGET, LONG = 10, 60, 1510
SETS = {
    "tune": (("a penguin", 11), ("an apple", 12), ("a house", 13), ("a robot", 14)),
    "confirm": (("a fox", 201), ("a duck", 202), ("a car", 203), ("a mushroom", 204)),
}
REWARDS = ("darkness", "text", "palette", "style", "combination", "halves")
SEEDS, PAPER = "best of N", "DNO paper"
LONG_SEEDS, LONG_PAPER = f"{SEEDS}, whole", f"{PAPER}, whole"
FAST = "fast"
POLISHED, LINEAR = VARIANTS = (f"{FAST}, polished", f"{FAST}, linear directions")
STOCHASTIC = ("one pass", FAST, "fast, five samplings", "thorough", PAPER, "NTRK-like one pass")
METHODS = (
    *(FAST, SEEDS, "one pass", PAPER, "fast, five samplings", *VARIANTS, "TRS", "SONIC", "SDO"),
    *("WGNC", "ReNO", "DOODL", "ORIGEN", "D-Flow", "NTRK-like one pass", "thorough"),
    *(LONG_PAPER, LONG_SEEDS),
)
