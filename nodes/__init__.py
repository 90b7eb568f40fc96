"""The nodes: the only layer that imports ComfyUI."""

from comfy_api.latest import ComfyExtension, io

from . import combine, history, options, regularizers, reward_models, rewards, sampler, score


class DNOExtension(ComfyExtension):
    """Every node of the pack."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        modules = (sampler, options, rewards, reward_models, regularizers, combine, history, score)
        return [node for module in modules for node in module.NODES]
