"""A climb of the DNO Sampler node on tiny models, wherever ComfyUI puts them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import comfy.model_management as management
import torch
from torch import Tensor

from ComfyUI_DNO.dno.objective import Weighted
from ComfyUI_DNO.nodes.options import Options
from ComfyUI_DNO.nodes.sampler import DNOSampler

from ..support import tiny


@dataclass
class Brightness:
    """Mean pixel value, of a picture on the device that is named."""

    device: str = "cpu"
    differentiable = True

    def __call__(self, image: Tensor) -> Tensor:
        assert image.device.type == self.device
        return image.mean((1, 2, 3))


@torch.inference_mode()
def climb(
    model=None,
    vae=None,
    reward=None,
    sampler: str = "euler",
    *,
    positive=None,
    iterations: int = 1,
    steps: int = 2,
    side: int = 8,
    memory: str = "automatic",
    **inputs,
):
    """(latent, history) of a run of the node, as in a workflow."""
    node = DNOSampler.execute(
        model or tiny.unet(tiny.ModelType.FLOW),
        positive or tiny.conditioning(1),
        tiny.conditioning(2),
        {"samples": torch.zeros(1, 4, side, side)},
        vae or tiny.vae(),
        {"reward": Weighted(1.0, reward or Brightness(management.get_torch_device().type))},
        seed=0,
        steps=steps,
        cfg=3.0,
        sampler_name=sampler,
        scheduler="normal",
        denoise=1.0,
        iterations=iterations,
        learning_rate=0.01,
        options=Options(memory=memory),
        **inputs,
    )
    latent, history, *_ = node.args
    return latent["samples"], history


@contextmanager
def on_the_cpu() -> Iterator[None]:
    """ComfyUI on the CPU, as its flag --cpu puts it there."""
    before = management.cpu_state
    management.cpu_state = management.CPUState.CPU
    try:
        yield
    finally:
        management.cpu_state = before


@torch.inference_mode()
def unload() -> None:
    """Everything off the device."""
    management.unload_all_models()
    gc.collect()


def tensors_in(value, seen: set[int] | None = None) -> Iterator[Tensor]:
    """Every tensor in an object's attributes, dicts, lists and tuples."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
        return
    if isinstance(value, dict):
        parts = value.values()
    elif isinstance(value, list | tuple | set):
        parts = value
    else:
        parts = vars(value).values() if hasattr(value, "__dict__") else ()
    for part in parts:
        yield from tensors_in(part, seen)
