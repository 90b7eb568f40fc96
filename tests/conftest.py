"""The tests run in the real ComfyUI, on the CPU, with the pack loaded as ComfyUI loads it.

Test modules import the pack as `ComfyUI_DNO` (`from ComfyUI_DNO.dno import noise`) and ComfyUI's
own modules by their names (`import comfy.samplers`, `import nodes`), at their top.
"""

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
import sweeps  # noqa: E402, F401
from tools import inside  # noqa: E402

_prefix = Path(sys.prefix).parent  # of the environment that run.py made
HOME = run.Home.of(_prefix if (_prefix / "prepared.json").exists() else ROOT / ".comfyui")
# One of several processes of pytest-xdist has its part of the cores and a folder of its own.
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "")
if WORKER:
    cores = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ["OMP_NUM_THREADS"] = str(max(1, cores))  # more of them wait for each other
DATA = HOME.root / "tests" / WORKER
inside.start_comfyui(DATA)
PACK = inside.load_pack()


def pytest_addoption(parser):
    parser.addoption(
        "--graphs", type=int, default=0, help="how many random graphs to run, new ones each time"
    )


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
def demo_model(comfy):
    """(model, clip, vae), loaded as in a workflow: in inference mode, so inference tensors."""
    return inside.load_checkpoint(run.demo_checkpoint(HOME))


@pytest.fixture(scope="session")
def demo_clip() -> Path:
    """The file of the CLIP that was trained with the demo checkpoint, a reward model."""
    return run.demo_clip(HOME)


@pytest.fixture(scope="session")
def server():
    """A client of a running ComfyUI server with the pack: submit, wait, object_info, interrupt."""
    if (ROOT / "demo" / "weights.safetensors").exists():
        run.demo_checkpoint(HOME)
    with run.server(HOME, DATA / "server") as client:
        yield client
