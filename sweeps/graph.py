"""Workflows in ComfyUI's API format: {id: {class_type, inputs}}, an input a value or [id, slot]."""

from __future__ import annotations

from collections.abc import Iterable

from .words import Failure, known, nearest

Graph = dict[str, dict]


def title(graph: Graph, name: str) -> str:
    return str(graph[name].get("_meta", {}).get("title") or graph[name]["class_type"])


def is_link(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str)


def links(node: dict) -> dict[str, str]:
    """input -> the node that it comes from."""
    return {name: value[0] for name, value in node["inputs"].items() if is_link(value)}


def node_of(address: str, graph: Graph, where: str, whole: bool = False) -> str:
    """`Title.input`, `id.input` or a node alone, by ids. Raises Failure with the nearest name.

    whole: the address is a node's, without an input.
    """
    if not isinstance(address, str):
        raise Failure(f"{where}: {address!r} is no address: write 'node.input'.")
    head, dot, tail = address.rpartition(".")
    whole = whole or not dot or bool(_ids(address, graph))
    name = address if whole else head
    ids = _ids(name, graph)
    if not ids:
        titles = [title(graph, each) for each in graph]
        raise Failure(f"{where}: the workflow has no node {name!r}{nearest(name, titles)}")
    if len(ids) > 1:
        raise Failure(f"{where}: nodes {', '.join(ids)} are all called {name!r}: use the id.")
    return ids[0] if whole else f"{ids[0]}.{tail}"


def _ids(name: str, graph: Graph) -> list[str]:
    return [name] if name in graph else [each for each in graph if title(graph, each) == name]


def added(graph: Graph, held_out: object) -> Graph:
    """The workflow with the scorers that are held out, each under its own name."""
    if not isinstance(held_out, dict):
        raise Failure("held_out: write 'name: {class_type: ..., inputs: {...}}'.")
    graph = dict(graph)
    for name, node in held_out.items():
        if not isinstance(node, dict):
            raise Failure(f"held_out: {name}: write {{class_type: ..., inputs: {{...}}}}.")
        known(f"held_out: {name}", node, ("class_type", "inputs", "node"))
        if name in graph or "." in str(name):
            raise Failure(f"held_out: {name!r} is a node of the workflow already, or has a dot.")
        if "node" in node:
            graph[name] = {**graph[node_of(str(node["node"]), graph, f"held_out: {name}", True)]}
        else:
            inputs = {
                key: [node_of(str(value["node"]), graph, f"held_out: {name}", True)]
                + [value.get("output", 0)]
                if isinstance(value, dict) and "node" in value
                else value
                for key, value in (node.get("inputs") or {}).items()
            }
            graph[name] = {"class_type": str(node.get("class_type")), "inputs": inputs}
        graph[name]["_meta"] = {"title": str(name)}
    return graph


def changed(graph: Graph, settings: dict[str, object]) -> Graph:
    """A copy with these settings. None takes an input out, or a node with all that hangs on it."""
    graph = dict(graph)
    for address, value in settings.items():
        if address in graph:
            if value is not None:
                raise Failure(f"{title(graph, address)}: name one of its inputs, or give null.")
            _drop(graph, address)
            continue
        name, _, key = address.rpartition(".")
        if name not in graph:
            continue  # taken out by an earlier setting
        inputs = dict(graph[name]["inputs"])
        inputs.pop(key, None)
        if value is not None:
            inputs[key] = value
        graph[name] = {**graph[name], "inputs": inputs}
    return graph


def _drop(graph: Graph, name: str) -> None:
    del graph[name]
    for other in [each for each, node in graph.items() if name in links(node).values()]:
        if other in graph:
            _drop(graph, other)


def pruned(graph: Graph, wanted: Iterable[str]) -> Graph:
    """The nodes that these need, in the workflow's order."""
    needed, stack = set(), [name for name in wanted if name in graph]
    while stack:
        name = stack.pop()
        if name not in needed:
            needed.add(name)
            stack.extend(each for each in links(graph[name]).values() if each in graph)
    return {name: node for name, node in graph.items() if name in needed}
