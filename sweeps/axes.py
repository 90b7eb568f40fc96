"""What varies: lists, ranges, files of prompts and draws, moved together or against each other."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .words import Failure, known

Settings = dict[str, object]  # "node.input" -> value; "node" -> None takes the node out


@dataclass(frozen=True)
class Axis:
    """Inputs that move together. columns: input -> its values, all of one length, or of one value.

    compared: its values are variants of the report, else what the variants share.
    """

    columns: dict[str, Sequence]
    compared: bool = False

    def __len__(self) -> int:
        return max(map(len, self.columns.values()))

    def settings(self, index: int) -> Settings:
        return {name: v[index if len(v) > 1 else 0] for name, v in self.columns.items()}

    def label(self, index: int) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.settings(index).items())


@dataclass(frozen=True)
class Variants:
    """Named groups of settings."""

    groups: dict[str, Settings]
    compared: bool = True

    def __len__(self) -> int:
        return len(self.groups)

    def settings(self, index: int) -> Settings:
        return self.groups[self.label(index)]

    def label(self, index: int) -> str:
        return list(self.groups)[index]


def axis(given: object, folder: Path, seed: int, compared: Sequence[str] = ()) -> Axis:
    """One entry of `vary`: {input: values, ...}, which move together."""
    if not isinstance(given, dict) or not given:
        raise Failure(f"vary: an entry is {given!r}: write 'node.input: values'.")
    sizes, columns, waiting = set(), {}, {}
    for name, what in given.items():
        if isinstance(what, dict) and "draw" in what and "count" not in what:
            waiting[name] = what
            continue
        columns[name] = values(name, what, folder, seed)
        if len(columns[name]) != 1:
            sizes.add(len(columns[name]))
    if len(sizes) > 1 or 0 in sizes:
        said = ", ".join(f"{name} has {len(column)}" for name, column in columns.items())
        raise Failure(f"vary: what moves together needs as many values each, and {said}.")
    for name, what in waiting.items():
        if not columns:
            raise Failure(f"{name}: say how many to draw, as 'count: 10'.")
        columns[name] = values(name, {**what, "count": max(sizes or {1})}, folder, seed)
    return Axis(columns, compared=any(name in compared for name in columns))


def values(name: str, given: object, folder: Path, seed: int) -> Sequence:
    """The values of one input: a list, {from, to, step}, {file}, {draw, ...}, or a single one."""
    if isinstance(given, list):
        return given
    if not isinstance(given, dict) or "node" in given:
        return [given]
    for key, make in (("from", _range), ("file", _lines), ("draw", _draws)):
        if key in given:
            return make(name, given, folder, seed)
    raise Failure(
        f"{name}: {given} is none of a list, {{from: 1, to: 9}}, {{file: prompts.txt}} and "
        "{draw: uniform, low: 0, high: 1, count: 9}."
    )


def _range(name: str, given: dict, folder: Path, seed: int) -> Sequence:
    known(name, given, ("from", "to", "step"))
    numbers = [given["from"], given.get("to"), given.get("step", 1)]
    if not all(isinstance(each, int | float) for each in numbers) or not numbers[2]:
        raise Failure(f"{name}: a range is {{from: 1, to: 9, step: 2}}, in numbers.")
    first, last, step = numbers
    if all(isinstance(each, int) for each in numbers):
        return range(first, last + (1 if step > 0 else -1), step)
    count = math.floor((last - first) / step + 1e-9) + 1
    return [round(first + index * step, 12) for index in range(count)]


def _lines(name: str, given: dict, folder: Path, seed: int) -> Sequence:
    known(name, given, ("file",))
    path = folder / str(given["file"])
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{name}: {path} cannot be read ({error}).") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


DRAWS = {
    "uniform": lambda rng, given: rng.uniform(given["low"], given["high"]),
    "log-uniform": lambda rng, given: math.exp(
        rng.uniform(math.log(given["low"]), math.log(given["high"]))
    ),
    "integer": lambda rng, given: rng.randint(given["low"], given["high"]),
    "choice": lambda rng, given: rng.choice(given["of"]),
}


@dataclass(frozen=True)
class Draws(Sequence):
    """`count` random values, each drawn when it is asked for and always the same."""

    name: str
    given: dict
    seed: int

    def __len__(self) -> int:
        return self.given["count"]

    def __getitem__(self, index: int) -> object:
        if not 0 <= index < len(self):
            raise IndexError(index)
        rng = random.Random(f"{self.seed}/{self.given.get('seed', 0)}/{self.name}/{index}")
        return DRAWS[self.given["draw"]](rng, self.given)


def _draws(name: str, given: dict, folder: Path, seed: int) -> Sequence:
    known(name, given, ("draw", "low", "high", "of", "count", "seed"))
    known(f"{name}: draw", [given["draw"]], tuple(DRAWS))
    draws = Draws(name, given, seed)
    if not isinstance(given["count"], int) or given["count"] < 1:
        raise Failure(f"{name}: count is {given['count']}: give a whole number from 1 on.")
    try:
        draws[0]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise Failure(
            f"{name}: {given['draw']} needs {'of' if given['draw'] == 'choice' else 'low and high'}"
            f" that fit it ({error})."
        ) from None
    return draws
