"""Do the defaults work? Ten prompts made bright and made dark with the sampler's own settings.

    python run.py exec -- python benchmarks/defaults.py

The prompts leave the background to the noise. Each seed is the first from 1 on whose picture by
KSampler has a mean brightness of 0.3 to 0.7, so that there is room both ways. Writes defaults.json,
defaults.md and defaults.jpg beside this file; about five minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from demo_runs import Job, run_all, sheet

PROMPTS = (
    ("a penguin", 3), ("a cat", 2), ("an apple", 1), ("a robot", 1), ("a frog", 1),
    ("a star", 5), ("a house", 1), ("a pizza", 1), ("an owl", 2), ("a car", 6),
)  # fmt: skip
REGULARIZERS = (("Spectrum", 1.0), ("Probability", 1.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    jobs = [
        Job(prompt, prompt.split()[-1], seed, reward, REGULARIZERS)
        for reward in ("Brightness", "Darkness")
        for prompt, seed in PROMPTS
    ]
    outcomes = list(run_all(jobs, arguments.workers))
    table = ["| prompt | reward | mean brightness | P(z) | recognised | named |"]
    table.append("|---|---|---|---|---|---|")
    for outcome in outcomes:
        job = outcome.job
        table.append(
            "| {} | {} | {:.2f} -> {:.2f} | {:.2f} -> {:.2f} | {:.2f} -> {:.2f} | {} |".format(
                *(job.prompt, job.reward, *outcome.brightness, *outcome.probability),
                *(*outcome.recognised, "yes" if outcome.named else "no"),
            )
        )
    moved = sum(abs(o.brightness[1] - o.brightness[0]) >= 0.1 for o in outcomes)
    likely = sum(o.probability[1] > 0.05 for o in outcomes)
    named = sum(o.named for o in outcomes)
    summary = (
        f"Moved by 0.1 or more: {moved} of {len(outcomes)}; P(z) above 0.05: {likely}; "
        f"subject still named: {named}."
    )
    here = Path(__file__).resolve().parent
    (here / "defaults.md").write_text("\n".join([*table, "", summary, ""]), encoding="utf-8")
    (here / "defaults.json").write_text(
        json.dumps([outcome.numbers() for outcome in outcomes], indent=1), encoding="utf-8"
    )
    bright, dark = outcomes[: len(PROMPTS)], outcomes[len(PROMPTS) :]
    rows = [
        ("KSampler", [o.pictures[0] for o in bright]),
        ("Brightness", [o.pictures[1] for o in bright]),
        ("Darkness", [o.pictures[1] for o in dark]),
    ]
    sheet(rows, here / "defaults.jpg")
    print("\n".join([*table, "", summary]))


if __name__ == "__main__":
    main()
