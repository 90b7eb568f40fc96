"""The tree is the architecture: imports point one way, and importing does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = {  # folder -> folders of ours that it may import
    "dno": {"dno"},
    "rewards": {"rewards", "dno"},
    "regularizers": {"regularizers", "dno"},
    "nodes": {"nodes", "rewards", "regularizers", "dno"},
}
INNER = {  # folder inside a layer -> all that it may import of ours
    ("dno", "autograd"): [("dno", "autograd")],
    ("nodes", "drawing"): [("nodes", "drawing"), ("dno",)],
}
OURS = set(LAYERS)
FILES = [path for folder in LAYERS for path in sorted((ROOT / folder).rglob("*.py"))]
names = [str(path.relative_to(ROOT)) for path in FILES]


def imports(path: Path) -> list[tuple[str, ...]]:
    """Every import of a file as the parts of its name; ours start with a folder of LAYERS."""
    package = path.relative_to(ROOT).parent.parts
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [("absolute", *alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            module = tuple((node.module or "").split(".")) if node.module else ()
            found += [(*base, *module, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append(("absolute", *str(node.module).split(".")))
    return found


@pytest.mark.parametrize("path", FILES, ids=names)
def test_imports_point_one_way(path):
    layer = path.relative_to(ROOT).parts[0]
    for parts in imports(path):
        if parts[0] == "absolute":
            assert parts[1] not in OURS, f"{path}: import our own modules relatively"
            host = parts[1].startswith(("comfy", "folder_paths", "latent_preview", "server"))
            drawing = path.is_relative_to(ROOT / "nodes" / "drawing")
            assert not host or (layer == "nodes" and not drawing), f"{path} imports ComfyUI"
        else:
            assert parts[0] in LAYERS[layer], f"{path} imports {'.'.join(parts)}"
            for inner in INNER:
                if path.is_relative_to(ROOT.joinpath(*inner)):
                    allowed = INNER[inner]
                    assert any(parts[: len(a)] == a for a in allowed), f"{path} imports {parts}"


@pytest.mark.parametrize("path", FILES, ids=names)
def test_a_file_does_one_thing(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_the_plain_layers_load_without_comfyui():
    """And loading them neither prints nor touches the network, the disk or torch's settings."""
    script = (
        "import sys, types, importlib, torch\n"
        f"pack = types.ModuleType('pack'); pack.__path__ = [{str(ROOT)!r}]\n"
        "sys.modules['pack'] = pack\n"
        "def state():\n"
        "    return torch.get_default_dtype(), torch.is_grad_enabled(), torch.initial_seed()\n"
        "before = state()\n"
        "for name in ('dno.ascent', 'dno.stopping', 'rewards', 'regularizers'):\n"
        "    importlib.import_module('pack.' + name)\n"
        "assert before == state()\n"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'comfy']\n"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", script], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
