"""What made a picture, put where the host's nodes that save one find it: `extra_pnginfo`, "dno".

ComfyUI gives every node of a prompt the same `extra_pnginfo`, and Save Image writes all of it into
the file. What a node notes there is remembered, because ComfyUI does not run it again where nothing
has changed: the next prompt with the same node and all that leads to it gets the same note.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from weakref import WeakValueDictionary

from comfy_execution.utils import get_executing_context

from .web import server

KEY = "dno"
_MOST = 256  # notes that are remembered

Workflow = Mapping[str, Mapping]  # in the form of ComfyUI's API: id -> class_type and inputs


class Page(dict):
    """The `extra_pnginfo` of one prompt that came over the server, with its workflow."""

    def __init__(self, held: Mapping, workflow: Workflow):
        super().__init__(held)
        self.workflow = workflow


_pages: WeakValueDictionary[str, Page] = WeakValueDictionary()  # by the prompt's id, while it lives
_current: dict[str, tuple[dict, Workflow]] = {}  # the one prompt of a host without a server
_notes: OrderedDict[str, dict] = OrderedDict()  # by what led to them


def listen() -> None:
    """From now on every prompt with a node of this pack gets a page, with what is remembered."""
    listening = server()
    if listening is not None and _open not in listening.on_prompt_handlers:
        listening.add_on_prompt_handler(_open)


def begin(hidden) -> None:
    """Take the page of the prompt that is executed from a node's hidden inputs."""
    context, extra = get_executing_context(), getattr(hidden, "extra_pnginfo", None)
    if context is not None and isinstance(extra, dict) and context.prompt_id not in _pages:
        _current.clear()
        _current[context.prompt_id] = extra, getattr(hidden, "prompt", None) or {}


def note(values: Mapping) -> None:
    """Note `values`, of which JSON can be made, for the node that is executed."""
    context = get_executing_context()
    if context is None:
        return
    page = _pages.get(context.prompt_id)
    known = _current.get(context.prompt_id) if page is None else (page, page.workflow)
    if known is None:
        return
    extra, workflow = known
    suffix = f"#{context.list_index}" if context.list_index else ""  # of a list that it runs over
    kind = {"class_type": workflow.get(context.node_id, {}).get("class_type")}
    held = _write(extra, f"{context.node_id}{suffix}", {**kind, **values})
    if context.node_id in workflow:
        signature = _signature(workflow, context.node_id)
        _notes.setdefault(signature, {})[suffix] = held
        _notes.move_to_end(signature)
        while len(_notes) > _MOST:
            _notes.popitem(last=False)


def _write(extra: dict, node: str, values: Mapping) -> dict:
    page = extra.setdefault(KEY, {"version": version(), "nodes": {}})
    held = {**page["nodes"].get(node, {}), **values}
    page["nodes"][node] = held
    return held


def _open(posted: dict) -> dict:
    """What a client posts to run a prompt, with a page of ours in its `extra_data`."""
    workflow, data = posted.get("prompt"), posted.get("extra_data") or {}
    given = data.get("extra_pnginfo") or {}
    if not isinstance(given, dict) or not _is_ours(workflow):
        return posted
    page = Page(given, workflow)
    known: dict[str, str] = {}
    for node in workflow:
        for suffix, held in _notes.get(_signature(workflow, node, known), {}).items():
            _write(page, f"{node}{suffix}", held)
    prompt_id = posted.get("prompt_id") or str(uuid.uuid4())  # as the server would make one
    _pages[str(prompt_id)] = page
    return {**posted, "extra_data": {**data, "extra_pnginfo": page}, "prompt_id": prompt_id}


def _is_ours(workflow: object) -> bool:
    return isinstance(workflow, dict) and any(
        isinstance(node, dict) and str(node.get("class_type")).startswith("DNO")
        for node in workflow.values()
    )


def _signature(workflow: Workflow, node: str, known: dict[str, str] | None = None) -> str:
    """What a node is and all that leads to it, whatever the nodes' ids.

    known: signatures that are made already.
    """
    known = {} if known is None else known
    if node not in known:
        known[node] = ""  # for a loop, which ComfyUI refuses
        entry, inputs = workflow[node], {}
        for name, value in sorted(entry.get("inputs", {}).items()):
            if isinstance(value, list) and len(value) == 2 and value[0] in workflow:
                value = [_signature(workflow, value[0], known), value[1]]
            inputs[name] = value
        text = json.dumps([entry.get("class_type"), inputs])
        known[node] = hashlib.sha256(text.encode()).hexdigest()
    return known[node]


@lru_cache(maxsize=1)
def version() -> str:
    """Of this pack."""
    project = Path(__file__).resolve().parents[2] / "pyproject.toml"
    try:
        match = re.search(r'^version = "(.+)"$', project.read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        match = None
    return match[1] if match else "unknown"
