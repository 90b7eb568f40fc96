"""A plan against the nodes that there are, before anything runs: names, inputs, types, ranges."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from .axes import Draws
from .graph import Graph, is_link, title
from .plan import Plan
from .words import Failure, nearest

KINDS = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool}


class Types:
    """ComfyUI's nodes by their class names: inputs, outputs, whether they make results."""

    def __init__(self) -> None:
        import nodes

        self.classes = nodes.NODE_CLASS_MAPPINGS
        self._inputs: dict[str, dict] = {}

    def inputs(self, kind: str) -> dict[str, tuple]:
        """name -> (type or list of choices, options)"""
        if kind not in self._inputs:
            described = self.classes[kind].INPUT_TYPES()
            parts = {**described.get("required", {}), **described.get("optional", {})}
            self._inputs[kind] = {n: (p[0], p[1] if len(p) > 1 else {}) for n, p in parts.items()}
        return self._inputs[kind]

    def required(self, kind: str) -> list[str]:
        return list(self.classes[kind].INPUT_TYPES().get("required", {}))

    def outputs(self, kind: str) -> list[str]:
        return [str(each) for each in self.classes[kind].RETURN_TYPES]

    def makes_results(self, kind: str) -> bool:
        return getattr(self.classes[kind], "OUTPUT_NODE", False) is True


def completed(graph: Graph, types: Types) -> Graph:
    """The workflow with the defaults of what it leaves open: it may be older than its nodes."""
    graph = dict(graph)
    for name, node in graph.items():
        kind = node["class_type"]
        if kind not in types.classes:
            continue
        inputs = dict(node["inputs"])
        for key in types.required(kind):
            wanted, options = types.inputs(kind)[key]
            choices = wanted if isinstance(wanted, list) else []
            if key not in inputs and ("default" in options or choices):
                inputs[key] = options.get("default", next(iter(choices), None))
        graph[name] = {**node, "inputs": inputs}
    return graph


def check(plan: Plan, types: Types) -> None:
    """Raises Failure with a sentence: what is wrong where, and the nearest name."""
    for name, node in plan.base.items():
        if node["class_type"] not in types.classes:
            said = nearest(node["class_type"], types.classes)
            raise Failure(f"{title(plan.base, name)}: no node {node['class_type']!r} exists{said}")
        for key, value in node["inputs"].items():
            if is_link(value) and value[0] not in plan.base:
                raise Failure(f"{title(plan.base, name)}: {key} comes from a node that is missing.")
    for address, values in plan.varied():
        check_input(plan.base, address, values, types)
    for name in plan.base:  # what `set` and the workflow itself say
        for key, value in plan.base[name]["inputs"].items():
            if key in types.inputs(plan.base[name]["class_type"]):
                check_input(plan.base, f"{name}.{key}", [value], types)


def check_input(graph: Graph, address: str, values: Iterable, types: Types) -> None:
    if address in graph:
        return
    name, _, key = address.rpartition(".")
    kind, where = graph[name]["class_type"], f"{title(graph, name)}.{key}"
    inputs = types.inputs(kind)
    if key not in inputs:
        raise Failure(f"{title(graph, name)}: {kind} has no input {key!r}{nearest(key, inputs)}")
    wanted, options = inputs[key]
    if isinstance(values, range):
        values = (values[0], values[-1]) if len(values) else ()
    elif isinstance(values, Draws) and len(values) > 1000:
        values = islice(values, 1000)
    for value in values:
        if value is not None:
            _check_value(where, value, wanted, options, graph, types)


def _check_value(where: str, value, wanted, options: dict, graph: Graph, types: Types) -> None:
    if is_link(value):
        given = types.outputs(graph[value[0]]["class_type"])
        fits = value[1] < len(given) and _fits(given[value[1]], wanted)
        if not fits:
            raise Failure(f"{where} takes {wanted}; {title(graph, value[0])} gives {given}.")
        return
    choices = wanted if isinstance(wanted, list) else options.get("options")
    if choices is not None:
        uploaded = any(key.endswith("_upload") for key in options)
        if value not in choices and not uploaded:
            raise Failure(f"{where}: there is no {value!r}{nearest(value, choices)}")
        return
    if wanted not in KINDS:
        raise Failure(f"{where} is {value!r}: it takes another node's {wanted}, as {{node: ...}}.")
    number = wanted in ("INT", "FLOAT")
    wrong = not isinstance(value, KINDS[wanted]) or (number and isinstance(value, bool))
    if wrong:
        raise Failure(f"{where} is {value!r}: it takes {wanted}.")
    low, high = options.get("min"), options.get("max")
    if number and not (value >= (value if low is None else low)):
        raise Failure(f"{where} is {value}: the lowest is {low}.")
    if number and not (value <= (value if high is None else high)):
        raise Failure(f"{where} is {value}: the highest is {high}.")


def _fits(given: str, wanted: object) -> bool:
    if isinstance(wanted, list):
        return given in ("COMBO", "*")
    names = str(wanted).split(",")
    return given in names or "*" in (given, *names)
