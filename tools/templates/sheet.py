"""A workflow as the web UI stores it and as ComfyUI runs it, from nodes that are put on a sheet.

sheet = Sheet(server.object_info())
loader = sheet.add("CheckpointLoaderSimple", (0, 0), ckpt_name="model.safetensors")
sheet.add("CLIPTextEncode", (360, 0), clip=loader["CLIP"], text="a cat")
sheet.interface(), sheet.api()
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PACK, VERSION = (re.search(rf'^{key} = "(.+)"', PROJECT, re.M)[1] for key in ("name", "version"))
CORE, CORE_VERSION = "comfy-core", "0.3.75"
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
WITH_BUTTON = ("DNOSampler", "DNOSamplerCustom")  # web/js adds Keep best
NOTE = "MarkdownNote"  # drawn by the web UI alone
TITLE, GAP = 30, 24  # pixels: the bar above a node, and the air between two of a column
SLOT, WIDGET, MARGIN, TEXT = 20, 24, 14, 96  # heights of what a node is made of


@dataclass(frozen=True)
class Output:
    """One output of a node, to be given to another node's input."""

    node: Node
    slot: int


@dataclass
class Node:
    """A node on the sheet. values: of its widgets by name, or the outputs that feed its inputs."""

    id: int
    kind: str
    described: Mapping
    values: dict
    title: str | None = None
    pos: tuple[float, float] = (0, 0)
    size: tuple[float, float] = (300, 100)
    models: tuple[Mapping, ...] = ()
    after_run: str = "fixed"  # what becomes of a seed

    def __getitem__(self, name: str) -> Output:
        return Output(self, self.described["output_name"].index(name))

    @property
    def bottom(self) -> float:
        return self.pos[1] + self.size[1]

    @property
    def inputs(self) -> dict[str, list]:
        given = self.described["input"]
        return {**given.get("required", {}), **given.get("optional", {})}

    def is_widget(self, name: str) -> bool:
        kind, *options = self.inputs[name]
        forced = options and options[0].get("forceInput")
        return (isinstance(kind, list) or kind in WIDGETS) and not forced

    def height(self) -> float:
        """The least height, as the web UI computes it."""
        sockets = [name for name in self.inputs if not self.is_widget(name)]
        rows = max(len(sockets), len(self.described["output_name"]), 1)
        tall = [name for name in self.inputs if self.is_widget(name) and self._is_text(name)]
        flat = len(self.stored()) - len(tall) + (self.kind in WITH_BUTTON)
        return rows * SLOT + flat * WIDGET + len(tall) * TEXT + MARGIN

    def _is_text(self, name: str) -> bool:
        options = self.inputs[name][1:]
        return bool(options and options[0].get("multiline"))

    def stored(self) -> list:
        """The widgets' values in the web UI's order, which adds one behind each seed."""
        values = []
        for name in filter(self.is_widget, self.inputs):
            options = (self.inputs[name][1:] or [{}])[0]
            given = self.values.get(name)
            if is_wire(given):  # what it shows until something is connected
                given = given.node.values.get(given.node.described["output_name"][given.slot])
            values.append(self.default(name) if given is None else given)
            if options.get("control_after_generate") or name in ("seed", "noise_seed"):
                values.append(self.after_run)
        return values

    def default(self, name: str):
        kind, *options = self.inputs[name]
        options = options[0] if options else {}
        choices = kind if isinstance(kind, list) else options.get("options") or [None]
        return options.get("default", choices[0])


def is_wire(value: object) -> bool:
    return isinstance(value, Output)


