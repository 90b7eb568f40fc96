"""Where everything is that run.py makes, and how programs are started there."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WINDOWS = os.name == "nt"
DOWNLOAD, DISK = (3.7, 8) if sys.platform == "linux" else (0.6, 3)  # GB


class Failure(Exception):
    """Something that the user can be told in one sentence that says what to do."""


@dataclass(frozen=True)
class Home:
    """Where everything is: a folder of our own, the ComfyUI in use, and which torch."""

    root: Path
    comfyui: Path
    torch: str = "torch"  # of PINS

    @classmethod
    def of(cls, root: Path, torch: str = "torch") -> Home:
        given = os.environ.get("COMFYUI_PATH")
        root = root.expanduser().resolve()
        comfyui = Path(given).expanduser().resolve() if given else root / "ComfyUI"
        return cls(root, comfyui, torch)

    @property
    def private(self) -> bool:
        return self.comfyui == self.root / "ComfyUI"

    @property
    def scripts(self) -> Path:
        return self.root / "venv" / ("Scripts" if WINDOWS else "bin")

    @property
    def python(self) -> str:
        return str(self.scripts / ("python.exe" if WINDOWS else "python"))

    @property
    def environ(self) -> dict[str, str]:
        """For every program started here: nothing of the machine's own Python packages."""
        drop = ("PYTHONPATH", "PYTHONHOME", "PIP_TARGET", "PIP_PREFIX", "__PYVENV_LAUNCHER__")
        kept = {key: text for key, text in os.environ.items() if key not in drop}
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        return {
            "OMP_NUM_THREADS": str(cores),
            **kept,
            "COMFYUI_PATH": str(self.comfyui),
            "VIRTUAL_ENV": str(self.root / "venv"),
            "PATH": os.pathsep.join([str(self.scripts), kept.get("PATH", "")]),
            "PYTHONNOUSERSITE": "1",
            **({} if self.private else {"PYTHONDONTWRITEBYTECODE": "1"}),  # leave theirs clean
            "PIP_USER": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def call(self, command: list[str], advice: str) -> None:
        if subprocess.run(command, env=self.environ, cwd=self.root).returncode:
            raise Failure(advice)

    def pip(self, *arguments: str) -> None:
        advice = (
            "pip failed, its own message is above: check the network, your pip settings and that "
            f"{DISK} GB of disk are free, then run this again; it goes on where it stopped."
        )
        self.call([self.python, "-m", "pip", *arguments], advice)


def say(text: str) -> None:
    print(text, flush=True)


def digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
