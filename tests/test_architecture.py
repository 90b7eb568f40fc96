"""The tree is the architecture: imports point one way, and importing does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
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
USERS = ("demo", "benchmarks", "sweeps", "tools")  # of the layers, besides the tests
LONGEST_FILE, LONGEST_FUNCTION = 250, 40
CALLED_BY_COMFYUI = {
    *("define_schema", "validate_inputs", "fingerprint_inputs", "generate_noise"),
    *("get_node_list", "partially_unload"),
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


def asks_for_versions(path: Path) -> list[str]:
    """Where a file looks whether a module of ComfyUI has something."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    host = {"comfy", "comfy_kitchen"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            host |= {each.asname for each in node.names if each.name.startswith("comfy.")}
    return [
        f"{path.name}:{node.lineno}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") in ("hasattr", "getattr")
        and ast.unparse(node.args[0]).split(".")[0] in host
        and not (node.func.id == "getattr" and len(node.args) == 2)  # by a name that is computed
    ]


def test_one_file_asks_for_versions_of_comfyui():
    asking = [place for path in FILES for place in asks_for_versions(path)]
    assert asking and {place.split(":")[0] for place in asking} == {"compat.py"}, asking


def too_long(path: Path) -> dict[str, int]:
    """Lines of the file if they are above 250, and of each function above 40."""
    text = path.read_text(encoding="utf-8")
    name, lines = str(path.relative_to(ROOT)), len(text.splitlines())
    found = {name: lines} if lines > LONGEST_FILE else {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1
            if lines > LONGEST_FUNCTION:
                found[f"{name}: {node.name}"] = lines
    return found


@pytest.mark.parametrize("path", FILES, ids=names)
def test_files_and_functions_are_short(path):
    for what, lines in too_long(path).items():
        raise AssertionError(f"{what} has {lines} lines: divide it")


def mentions(tree: ast.AST) -> Iterator[str]:
    """Every name that a file reads, calls, sets by keyword or writes as a string."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.keyword) and node.arg:
            yield node.arg
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def definitions(tree: ast.Module) -> Iterator[str]:
    """Every function, method and class of a file, and its constants."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
    for node in tree.body:
        if isinstance(node, ast.Assign):
            yield from (target.id for target in node.targets if isinstance(target, ast.Name))


def test_nothing_is_defined_that_nothing_uses():
    """Tests do not count: what they alone use is dead."""
    others = [path for folder in USERS for path in sorted((ROOT / folder).rglob("*.py"))]
    trees = {
        path: ast.parse(path.read_text(encoding="utf-8"))
        for path in [*FILES, *others, ROOT / "run.py", ROOT / "__init__.py"]
    }
    used = CALLED_BY_COMFYUI.union(*map(mentions, trees.values()))
    for path in FILES:
        dead = {name for name in definitions(trees[path]) if not name.startswith("__")} - used
        assert not dead, f"{path.relative_to(ROOT)}: nothing uses {', '.join(sorted(dead))}"


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
