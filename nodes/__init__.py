"""The nodes: the only layer that imports ComfyUI."""

from comfy_api.latest import ComfyExtension, io

from . import (
    best_seed,
    combine,
    history,
    history_data,
    history_iteration,
    noise,
    options,
    presets,
    rank,
    regularizers,
    reward_models,
    rewards,
    sampler,
    score,
    strength,
)
from .host import keeping, metadata


class DNOExtension(ComfyExtension):
    """Every node of the pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        metadata.listen()  # here, because ComfyUI 0.3 calls no on_load
        keeping.listen()
        rewarding = (rewards, reward_models, regularizers, combine)
        histories = (history, history_data, history_iteration)
        climbing = (sampler, options, presets, strength, *rewarding, *histories, noise)
        modules = (*climbing, score, rank, best_seed)
        return [node for module in modules for node in module.NODES]
