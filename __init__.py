"""ComfyUI-DNO: Direct Noise Optimization (arXiv 2405.18881) for every sampler of ComfyUI."""

WEB_DIRECTORY = "./web"


async def comfy_entrypoint():
    """What ComfyUI calls to learn the nodes; nothing of it is imported before."""
    from .nodes import DNOExtension

    return DNOExtension()
