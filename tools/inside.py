"""ComfyUI inside this process, without its server: for tests and benchmarks."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def start_comfyui(data: Path, arguments: tuple[str, ...] = ("--cpu",)) -> None:
    """What ComfyUI's main.py does before its server: read the flags, set the folders under `data`.

    COMFYUI_PATH names the ComfyUI. The checkout leaves sys.path: its `nodes` would hide ComfyUI's.
    """
    comfyui = str(Path(os.environ["COMFYUI_PATH"]).resolve())
    sys.path[:] = [comfyui, *(entry for entry in sys.path if Path(entry).resolve() != ROOT)]
    given, sys.argv = sys.argv, [sys.argv[0], *arguments]
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.cli_args
    import folder_paths
    import torch
    import utils.extra_config  # noqa: F401 before ComfyUI's nodes.py puts another utils in front

    sys.argv = given
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1))
    for name in ("input", "output", "temp", "user"):
        folder = data / name
        folder.mkdir(parents=True, exist_ok=True)
        getattr(folder_paths, f"set_{name}_directory")(str(folder))


def load_pack():
    """The pack as nodes.load_custom_node loads it, under the name `ComfyUI_DNO`."""
    spec = importlib.util.spec_from_file_location("ComfyUI_DNO", ROOT / "__init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def load_nodes(packs: tuple[str, ...]) -> list[str]:
    """ComfyUI's own nodes and custom nodes from these paths; the paths that could not be loaded."""
    import asyncio

    import nodes

    async def load() -> list[str]:
        await nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False)
        return [pack for pack in packs if not await nodes.load_custom_node(pack)]

    return asyncio.run(load())


def load_checkpoint(path: Path):
    """(model, clip, vae) as CheckpointLoaderSimple gives them in a workflow: inference tensors."""
    import folder_paths
    import nodes
    import torch

    folder_paths.add_model_folder_path("checkpoints", str(path.parent))
    with torch.inference_mode():
        return nodes.CheckpointLoaderSimple().load_checkpoint(path.name)
