"""One evaluation of a published network and its backward, at a level of memory, counted."""

from __future__ import annotations

import gc
from contextlib import nullcontext
from dataclasses import dataclass
from unittest.mock import patch

GB = 2**30
ROOMY = 2**50  # bytes: "least" keeps within its own bounds


@dataclass(frozen=True)
class Count:
    """GB of the weights, of the peak beside them, and of what waits between the two halves."""

    weights: float
    peak: float
    kept: float


def build(model, dtype, cast=None, device=None):
    """ComfyUI's own model of that configuration; weights of `dtype`, computing in `cast`."""
    import comfy.supported_models
    import torch

    config = getattr(comfy.supported_models, model.family)(dict(model.config))
    config.unet_config.update(model.config)
    config.set_inference_dtype(dtype, cast)
    made = config.get_model({}, device=device or torch.device("cpu"))
    return made.requires_grad_(False)


def planned(model, latent: tuple[int, ...]) -> dict[str, float]:
    """GB that the pack asks a GPU's ComfyUI to keep free for a network, by the choice of memory."""
    import comfy.model_management as management
    import torch
    from counted import no_contents

    from ComfyUI_DNO.nodes.host.sampling.needed import MEMORY

    flash = patch.object(management, "pytorch_attention_flash_attention", lambda: True)
    with no_contents(), flash:
        made = build(model, getattr(torch, model.half))
        one, all_prompts = (made.memory_required([n, *latent]) / GB for n in (1, 1 + model.cfg))
    return {memory: f * (one if memory == "least" else all_prompts) for memory, f in MEMORY.items()}


def given(model, batch: int, make) -> dict:
    """The arguments of `apply_model`; `make(*shape)` gives each tensor."""
    tokens, width = model.text
    arguments = {"t": make(batch).abs() / 2, "c_crossattn": make(batch, tokens, width)}
    if model.pooled:
        arguments["y"] = make(batch, model.pooled)
    if model.guidance:
        arguments["guidance"] = make(batch).abs()
    return {**arguments, **model.more}


def evaluate(net, x, arguments: dict, level: str, parts: int, after_forward=lambda: None):
    """One evaluation of `parts` prompts and its backward; the gradient.

    level: a name of `Level`, or "least" as the user chooses it: the first evaluation measures.
    """
    import torch

    from ComfyUI_DNO.dno.autograd import saved
    from ComfyUI_DNO.nodes.host.sampling.levels import Levels
    from ComfyUI_DNO.nodes.host.sampling.plan import Level

    def part(value, place: int, of: int):
        return value[place * len(value) // of :][: len(value) // of] if of > 1 else value

    def call(x, place: int = 0, of: int = 1):
        some = {
            name: part(value, place, of) if isinstance(value, torch.Tensor) else value
            for name, value in arguments.items()
        }
        batch = torch.cat([x] * (parts // of))
        return net.apply_model(batch, transformer_options={}, **some).chunk(parts // of)

    alone = [lambda x, i=i: call(x, i, parts) for i in range(parts)] if parts > 1 else ()
    resident = frozenset(saved.address(weight) for weight in net.parameters())
    with torch.enable_grad(), Levels([net.diffusion_model], resident) as levels:
        levels.forced = None if level == "least" else Level[level]
        levels.begin("least", ROOMY, 0, 1, lambda recomputed: None)
        leaf = x.detach().requires_grad_()
        denoised = torch.cat(levels(call, leaf.clone(), alone))
        after_forward()
        (gradient,) = torch.autograd.grad(denoised, leaf, torch.ones_like(denoised))
    return gradient


def count(model, latent: tuple[int, ...], level: str, dtype=None, cast=None, gpu=True) -> Count:
    """What an evaluation takes. dtype: of weights that are cast to `cast` for each product.

    gpu: whether to count a GPU's kernels.
    """
    import torch
    from counted import Counted, fused_norms, no_contents

    with no_contents(), torch.no_grad():
        net, x, arguments, parts = prepared(model, latent, dtype, cast, torch.empty)
        tensors = [t for t in (x, *arguments.values()) if isinstance(t, torch.Tensor)]
        given, kept = [*net.parameters(), *net.buffers(), *tensors], []
        with fused_norms() if gpu else nullcontext(), Counted(given) as counted:
            evaluate(net, x, arguments, level, parts, lambda: kept.append(counted.now))
        weights = sum(weight.nbytes for weight in net.parameters())
    gc.collect()
    return Count(weights / GB, counted.peak / GB, kept[0] / GB)


def prepared(model, latent: tuple[int, ...], dtype, cast, make):
    """(model, latent, arguments, prompts) of one evaluation; make(shape, dtype=) gives tensors."""
    import torch

    dtype = dtype or getattr(torch, model.half)
    parts = 2 if model.cfg else 1
    net = build(model, dtype, cast)
    arguments = given(model, parts, lambda *shape: make(shape, dtype=cast or dtype))
    return net, make((1, *latent), dtype=torch.float32), arguments, parts
