"""The tests run in the real ComfyUI, on the CPU, with the pack loaded as ComfyUI loads it.

Test modules import the pack as `ComfyUI_DNO` (`from ComfyUI_DNO.dno import noise`) and ComfyUI's
own modules by their names (`import comfy.samplers`, `import nodes`), at their top.
"""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
COMFYUI = Path(os.environ.get("COMFYUI_PATH", ""))
if not os.environ.get("COMFYUI_PATH") or not (COMFYUI / "main.py").exists():
    raise pytest.UsageError("These tests need a ComfyUI in COMFYUI_PATH: run python run.py test.")

# The root may be on sys.path only while run.py loads: its `nodes` would hide ComfyUI's.
sys.path[:] = [str(ROOT), *(entry for entry in sys.path if Path(entry).resolve() != ROOT)]
import run  # noqa: E402

sys.path[0] = str(COMFYUI.resolve())


def _start_comfyui() -> None:
    """What ComfyUI's main.py does before its server: read the flags, set the folders."""
    arguments, sys.argv = sys.argv, [sys.argv[0], "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.cli_args
    import folder_paths
    import torch

    sys.argv = arguments
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    for name in ("input", "output", "temp", "user"):
        folder = DATA / name
        folder.mkdir(parents=True, exist_ok=True)
        getattr(folder_paths, f"set_{name}_directory")(str(folder))


def _load_pack():
    """As nodes.load_custom_node does it, under a name that tests can import."""
    spec = importlib.util.spec_from_file_location("ComfyUI_DNO", ROOT / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


_prefix = Path(sys.prefix).parent  # of the environment that run.py made
HOME = run.Home.of(_prefix if (_prefix / "prepared.json").exists() else ROOT / ".comfyui")
DATA = HOME.root / "tests"
_start_comfyui()
PACK = _load_pack()


@pytest.fixture(scope="session")
def pack():
    """The pack's root module."""
    return PACK


@pytest.fixture(scope="session")
def comfy():
    """ComfyUI's `comfy` package with the modules that a sampling needs, on the CPU."""
    import comfy
    import comfy.model_management
    import comfy.sample
    import comfy.samplers
    import comfy.sd
    import comfy.utils

    assert comfy.model_management.get_torch_device().type == "cpu"
    return comfy


@pytest.fixture(scope="session")
def demo_checkpoint(comfy) -> str:
    """The demo checkpoint's name in ComfyUI's list of checkpoints."""
    import folder_paths

    checkpoint = run.demo_checkpoint(HOME)
    folder_paths.add_model_folder_path("checkpoints", str(checkpoint.parent))
    return checkpoint.name


@pytest.fixture(scope="session")
def demo_model(demo_checkpoint):
    """(model, clip, vae), loaded as in a workflow: in inference mode, so inference tensors."""
    import nodes
    import torch

    with torch.inference_mode():
        return nodes.CheckpointLoaderSimple().load_checkpoint(demo_checkpoint)


@pytest.fixture(scope="session")
def server():
    """A client of a running ComfyUI server with the pack: submit, wait, object_info, interrupt."""
    if (ROOT / "demo" / "weights.safetensors").exists():
        run.demo_checkpoint(HOME)
    with run.server(HOME, DATA / "server") as client:
        yield client