class Sheet:
    """Nodes and the wires between them. `info`: what a ComfyUI says of its nodes."""

    def __init__(self, info: Mapping):
        self.info: Mapping = info
        self.nodes: list[Node] = []
        self.notes: list[tuple] = []

    def add(self, kind: str, pos, size=(300, 0), /, *, title=None, models=(), **values) -> Node:
        """A node; a height of 0 is the least one."""
        node = Node(len(self.nodes) + 1, kind, self.info[kind], values, title, pos, models=models)
        if unknown := set(values) - set(node.inputs):
            raise ValueError(f"{kind} has no {', '.join(sorted(unknown))}")
        self.nodes.append(node)
        node.size = (size[0], max(size[1], node.height()))
        return node

    def below(self, above: Node, kind: str, /, **more) -> Node:
        """A node under another one, as wide."""
        place = (above.pos[0], above.bottom + TITLE + GAP)
        return self.add(kind, place, (above.size[0], 0), **more)

    def note(self, text: str, pos, size) -> None:
        """What to do, for people."""
        self.notes.append((text, pos, size))

    def wires(self) -> list[tuple[int, Output, Node, str]]:
        """(id, from, to, its input) of all."""
        found = [
            (value, node, name)
            for node in self.nodes
            for name, value in node.values.items()
            if is_wire(value)
        ]
        return [(place, *wire) for place, wire in enumerate(found, 1)]

    def api(self) -> dict:
        """{id: node} as ComfyUI takes it."""
        return {str(node.id): self._api(node) for node in self.nodes}

    def _api(self, node: Node) -> dict:
        inputs = {}
        for name in node.inputs:
            value = node.values.get(name)
            if is_wire(value):
                inputs[name] = [str(value.node.id), value.slot]
            elif node.is_widget(name):
                inputs[name] = node.default(name) if value is None else value
        title = node.title or node.described["display_name"]
        return {"class_type": node.kind, "inputs": inputs, "_meta": {"title": title}}

    def interface(self, view: dict | None = None) -> dict:
        """The workflow as the web UI stores it. view: {"scale": ..., "offset": [x, y]}."""
        wires = self.wires()
        nodes = [self.drawn(node, wires) for node in self.nodes]
        nodes += [
            self._note(len(nodes) + 1 + place, *note) for place, note in enumerate(self.notes)
        ]
        links = [
            [id, out.node.id, out.slot, node.id, slot_of(node, name), kind_of(out)]
            for id, out, node, name in wires
        ]
        extra = {"workflowRendererVersion": "LG"} | ({"ds": view} if view else {})
        return {
            "revision": 0,
            "last_node_id": len(nodes),
            "last_link_id": len(links),
            "nodes": nodes,
            "links": links,
            "groups": [],
            "config": {},
            "extra": extra,
            "version": 0.4,
        }

    def drawn(self, node: Node, wires: list) -> dict:
        """One node as the web UI stores it."""
        into = {name: id for id, _, target, name in wires if target is node}
        outputs = []
        for slot, (name, kind) in enumerate(
            zip(node.described["output_name"], node.described["output"], strict=True)
        ):
            links = [id for id, out, *_ in wires if out.node is node and out.slot == slot]
            kind = "COMBO" if isinstance(kind, list) else kind
            outputs.append({"name": name, "type": kind, "links": links or None})
        core = not node.described["python_module"].startswith("custom_nodes")
        properties = {
            "cnr_id": CORE if core else PACK,
            "ver": CORE_VERSION if core else VERSION,
            "Node name for S&R": node.kind,
        }
        if node.models:
            properties["models"] = list(node.models)
        made = {
            "id": node.id,
            "type": node.kind,
            "pos": list(node.pos),
            "size": list(node.size),
            "flags": {},
            "order": node.id - 1,
            "mode": 0,
            "inputs": [socket(node, name, into.get(name)) for name in slots(node)],
            "outputs": outputs,
            "properties": properties,
            "widgets_values": node.stored(),
        }
        return made | ({"title": node.title} if node.title else {})

    def _note(self, id: int, text: str, pos, size) -> dict:
        made = {"id": id, "type": NOTE, "pos": list(pos), "size": list(size), "flags": {}}
        made |= {"order": id - 1, "mode": 0, "inputs": [], "outputs": []}
        made |= {"title": "What to do", "properties": {}, "widgets_values": [text]}
        return made | {"color": "#432", "bgcolor": "#653"}


def slots(node: Node) -> list[str]:
    """Input names in the web UI's order: sockets first, then widgets."""
    return sorted(node.inputs, key=node.is_widget)


def slot_of(node: Node, name: str) -> int:
    return slots(node).index(name)


def kind_of(out: Output) -> str:
    kind = out.node.described["output"][out.slot]
    return "COMBO" if isinstance(kind, list) else kind


def socket(node: Node, name: str, link: int | None) -> dict:
    kind = node.inputs[name][0]
    made = {"name": name, "type": "COMBO" if isinstance(kind, list) else kind, "link": link}
    if node.is_widget(name):
        made["widget"] = {"name": name}
    elif name in node.described["input"].get("optional", {}):
        made["shape"] = 7
    return made
