"""The rows' numbers by variant, for the report; and the tables that a sweep's file describes.

A table's columns are Python format strings. `{reward.best}` is the mean of the rewards at the best;
a measure has start, best, gain, moved[0.1] (how many gained or lost so much) and within[120] (the
gain for so many evaluations); each of start, best, gain and within[...] has mean, median, se, sum,
count, yes and above[0.5] (how many are).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import islice
from statistics import fmean, median_high, stdev

from .plan import Plan
from .rows import Store
from .words import Failure, known

COLUMNS = ["key", "error", "start", "best", "curves", "pictures", "seconds", "made", "peak_memory"]
MANY = 50000  # rows, of which more are told by a fair sample


class Values:
    """Some numbers; formatted, their mean."""

    def __init__(self, numbers):
        self.numbers = [number for number in numbers if number is not None]

    @property
    def count(self) -> int:
        return len(self.numbers)

    @property
    def mean(self) -> float:
        return fmean(self.numbers) if self.numbers else math.nan

    @property
    def median(self) -> float:
        """Of an even number of values, the upper one of the two in the middle."""
        return median_high(self.numbers) if self.numbers else math.nan

    @property
    def se(self) -> float:
        """Standard error of the mean."""
        return stdev(self.numbers) / math.sqrt(self.count) if self.count > 1 else 0.0

    @property
    def sum(self) -> float:
        return sum(self.numbers)

    @property
    def yes(self) -> str:
        return "yes" if self.mean > 0.5 else "no"

    @property
    def above(self) -> Counts:
        return Counts(lambda bound: sum(number > bound for number in self.numbers))

    def __format__(self, form: str) -> str:
        return format(self.mean, form)


@dataclass(frozen=True)
class Counts:
    """`counts[bound]`, as a format string asks for it."""

    count: object

    def __getitem__(self, bound):
        return self.count(float(bound))


class Measure:
    """One measure of some rows. records: of them; at: what `best` stands for."""

    def __init__(self, name: str, records: list[dict], at: str = "best"):
        self._name, self._records = name, records
        self.start = Values(record["start"].get(name) for record in records)
        self.best = Values(record[at].get(name) for record in records)
        self.gain = Values(_gain(record, name) for record in records)

    @property
    def moved(self) -> Counts:
        return Counts(lambda bound: sum(abs(number) >= bound for number in self.gain.numbers))

    @property
    def within(self) -> Counts:
        return Counts(lambda budget: Values(map(lambda r: self._within(r, budget), self._records)))

    def _within(self, record: dict, budget: float) -> float | None:
        curve, spent = (record["curves"].get(name) for name in (self._name, "evaluations"))
        if not curve or not spent:
            return None
        reached = [v for v, s in zip(curve, spent, strict=True) if s <= budget and v is not None]
        return max(reached) - curve[0] if reached else None


def _gain(record: dict, name: str) -> float | None:
    start, best = record["start"].get(name), record["best"].get(name)
    return None if start is None or best is None else best - start


@dataclass
class Results:
    """What is done of a plan. variants: name -> {pair: record}, in the file's order."""

    plan: Plan
    variants: dict[str, dict[int, dict]] = field(default_factory=dict)
    failed: list[dict] = field(default_factory=list)

    @property
    def records(self) -> list[dict]:
        return [record for rows in self.variants.values() for record in rows.values()]

    def measures(self, records: list[dict], at: str = "best") -> dict[str, Measure]:
        """Every measure that any row has, of these rows."""
        names = dict.fromkeys(name for record in self.records for name in record["best"])
        return {name: Measure(name, records, at) for name in names}


def gather(plan: Plan, store: Store) -> Results:
    """Every row of the plan that is done, with its settings, by variant and pair."""
    table = store.read(COLUMNS)
    row_of = {key: index for index, key in enumerate(table["key"].to_pylist())}
    results = Results(plan, {row.variant: {} for row in plan.samples()})
    rows = map(plan.row, range(len(plan)))
    for row in rows if len(plan) <= MANY else islice(plan.rows(), MANY):
        if row.key not in row_of:
            continue
        record = table.slice(row_of[row.key], 1).to_pylist()[0]
        record = {"curves": {}, "pictures": [], **record, "variant": row.variant, "pair": row.pair}
        record["settings"] = plan.named(row.settings)
        for name in ("start", "best", "curves"):
            record[name] = dict(record[name] or {})
        if record["error"]:
            results.failed.append(record)
        else:
            results.variants[row.variant][row.pair] = record
    return results


def markdown(results: Results) -> str:
    """The table of the file's `table`; without one, every measure of every variant."""
    given = results.plan.given.get("table") or {}
    known("table", given, ("file", "lines", "line", "label", "start", "columns", "last"))
    names = results.measures(results.records)
    columns = given.get("columns") or {
        name: f"{{{name}.best:.4g}} ± {{{name}.best.se:.2g}}" for name in names
    }
    label = given.get("label", "variant")
    lines = [f"| {label} | {' | '.join(columns)} |"]
    lines.append("|---" * (label.count("|") + 1 + len(columns)) + "|")
    line = given.get("line", "{variant}")
    groups = [list(rows.values()) for rows in results.variants.values() if rows]
    if given.get("lines") == "rows":
        groups = [[record] for group in groups for record in group]
    if "start" in given and groups:
        lines.append(_line(results, str(given["start"]), columns, groups[0], "start"))
    lines += [_line(results, line, columns, group, "best") for group in groups]
    if "last" in given:
        lines += ["", formatted(given["last"], results, results.records)]
    return "\n".join(lines) + "\n"


def _line(results: Results, label: str, columns: dict, group: list[dict], at: str) -> str:
    cells = [formatted(form, results, group, at) for form in [label, *columns.values()]]
    return f"| {' | '.join(cells)} |"


def formatted(form: str, results: Results, group: list[dict], at: str = "best") -> str:
    """A format string filled in with the measures of some rows."""
    measures = results.measures(group, at)
    first = group[0] if group else {"variant": "", "settings": {}}
    pairs = len({record["pair"] for record in group})
    words = {"variant": first["variant"], "settings": first["settings"]}
    try:
        return str(form).format(**{**measures, **words, "rows": len(group), "pairs": pairs})
    except (KeyError, AttributeError, ValueError, IndexError, TypeError) as error:
        there = ", ".join(measures)
        raise Failure(
            f"table: {form!r} cannot be filled in ({error}); there are {there}."
        ) from None
