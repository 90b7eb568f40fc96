"""What a sweep's file asks for: a workflow, what varies in it, and every row that comes of it.

Rows are made when they are asked for, by their number: a million of them take no memory. They come
in an order that a seed shuffles, so that a sweep which ends early is a fair sample of the whole.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from .axes import Axis, Settings, Variants, axis
from .graph import Graph, added, changed, node_of, pruned, title
from .shuffle import Shuffle
from .words import Failure, known

KEYS = (
    *("workflow", "set", "vary", "variants", "held_out", "compare", "sampler", "custom_nodes"),
    *("seed", "threads", "results", "table", "sheet"),
)
WINDOW = 1024  # rows that are sorted together, so that models are not swapped needlessly


@dataclass(frozen=True)
class Row:
    """One picture, or batch, to be made.

    number: its index in the file's own order. variant, pair: what it is compared with, and over.
    graph: the workflow that makes it. key: the hash of what determines it.
    """

    number: int
    variant: str
    pair: int
    settings: Settings
    graph: Graph
    key: str


@dataclass(frozen=True)
class Plan:
    """A sweep's file, read. `row(number)` for number in range(len(plan)).

    held_out: names of the scorers that are added to the workflow.
    outputs: ids of the nodes that make results, of which a row needs what they need; empty for all.
    files: what a name of a file in the workflow stands for; it goes into the row's hash.
    """

    path: Path
    base: Graph
    axes: tuple[Axis | Variants, ...]
    held_out: tuple[str, ...] = ()
    given: dict = field(default_factory=dict)
    outputs: frozenset[str] = frozenset()
    files: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        count = 1
        for each in self.axes:
            count *= len(each)
        return count

    @property
    def results(self) -> Path:
        where = self.given.get("results")
        if where:
            return (self.path.parent / where).resolve()
        return Path(__file__).resolve().parent.parent / "output" / "sweeps" / self.path.stem

    def indices(self, number: int) -> list[int]:
        """The index on every axis; the last axis moves fastest."""
        indices = []
        for each in reversed(self.axes):
            number, index = divmod(number, len(each))
            indices.append(index)
        return indices[::-1]

    def variant(self, number: int) -> tuple[str, int]:
        """The variant's name, and the number of what it shares with other variants."""
        names, pair = [], 0
        for each, index in zip(self.axes, self.indices(number), strict=True):
            if each.compared:
                names.append(each.label(index))
            else:
                pair = pair * len(each) + index
        return ", ".join(names) or "all", pair

    def settings(self, number: int) -> Settings:
        settings: Settings = {}
        for each, index in zip(self.axes, self.indices(number), strict=True):
            settings.update(each.settings(index))
        return settings

    def varied(self) -> Iterator[tuple[str, Sequence]]:
        """Every input that varies, with its values."""
        for each in self.axes:
            if isinstance(each, Variants):
                for group in each.groups.values():
                    yield from ((address, [value]) for address, value in group.items())
            else:
                yield from each.columns.items()

    def values(self) -> Iterator[object]:
        """Every value of every input."""
        for node in self.base.values():
            yield from node["inputs"].values()
        for _, values in self.varied():
            if not isinstance(values, range):
                yield from values

    def named(self, settings: Settings) -> Settings:
        """The settings with titles in place of ids, for people."""
        titled = {}
        for address, value in settings.items():
            name, dot, key = address.rpartition(".")
            titled[title(self.base, name or address) + (dot and f".{key}")] = value
        return titled

    def row(self, number: int) -> Row:
        settings = self.settings(number)
        graph = changed(self.base, settings)
        if self.outputs:
            graph = pruned(graph, self.outputs)
        return Row(number, *self.variant(number), settings, graph, self.key(graph))

    def samples(self) -> Iterator[Row]:
        """The first row of each variant."""
        seen = set()
        compared = [len(each) if each.compared else 1 for each in self.axes]
        for indices in itertools.product(*map(range, compared)):
            number = 0
            for each, index in zip(self.axes, indices, strict=True):
                number = number * len(each) + index
            row = self.row(number)
            if row.variant not in seen:
                seen.add(row.variant)
                yield row

    def key(self, graph: Graph) -> str:
        """The hash of the workflow without its titles, and of the files that it names."""
        parts = {i: (node["class_type"], node["inputs"]) for i, node in graph.items()}
        text = json.dumps([parts, self.models(graph)], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def models(self, graph: Graph) -> list[str]:
        """The files that a row reads: rows with the same ones belong together."""
        if not self.files:
            return []
        values = [v for node in graph.values() for v in node["inputs"].values()]
        return sorted({v + self.files[v] for v in values if isinstance(v, str) and v in self.files})

    def rows(self) -> Iterator[Row]:
        """Every row in the seed's order; in windows of it, rows with the same models in turn."""
        order, window = Shuffle(len(self), self.given.get("seed", 0)), []
        for index in range(len(self)):
            window.append(self.row(order[index]))
            if len(window) == WINDOW or index == len(self) - 1:
                if self.files:
                    window.sort(key=lambda row: self.models(row.graph))
                yield from window
                window = []


def read(path: Path) -> Plan:
    """The plan in a YAML or JSON file. Raises Failure with a sentence that says what to mend."""
    given = _parsed(path)
    if not isinstance(given, dict) or "workflow" not in given:
        raise Failure(f"{path} names no workflow: write 'workflow: FILE.json', in API format.")
    known(str(path), given, KEYS)
    seed = given.get("seed", 0)
    if not isinstance(seed, int):
        raise Failure(f"seed is {seed!r}: give a whole number.")
    graph = _workflow(given["workflow"], path.parent)
    held_out = given.get("held_out") or {}
    graph = added(graph, held_out)
    graph = changed(graph, _resolved(given.get("set") or {}, graph, "set"))
    varied = given.get("vary") or []
    entries = varied if isinstance(varied, list) else [varied]
    compared = given.get("compare") or []
    axes: list[Axis | Variants] = []
    for entry in entries:
        unresolved = axis(entry, path.parent, seed, compared)
        axes.append(Axis(_resolved(unresolved.columns, graph, "vary"), unresolved.compared))
    known("compare", compared, [name for entry in entries for name in entry])
    groups = given.get("variants")
    if groups:
        if not isinstance(groups, dict):
            raise Failure("variants: write 'name: {node.input: value}' for each of them.")
        named = {str(n): _resolved(s or {}, graph, f"variants: {n}") for n, s in groups.items()}
        axes.append(Variants(named))
    return Plan(path, graph, tuple(axes), tuple(held_out), given)


def _parsed(path: Path) -> object:
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise Failure(f"The sweep's file cannot be read: {error}.") from None
    except (ValueError, yaml.YAMLError) as error:
        raise Failure(f"{path} cannot be read: {' '.join(str(error).split())}.") from None


def _workflow(given: object, folder: Path) -> Graph:
    where, graph = "workflow", given
    if not isinstance(given, dict):
        where = folder / str(given)
        try:
            graph = json.loads(where.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Failure(f"The workflow {where} cannot be read: {error}.") from None
    if isinstance(graph, dict) and isinstance(graph.get("nodes"), list):
        raise Failure(f"{where} is the web UI's form: save it with 'Export (API)' and name that.")
    fine = isinstance(graph, dict) and all(
        isinstance(node, dict) and "class_type" in node and isinstance(node.get("inputs"), dict)
        for node in graph.values()
    )
    if not fine or not graph:
        raise Failure(f"{where} is no workflow in API format: save one with 'Export (API)'.")
    return {str(name): node for name, node in graph.items()}


def _resolved(settings: dict, graph: Graph, where: str) -> dict:
    """The same settings by node ids; links that are given by title too."""
    if not isinstance(settings, dict):
        raise Failure(f"{where}: write 'node.input: value'.")
    return {node_of(name, graph, where): _links(v, graph, where) for name, v in settings.items()}


def _links(value: object, graph: Graph, where: str) -> object:
    if isinstance(value, list) and any(isinstance(each, dict) for each in value):
        return [_links(each, graph, where) for each in value]
    if isinstance(value, dict):
        known(where, value, ("node", "output"))
        return [node_of(str(value["node"]), graph, where, whole=True), value.get("output", 0)]
    return value
