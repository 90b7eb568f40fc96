"""One row through ComfyUI's own executor, in this process; and what ComfyUI knows of its nodes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tools import inside

from . import measure, results
from .check import Types, check, completed
from .graph import Graph
from .plan import Plan, Row
from .words import Failure

FULL = (errno.ENOSPC, errno.EDQUOT)
SMALL = 64 * 2**20  # files up to this size are known by their content, others by their size


@dataclass(frozen=True)
class Installation:
    """Where ComfyUI and its models are. The same on every machine that works on a sweep.

    models: a folder of models beside ComfyUI's own. packs: custom nodes that the workflow needs.
    threads: of one worker on the processor; figures may depend on them in the last digit.
    """

    comfyui: str
    models: str = ""
    packs: tuple[str, ...] = ()
    threads: int = 1


class FullError(Failure):
    """There is no room on the disk; nothing was lost."""

    def __init__(self, where: object = ""):
        super().__init__(
            f"The disk is full{f' ({where})' if where else ''}: free some space, then run the same "
            "command again; it goes on where it stopped."
        )


class Comfy:
    """ComfyUI in this process: the job that a runner repeats. `run(row)` gives the row's record."""

    def __init__(self, installation: Installation, folder: Path, worker: str = "here"):
        self.worker, self.folder = worker, Path(folder)
        self.scratch = self.folder / "scratch" / worker
        self._loop = asyncio.new_event_loop()
        self._executor = start(installation, self.scratch, self._loop)
        self.types = Types()

    def run(self, plan: Plan, row: Row) -> dict:
        """Execute the row's workflow; its record, pictures in place. An error in it is recorded."""
        began = time.perf_counter()
        graph = results.probed(plan, row.graph, self.types, row.key)
        measure.reset_peak()
        executing = time.perf_counter()
        error, told = self._execute(graph, row.key)
        executed = time.perf_counter()
        record = {"error": error, **results.read(told, graph)}
        if error:
            shutil.rmtree(self.scratch / "output" / row.key, ignore_errors=True)
        record["pictures"] = self._keep(row.key)
        shutil.rmtree(self.scratch / "temp", ignore_errors=True)
        record["peak_memory"], record["worker"] = measure.peak(), self.worker
        record["seconds"] = time.perf_counter() - began
        record["engine_seconds"] = record["seconds"] - (executed - executing)
        return record

    def _execute(self, graph: Graph, key: str) -> tuple[str | None, dict]:
        """What went wrong, in a sentence, and what the nodes told."""
        if said := self._refused(graph, key):
            return said, {}
        ends = [name for name in graph if self.types.makes_results(graph[name]["class_type"])]
        self._executor.execute(graph, key, {"client_id": "sweep"}, ends)
        for name, message in self._executor.status_messages:
            if name == "execution_interrupted":
                raise KeyboardInterrupt
            if name == "execution_error":
                text = " ".join(str(message["exception_message"]).split())
                if any(f"[Errno {code}]" in text for code in FULL):
                    raise FullError(self.scratch)
                return f"{message['node_type']}: {text or message['exception_type']}", {}
        return None, self._executor.history_result["outputs"]

    def _keep(self, key: str) -> list[str]:
        """Move what the row saved to the pictures, as one folder at once."""
        saved, target = self.scratch / "output" / key, self.folder / "pictures" / key[:2] / key
        if not saved.exists():
            return []
        names = sorted(p.relative_to(saved).as_posix() for p in saved.rglob("*") if p.is_file())
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(saved, target)
        return [f"{key[:2]}/{key}/{name}" for name in names]

    def fitted(self, plan: Plan) -> Plan:
        """The plan, checked against the nodes that there are, with what it reads from files."""
        plan = replace(plan, base=completed(plan.base, self.types))
        check(plan, self.types)
        outputs = results.ends(plan, self.types)
        plan = replace(plan, outputs=frozenset(outputs), files=files(plan))
        for row in plan.samples():
            graph = results.probed(plan, row.graph, self.types, row.key)
            if said := self._refused(graph, row.key):
                raise Failure(f"{row.variant}: {said}.")
        return plan

    def _refused(self, graph: Graph, key: str) -> str | None:
        """Why ComfyUI does not take the workflow, or only a part of it."""
        valid = self._loop.run_until_complete(execution().validate_prompt(key, graph, None))
        for node in (valid[3] or {}).values():
            for error in node["errors"]:
                return f"{node['class_type']}: {error['message']} ({error['details']})"
        return None if valid[0] else f"ComfyUI does not take it: {valid[1]['message']}"


def execution():
    """ComfyUI's module of that name; it can be imported once ComfyUI has started."""
    import execution

    return execution


def start(installation: Installation, data: Path, loop: asyncio.AbstractEventLoop):
    """ComfyUI with its own nodes, this pack and the packs that the sweep names: its executor."""
    os.environ["COMFYUI_PATH"] = installation.comfyui
    os.environ["OMP_NUM_THREADS"] = str(installation.threads)
    import torch

    torch.set_num_threads(installation.threads)
    inside.start_comfyui(data, () if measure.has_gpu() else ("--cpu",))
    import comfy.utils
    import folder_paths
    import server

    class Silent(server.PromptServer):
        """ComfyUI's server, which is not started and tells nobody anything."""

        def send_sync(self, event, data, sid=None) -> None:
            pass

    comfy.utils.set_progress_bar_enabled(False)
    if installation.models:
        for folder in Path(installation.models).iterdir():
            if folder.is_dir():
                folder_paths.add_model_folder_path(folder.name, str(folder))
    silent = Silent(loop)
    for pack in inside.load_nodes((str(inside.ROOT), *installation.packs)):
        raise Failure(f"The custom nodes of {pack} could not be loaded: see the message above.")
    logging.getLogger().setLevel(logging.CRITICAL)  # what goes wrong in a row is in its record
    kind = execution().CacheType.CLASSIC
    return execution().PromptExecutor(silent, cache_type=kind, cache_args={"lru": 0, "ram": 0})


def interrupt() -> None:
    """Stop the row that is being executed, as the web UI's Cancel does."""
    import nodes

    nodes.interrupt_processing()


def files(plan: Plan, find: Callable[[str], Path | None] | None = None) -> dict[str, str]:
    """Every value in the plan that names a file of ComfyUI's, and what the file is."""
    find, fingerprints = find or _file, {}
    for value in plan.values():
        if (
            isinstance(value, str)
            and "." in value
            and value not in fingerprints
            and len(value) < 250
        ):
            path = find(value)
            if path:
                fingerprints[value] = fingerprint(path)
    return fingerprints


def _file(name: str) -> Path | None:
    import folder_paths

    with contextlib.suppress(OSError, ValueError):
        given = Path(folder_paths.get_input_directory(), name)
        if given.is_file():
            return given
        for folder in folder_paths.folder_names_and_paths:
            path = folder_paths.get_full_path(folder, name)
            if folder != "custom_nodes" and path and Path(path).is_file():
                return Path(path)
    return None


def fingerprint(path: Path) -> str:
    size = path.stat().st_size
    if size > SMALL:
        return f" {size} bytes"
    return " " + hashlib.sha256(path.read_bytes()).hexdigest()[:16]
