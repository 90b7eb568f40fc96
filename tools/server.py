"""A running ComfyUI of our own: this pack alone, with the demo's models, gone at the end."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from demo import job

from .home import ROOT, Failure, Home
from .prepare import link_pack

FOLDERS = ("checkpoints", "reward_models")  # of models that are assembled here
EXAMPLE, REFERENCE = "example.png", ROOT / "demo" / "reference.png"  # what Load Image starts with


def device_flags(home: Home) -> list[str]:
    usable = "import sys, torch; sys.exit(not torch.cuda.is_available())"
    if shutil.which("nvidia-smi"):
        command = [home.python, "-c", usable]
        if subprocess.run(command, env=home.environ, capture_output=True).returncode == 0:
            return []
    return ["--cpu"]


def server_command(home: Home, port: int, data: Path) -> list[str]:
    """ComfyUI with this pack alone, reading and writing in `data` and our models folder only."""
    folders = {name: data / name for name in ("input", "output", "temp", "user")}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    if not (folders["input"] / EXAMPLE).exists() and REFERENCE.exists():
        shutil.copyfile(REFERENCE, folders["input"] / EXAMPLE)
    models = data / "extra_model_paths.yaml"  # JSON is YAML
    config = {"base_path": str(home.root / "models")}
    config |= {name: name for name in FOLDERS}
    models.write_text(json.dumps({"dno": config}), encoding="utf-8")
    pack = link_pack(home.comfyui / "custom_nodes")
    return [
        *(home.python, "-s", str(home.comfyui / "main.py"), *device_flags(home)),
        *("--listen", "127.0.0.1", "--port", str(port), "--disable-auto-launch"),
        *(part for name, path in folders.items() for part in (f"--{name}-directory", str(path))),
        *("--extra-model-paths-config", str(models)),
        *("--database-url", f"sqlite:///{(data / 'comfyui.db').as_posix()}"),
        *("--disable-all-custom-nodes", "--whitelist-custom-nodes", pack),
    ]


@contextlib.contextmanager
def server(home: Home, data: Path, port: int = 0, show: bool = False) -> Iterator[job.Client]:
    """A running ComfyUI of our own, gone at the end; its words go to `data`/server.log."""
    port = port or free_port()
    command, log = server_command(home, port, data), data / "server.log"
    client = job.Client(f"http://127.0.0.1:{port}")
    with log.open("wb") as words:
        out = {} if show else {"stdout": words, "stderr": subprocess.STDOUT}
        process = subprocess.Popen(command, env=home.environ, cwd=home.comfyui, **out)
    try:
        wait_until_up(client, process)
        yield client
    except job.Failure as error:
        if process.poll() is None:
            raise
        raise Failure(f"ComfyUI stopped: {last_line(log) or error} (all of it: {log})") from None
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_up(client: job.Client, process: subprocess.Popen, patience: float = 300) -> None:
    start = time.monotonic()
    while True:
        try:
            client.system_stats()
            return
        except job.Failure:
            if process.poll() is not None or time.monotonic() - start > patience:
                raise
        time.sleep(0.3)


def last_line(log: Path) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", log.read_text(encoding="utf-8", errors="replace"))
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
