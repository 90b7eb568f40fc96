"""The sweeps know ComfyUI and the pack's nodes by name, and nothing of what is inside."""

import ast
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "sweeps"
FILES = sorted(FOLDER.glob("*.py"))
OURS = {"dno", "rewards", "regularizers", "demo", "benchmarks", "ComfyUI_DNO", "run"}


def imported(path: Path) -> set[str]:
    """The first part of each absolute import; of a relative one, dots and all."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add("." * node.level or str(node.module).split(".")[0])
    return modules


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_nothing_of_the_pack_is_imported(path):
    assert not imported(path) & OURS and ".." not in imported(path)


@pytest.mark.parametrize("path", FILES, ids=[path.name for path in FILES])
def test_a_file_can_be_read_by_itself(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300
