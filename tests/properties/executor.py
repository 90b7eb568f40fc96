"""Graphs in ComfyUI's own executor: its nodes, this pack's and tiny models."""

from __future__ import annotations

import asyncio
import importlib
import uuid
from dataclasses import dataclass

import execution
import nodes
from comfy_api.latest import io

from ComfyUI_DNO.nodes import DNOExtension

from .tiny_nodes import FAULT, KEPT, OWN, Fault

CORE = (
    *("custom_sampler", "freelunch", "pag", "cfg", "tomesd", "easycache", "latent", "mahiro"),
    *("tcfg", "eps", "model_advanced", "apg", "fresca", "attention_multiply"),
    "differential_diffusion",
)


def register(monkeypatch) -> None:
    """ComfyUI's nodes that graphs use, this pack's, and those above."""
    found = {each.__name__: each for each in OWN}
    for name in CORE:
        module = importlib.import_module(f"comfy_extras.nodes_{name}")
        found |= getattr(module, "NODE_CLASS_MAPPINGS", {})
        classes = [each for each in vars(module).values() if isinstance(each, type)]
        found |= {_id(each): each for each in classes if issubclass(each, io.ComfyNode)}
    found |= {_id(each): each for each in asyncio.run(DNOExtension().get_node_list())}
    for name, each in found.items():
        if name:
            monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, name, each)


def _id(cls: type[io.ComfyNode]) -> str:
    return "" if cls is io.ComfyNode else cls.GET_SCHEMA().node_id


class Messages:
    """What ComfyUI's executor needs of its server."""

    client_id = last_node_id = None

    def send_sync(self, *_):
        pass


@dataclass(frozen=True)
class Outcome:
    """kept: what the nodes `Keep` were given; error: ComfyUI's own message, None if it ran."""

    kept: dict[str, object]
    error: dict | None
    interrupted: bool

    @property
    def ran(self) -> bool:
        return self.error is None and not self.interrupted


class Host:
    """One ComfyUI session: prompts one after the other, what has not changed is kept."""

    def __init__(self):
        caches = {"lru": 0, "ram": 0, "ram_inactive": 0}
        self._executor = execution.PromptExecutor(Messages(), cache_args=caches)

    def run(self, prompt: dict, fault: Fault | None = None) -> Outcome:
        prompt_id = str(uuid.uuid4())
        valid, error, outputs, errors = asyncio.run(
            execution.validate_prompt(prompt_id, prompt, None)
        )
        assert valid and not errors, (error, errors)
        KEPT.clear()
        FAULT[:] = [fault] if fault else []
        try:
            self._executor.execute(prompt, prompt_id, {}, outputs)
        finally:
            FAULT.clear()
        messages = dict(self._executor.status_messages)
        interrupted = "execution_interrupted" in messages
        return Outcome(dict(KEPT), messages.get("execution_error"), interrupted)
