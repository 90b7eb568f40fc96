"""Parts of the packages that reward models come from, and pictures as those packages see them."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from PIL import Image


def original(name: str) -> ModuleType:
    """A module of a package that only tests need."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name.split(".")[0]:
            raise
        pytest.skip(f"{error.name} is not installed: python run.py test installs it.")


def hpsv2_module(name: str) -> ModuleType:
    """`hpsv2.src.open_clip.<name>` without the rest of its package and what that needs."""
    where = importlib.util.find_spec("hpsv2")
    if where is None:
        pytest.skip("hpsv2 is not installed: python run.py test installs it.")
    if "hpsv2_open_clip" not in sys.modules:
        package = ModuleType("hpsv2_open_clip")
        package.__path__ = [str(Path(where.submodule_search_locations[0]) / "src" / "open_clip")]
        sys.modules["hpsv2_open_clip"] = package
    return importlib.import_module(f"hpsv2_open_clip.{name}")


def in_8_bits(image: torch.Tensor) -> torch.Tensor:
    """(B,3,H,W) with values that 8-bit pictures have."""
    return (image * 255).round() / 255


def pil(image: torch.Tensor) -> Image.Image:
    """(3,H,W) in [0,1] -> the picture."""
    return Image.fromarray((image * 255).round().byte().movedim(0, -1).numpy())


def harsh(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """(1,3,H,W) of 8-bit values with hard edges, down to black and up to white."""
    generator = torch.Generator().manual_seed(seed)
    blocks = (torch.rand(1, 3, 7, 9, generator=generator) > 0.5).float()
    grain = torch.rand(1, 3, height, width, generator=generator) - 0.5
    large = torch.nn.functional.interpolate(blocks, (height, width))
    return in_8_bits((large + 0.3 * grain).clamp(0, 1))
