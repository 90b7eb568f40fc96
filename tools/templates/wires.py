"""Where the web UI draws a wire, and whether a node stands before it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

SLOT, WIDGET, TITLE = 20, 24, 30
SLACK = 12  # pixels that a wire may dip behind a node's edge


def hidden(workflow: Mapping) -> list[tuple]:
    """(from, to, the node before it) of each wire behind a third node, or back behind its own."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    found = []
    for _, source, out, target, into, _ in workflow["links"]:
        start, end = leaving(nodes[source], out), arriving(nodes[target], into)
        if end[0] < start[0]:
            found.append((nodes[source]["type"], nodes[target]["type"], "both"))
        for node in nodes.values():
            if node["id"] not in (source, target) and any(
                inside(point, node) for point in spline(start, end)
            ):
                found.append((nodes[source]["type"], nodes[target]["type"], node["type"]))
    return found


def leaving(node: Mapping, slot: int) -> tuple[float, float]:
    (x, y), (width, _) = node["pos"], node["size"]
    return x + width, y + SLOT * (slot + 0.7)


def arriving(node: Mapping, slot: int) -> tuple[float, float]:
    """Of a socket, or of a widget's row, which follow below the sockets and outputs."""
    x, y = node["pos"]
    inputs = node["inputs"]
    sockets = [place for place, each in enumerate(inputs) if not each.get("widget")]
    if slot in sockets:
        return x, y + SLOT * (sockets.index(slot) + 0.7)
    row = slot - len(sockets)
    rows = max(len(sockets), len(node["outputs"]), 1)
    return x, y + SLOT * rows + WIDGET * (row + 0.5)


def spline(start, end, pieces: int = 40) -> Iterator[tuple[float, float]]:
    """LiteGraph's Bezier curve: it leaves and arrives level, a quarter of its length."""
    reach = math.dist(start, end) / 4
    points = (start, (start[0] + reach, start[1]), (end[0] - reach, end[1]), end)
    for piece in range(pieces + 1):
        t = piece / pieces
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
        yield tuple(sum(w * p[k] for w, p in zip(weights, points, strict=True)) for k in (0, 1))


def inside(point, node: Mapping) -> bool:
    (x, y), (width, height) = node["pos"], node["size"]
    across = x + SLACK < point[0] < x + width - SLACK
    return across and y - TITLE + SLACK / 2 < point[1] < y + height - SLACK / 2
