"""A session of its own: the real ComfyUI on the device of device.py, which it finds by itself.

Run by test_second_device.py with --confcutdir here, so that tests/conftest.py stays out of it.
"""

import os
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
sys.path[:] = [str(ROOT), *(entry for entry in sys.path if Path(entry).resolve() != ROOT)]
from tests.second_device import device  # noqa: E402
from tools import inside  # noqa: E402

FLAGS = ("--reserve-vram", "0", "--disable-pinned-memory", "--fp32-vae")
DATA = Path(os.environ["DNO_TESTS_DATA"])

device.install()
device.announce()
inside.start_comfyui(DATA, FLAGS)
import comfy.model_management as management  # noqa: E402

del sys.modules["torch_npu"]  # transformers would look for its kernels
PACK = inside.load_pack()
from tests.second_device.climbing import unload  # noqa: E402


@pytest.fixture(autouse=True)
def small_device(monkeypatch):
    """A device of 2 GB, nothing on it, of which ComfyUI keeps less for itself than of a card."""
    unload()
    assert management.get_torch_device() == torch.device(device.NAME, 0)
    monkeypatch.setattr(management, "minimum_inference_memory", lambda: 2**20)
    monkeypatch.setattr(device.MEMORY, "budget", 2**31)
    device.MEMORY.restart()
    yield
    unload()
