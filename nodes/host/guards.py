"""Switches of the host that must be set while gradients flow, forward and backward alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import comfy.model_management
import comfy.model_patcher
import comfy.patcher_extension
import torch
from comfy.ldm.modules.attention import attention_pytorch

from ...dno.recompute import GradientCutError

STEP_CACHES = ("easycache", "lazycache", "teacache", "tea_cache", "first_block_cache")


@contextmanager
def training_kernels() -> Iterator[None]:
    """Newer ComfyUI picks fused kernels without a backward unless it believes to be training."""
    management = comfy.model_management
    missing = object()
    before = getattr(management, "in_training", missing)
    management.in_training = True
    try:
        yield
    finally:
        if before is missing:
            del management.in_training
        else:
            management.in_training = before


def differentiable_attention(function, *args, **kwargs):
    """torch's attention whatever the user chose: sage, flash and int8 kernels have no backward."""
    return attention_pytorch(*args, **kwargs)


def differentiable_options(model_options: dict, calc_cond_batch) -> dict:
    """A copy of the run's model options whose denoiser calls go through `calc_cond_batch`."""
    options = comfy.model_patcher.create_model_options_clone(model_options)
    transformer = options.setdefault("transformer_options", {})
    if "optimized_attention_override" not in transformer and attention_is_opaque():
        transformer["optimized_attention_override"] = differentiable_attention
    comfy.patcher_extension.add_wrapper_with_key(
        comfy.patcher_extension.WrappersMP.CALC_COND_BATCH,
        "comfyui-dno",
        calc_cond_batch,
        options,
        is_model_options=True,
    )
    return options


@contextmanager
def refuse_cut_gradients(network: torch.nn.Module) -> Iterator[None]:
    """Refuse a network whose output has lost the gradient; the sampler's own part would hide it."""

    def check(module, arguments, output) -> None:
        wanted = torch.is_grad_enabled() and any(
            isinstance(x, torch.Tensor) and x.requires_grad for x in arguments
        )
        if wanted and isinstance(output, torch.Tensor) and not output.requires_grad:
            raise GradientCutError(
                "This model cannot be differentiated: its network passes no gradient. Use it without "
                "TensorRT, Nunchaku or other compiled parts."
            )

    handle = network.register_forward_hook(check)
    try:
        yield
    finally:
        handle.remove()


def attention_is_opaque() -> bool:
    """Whether the chosen attention kernel has no backward pass."""
    from comfy.ldm.modules import attention

    name = getattr(attention.optimized_attention, "__name__", "")
    return any(kind in name for kind in ("sage", "flash", "int8"))


def step_cache(model_options: dict) -> str | None:
    """The name of a step cache found in the model's options: it makes gradients meaningless."""
    text = repr(model_options.get("transformer_options", {}).get("wrappers", {})).lower()
    return next((name for name in STEP_CACHES if name in text), None)
