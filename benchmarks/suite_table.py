"""The benchmark suite's table: means, and gains paired over prompts with their errors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from suite_cases import CASES, METHODS, Case

BASELINE = "best of seeds"
FIGURES = ("reward", "probability", "deviation", "recognised", "found", "quality")


@dataclass(frozen=True)
class Run:
    """One prompt, climbed by one method; the baseline is a method without a name of its own."""

    case: str
    method: str
    prompt: str
    seed: int
    size: int
    """Seeds of the baseline, iterations of the others."""

    @property
    def key(self) -> str:
        """Names the run in the file of finished ones."""
        return f"{self.case} | {self.method} | {self.prompt} | {self.seed} | {self.size}"


def table(results: Sequence[tuple[Run, dict]]) -> list[str]:
    """Means over the prompts, and the paired gain over the best of the seeds with its error."""
    columns = ["reward before", "after", "over best of seeds", *FIGURES[1:]]
    rows = [
        f"| class | reward | method | {' | '.join(columns)} |",
        "|---" * (len(columns) + 3) + "|",
    ]
    for case in CASES:
        baseline = {
            run.prompt: figures["reward"][1]
            for run, figures in results
            if run.case == case.name and run.method == BASELINE
        }
        for method in (BASELINE, *(method.name for method in METHODS)):
            group = [(r, f) for r, f in results if (r.case, r.method) == (case.name, method)]
            if group:
                rows.append(_row(case, method, group, baseline))
    return rows


def _row(case: Case, method: str, group: Sequence[tuple[Run, dict]], baseline: dict) -> str:
    cells = [f"{mean(f['reward'][side] for _, f in group):.3f}" for side in (0, 1)]
    gains = [f["reward"][1] - baseline[r.prompt] for r, f in group if r.prompt in baseline]
    if method == BASELINE or not gains:
        cells.append("-")
    else:
        error = stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else float("nan")
        cells.append(f"{mean(gains):+.3f} ± {error:.3f}")
    for name in FIGURES[1:]:
        values = sorted(f[name][1] for _, f in group if name in f)
        if not values:
            cells.append("-")
        elif name == "probability":  # spans many powers of ten
            cells.append(f"{values[len(values) // 2]:.2g}")
        else:
            cells.append(f"{mean(values):.2f}")
    return f"| {case.kind} | {case.name} | {method} | {' | '.join(cells)} |"
