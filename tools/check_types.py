"""Check the types of the plain layers: python tools/check_types.py, in the tests' environment.

The layers import each other relatively, out of a package whose folder may have any name: they are
checked in a package of links that has one which Python allows.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LAYERS = ("dno", "rewards", "regularizers")
PACKAGE = "ComfyUI_DNO"


def check(cache: Path) -> subprocess.CompletedProcess:
    """mypy's report; what it has learned of torch stays in `cache`, which makes it quick."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder, PACKAGE)
        package.mkdir()
        (package / "__init__.py").touch()
        for layer in LAYERS:
            (package / layer).symlink_to(ROOT / layer, target_is_directory=True)
        settings = ("--config-file", str(ROOT / "pyproject.toml"), "--cache-dir", str(cache))
        command = [sys.executable, "-m", "mypy", "-p", PACKAGE, *settings]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


if __name__ == "__main__":
    report = check(ROOT / ".comfyui" / "mypy")
    print(report.stdout + report.stderr, end="")
    sys.exit(report.returncode)
