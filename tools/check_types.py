"""Check the types of the plain layers: python tools/check_types.py, in the tests' environment.

The layers import each other relatively, out of a package whose folder may have any name: a copy of
them is checked, in a package whose name Python allows.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("dno", "rewards", "regularizers")
PACKAGE = "ComfyUI_DNO"
IGNORED = shutil.ignore_patterns("__pycache__")


def check(cache: Path) -> subprocess.CompletedProcess:
    """mypy's report; what it has learned of torch stays in `cache`, which makes it quick."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, PACKAGE)
        package.mkdir()
        (package / "__init__.py").touch()
        for layer in LAYERS:
            shutil.copytree(ROOT / layer, package / layer, ignore=IGNORED)
        settings = ("--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(cache))
        command = [sys.executable, "-m", "mypy", "-p", PACKAGE, *settings]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    report = check(ROOT / ".comfyui" / "mypy")
    print(report.stdout + report.stderr, end="")
    sys.exit(report.returncode)
