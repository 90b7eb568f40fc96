"""What a climb is foreseen to take beside the weights, before anything of it was measured."""

from __future__ import annotations

import math
from collections import defaultdict

import comfy.model_base
import comfy.model_management as management
import comfy.samplers

# A choice -> what it needs of what ComfyUI plans, with flash attention, for one evaluation; least:
# for one prompt of it. Hardly any model of benchmarks/memory.md takes more, or less than half.
# Automatic keeps weights where they are before records.
MEMORY = {"automatic": 3.75, "recorded": 31, "call": 31, "blocks": 3.75, "least": 3.75}
FLASH, OTHER = 0.01, 0.15  # of ComfyUI's formula: a byte of its precision; whatever the precision


def evaluation(model_wrap, shape, memory: str, room: float = math.inf) -> int:
    """Bytes of one evaluation and its backward at a choice of MEMORY, for latents (B,C,...).

    room: bytes that the device has beside all weights. Whole calls that take more are planned as
    blocks: ComfyUI would stream weights for them, which costs more than falling to blocks.
    """
    wanted = _evaluation(model_wrap, shape, memory)
    if wanted <= room or MEMORY[memory] <= MEMORY["blocks"]:
        return wanted
    return _evaluation(model_wrap, shape, "blocks")


def _evaluation(model_wrap, shape, memory: str) -> int:
    model, prompts = model_wrap.inner_model, _prompts(model_wrap)
    if memory == "least":  # one after the other
        prompts = [max(prompts, key=_at_once)]
    shapes = defaultdict(list)
    for entry in (entry for prompt in prompts for entry in prompt):
        for name, each in model.extra_conds_shapes(**entry).items():
            shapes[name].append(each)
    count = sum(map(_at_once, prompts))
    return int(MEMORY[memory] * with_flash(model, [count * shape[0], *shape[1:]], shapes))


def with_flash(model, shape, cond_shapes) -> float:
    """ComfyUI's figure for an inference where attention keeps no matrices, as in a climb."""
    figure = model.memory_required(shape, cond_shapes=cond_shapes)
    ours = getattr(model.memory_required, "__func__", None)
    if ours is not comfy.model_base.BaseModel.memory_required or _flash():
        return figure
    precision = getattr(model, "manual_cast_dtype", None) or model.get_dtype()
    return figure * management.dtype_size(precision) * FLASH / OTHER


def _flash() -> bool:
    return management.xformers_enabled() or management.pytorch_attention_flash_attention()


def _prompts(model_wrap) -> list[list[dict]]:
    """The entries of every prompt that one evaluation computes."""
    conds = dict(model_wrap.conds)
    guided = getattr(type(model_wrap), "predict_noise", None)
    own = guided is comfy.samplers.CFGGuider.predict_noise
    insists = model_wrap.model_options.get("disable_cfg1_optimization", False)
    if own and not insists and math.isclose(model_wrap.cfg, 1.0):
        conds.pop("negative", None)
    return [entries for entries in conds.values() if entries] or [[{}]]


def _at_once(entries: list[dict]) -> int:
    """How many of a prompt's entries are computed together: some are for other timesteps."""
    spans = [(e.get("timestep_start", math.inf), e.get("timestep_end", -math.inf)) for e in entries]
    return max(sum(end < start <= begin for begin, end in spans) for start, _ in spans)
