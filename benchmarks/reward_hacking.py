"""Which regularizer keeps the subject? The white-duck experiment of arXiv 2405.18881, on twelve.

    python run.py exec -- python benchmarks/reward_hacking.py

Every prompt is made dark without a regularizer, with Probability and with Spectrum, at the same
budget. The judge is the demo's classifier, which no objective sees. Writes reward_hacking.json,
reward_hacking.md and reward_hacking.jpg beside this file; about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from statistics import mean

from demo_runs import Job, run_all, sheet

PROMPTS = (
    ("a penguin", 109), ("an apple", 100), ("a robot", 125), ("a cat", 102), ("a duck", 101),
    ("a star", 113), ("a house", 118), ("a ghost", 122), ("an owl", 104), ("a car", 131),
    ("a mushroom", 107), ("a snowman", 116),
)  # fmt: skip
ITERATIONS = 24
REGULARIZERS = {
    "none": (),
    "Probability": (("Probability", 1.0),),
    "Spectrum": (("Spectrum", 1.0),),
    "both": (("Probability", 1.0), ("Spectrum", 1.0)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    arguments = parser.parse_args()
    jobs = [
        Job(prompt, prompt.split()[-1], seed, "Darkness", regularizers, iterations=ITERATIONS)
        for prompt, seed in PROMPTS[: arguments.prompts]
        for regularizers in REGULARIZERS.values()
    ]
    outcomes = list(run_all(jobs, arguments.workers))
    table = ["| regularizer | darkness | P(z) | spectral deviation | recognised | named |"]
    table.append("|---|---|---|---|---|---|")
    groups = {name: outcomes[i :: len(REGULARIZERS)] for i, name in enumerate(REGULARIZERS)}
    start = groups["none"]
    table.append(_row("(start)", start, 0))
    table += [_row(name, group, 1) for name, group in groups.items()]
    here = Path(__file__).resolve().parent
    (here / "reward_hacking.md").write_text("\n".join(table) + "\n", encoding="utf-8")
    (here / "reward_hacking.json").write_text(
        json.dumps([outcome.numbers() for outcome in outcomes], indent=1), encoding="utf-8"
    )
    rows = [("start", [outcome.pictures[0] for outcome in start[:8]])]
    rows += [(name, [o.pictures[1] for o in group[:8]]) for name, group in groups.items()]
    sheet(rows, here / "reward_hacking.jpg")
    print("\n".join(table))


def _row(name: str, group, side: int) -> str:
    """Means over the prompts; P(z) by its median, which spans many powers of ten."""
    chances = sorted(outcome.probability[side] for outcome in group)
    named = sum(outcome.named for outcome in group) if side else len(group)
    return (
        f"| {name} | {mean(1 - o.brightness[side] for o in group):.3f} "
        f"| {chances[len(chances) // 2]:.2g} "
        f"| {mean(o.deviation[side] for o in group):.1f} "
        f"| {mean(o.recognised[side] for o in group):.2f} | {named} of {len(group)} |"
    )


if __name__ == "__main__":
    main()
