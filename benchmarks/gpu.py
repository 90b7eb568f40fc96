"""Peak memory, seconds and exactness of an iteration at every level, on the card of this machine.

    python run.py exec -- python benchmarks/gpu.py [MODEL ...]      writes gpu.md beside this file
    python run.py exec -- python benchmarks/gpu.py --tiny           small models, on the CPU too

Models have their published size and random weights; what does not fit is left out. An iteration is
a sampling of a few steps and its backward. Beside the peak stands what `memory.py` counts for the
same. The last column compares the gradient with central differences along one random direction:
|difference - slope| / |gradient|, where rounding and the step's size both leave their mark.
"""

from __future__ import annotations

import gc
import logging
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
from memory import ATTENTION, row  # noqa: E402
from published import MODELS, Published  # noqa: E402

from tools import inside as host  # noqa: E402

GB = 2**30
STEPS, CFG = 3, 4.0
SIDES = {"SD1.5": 512, "Qwen-Image": 1328, "Wan2.1-1.3B": 480}
LEVELS = ("RECORDED", "CALL", "KEPT", "NESTED", "SPLIT")
STEP = {"fp32": 1e-2, "16-bit": 1e-1, "8-bit": 1e-1}  # of the central differences
HEAD = """\
| model | weights | level | seconds | peak GB | counted | peak / counted | derivative |
|---|---|---|---|---|---|---|---|"""
TINY = {
    "SD1.5": MODELS["SD1.5"].small(
        (7, 16),
        context_dim=16,
        model_channels=32,
        num_res_blocks=[1, 1],
        channel_mult=[1, 2],
        num_heads=2,
        transformer_depth=[1, 1],
        transformer_depth_output=[1, 1, 1, 1],
    ),
    "Flux.1-dev": MODELS["Flux.1-dev"].small(
        (7, 32),
        context_in_dim=32,
        hidden_size=96,
        num_heads=2,
        axes_dim=[8, 20, 20],
        depth=2,
        depth_single_blocks=2,
    ),
}


def precisions(model: Published) -> dict[str, dict]:
    """Name -> the weights' type, and what they are cast to for each product."""
    import torch

    half = getattr(torch, model.half)
    return {
        "fp32": {"dtype": torch.float32, "cast": None},
        "16-bit": {"dtype": half, "cast": None},
        "8-bit": {"dtype": torch.float8_e4m3fn, "cast": half},
    }


def patcher(model: Published, dtype, cast, device):
    """ComfyUI's own model with random weights, made on the device."""
    import comfy.model_patcher
    import torch
    from networks import build

    made = build(model, dtype, cast, device)
    with torch.no_grad():
        for weight in made.diffusion_model.parameters():
            scale = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1
            weight.copy_(torch.randn(weight.shape, device=device) * scale)
    return comfy.model_patcher.ModelPatcher(made, load_device=device, offload_device=device)


def guider(model: Published, patched):
    """Two random prompts, or one where the model takes no negative one."""
    import comfy.samplers
    import torch

    def prompt(seed: int) -> list:
        generator = torch.Generator().manual_seed(seed)
        more = {"guidance": 3.5} if model.guidance else {}
        if model.pooled:
            width = model.pooled_in or model.pooled
            more["pooled_output"] = torch.randn(1, width, generator=generator)
        return [[torch.randn(1, *model.text, generator=generator), more]]

    made = comfy.samplers.CFGGuider(patched)
    made.set_conds(prompt(1), prompt(2))
    made.set_cfg(CFG if model.cfg else 1.0)
    return made


def estimate(model: Published, latent, level: str, on_gpu: bool, **types) -> float:
    """GB at the peak of an iteration, of what one evaluation takes and keeps."""
    from networks import count

    one = count(model, latent, level, **types, gpu=on_gpu)
    return one.peak + (STEPS - 1) * one.kept


class Peak:
    """Within, what the device holds beside what was there before: GB at the peak, and seconds.

    given: what is there, where torch does not count the device's memory by itself.
    """

    def __init__(self, device, given):
        import torch
        from counted import Counted

        self.cuda = torch.cuda if device.type == "cuda" else None
        self.counted = nullcontext() if self.cuda else Counted(given)

    def __enter__(self):
        if self.cuda:
            self.cuda.synchronize()
            self.cuda.reset_peak_memory_stats()
            self.before = self.cuda.memory_allocated()
        self.counted.__enter__()
        self.start = time.perf_counter()
        return self

    def __exit__(self, *error):
        self.counted.__exit__(*error)
        if self.cuda:
            self.cuda.synchronize()
        self.seconds = time.perf_counter() - self.start
        top = self.cuda.max_memory_allocated() - self.before if self.cuda else self.counted.peak
        self.gb = top / GB


def rows(name: str, model: Published, side: int, device) -> list[str]:
    """The table's rows of one model."""
    import comfy.model_management as management

    found = []
    for words, types in precisions(model).items():
        weights = estimate_weights(model, types["dtype"])
        if weights > 0.8 * management.get_free_memory(device) / GB:
            continue
        found += measured(name, model, side, device, words, types)
        management.unload_all_models()
        gc.collect()
        management.soft_empty_cache()
    return found


def estimate_weights(model: Published, dtype) -> float:
    import torch
    from counted import no_contents
    from networks import build

    with no_contents():
        weights = sum(w.nbytes for w in build(model, dtype, None, torch.device("cpu")).parameters())
    return weights / GB


def measured(name, model, side: int, device, words: str, types: dict) -> list[str]:
    import comfy.model_management as management
    import comfy.samplers
    import torch
    from live import Slope, inside, pull

    latent, on_gpu = model.latent(side, side), device.type == "cuda"
    estimates = {level: estimate(model, latent, level, on_gpu, **types) for level in LEVELS}
    patched = patcher(model, **types, device=device)
    plan = comfy.samplers.KSampler(patched, STEPS, device, "euler", "simple")
    found: list[str] = []
    given = [*patched.model.parameters(), *patched.model.buffers()]

    def measure(sampling) -> None:
        slope = Slope(sampling, STEP[words])
        for level in LEVELS:
            counted = estimates[level]
            try:
                error = slope.error(pull(sampling, level)[1])  # and finds out what it does once
                with Peak(device, given) as peak:
                    pull(sampling, level)
            except management.OOM_EXCEPTION:
                cells = ("-", "out of memory", counted, "-", "-")
            else:
                cells = (peak.seconds, peak.gb, counted, peak.gb / counted, f"{error:.1e}")
            found.append(row(name, words, level.lower(), *cells))
            print(found[-1], flush=True)

    inside(guider(model, patched), plan.sigmas, torch.zeros(1, *latent), measure, "euler")
    return found


def start() -> None:
    import torch

    logging.disable(logging.CRITICAL)
    flags = () if torch.cuda.is_available() else ("--cpu", ATTENTION)
    host.start_comfyui(Path(tempfile.gettempdir()) / "dno_gpu", flags)
    host.load_pack()


def main(names: list[str], tiny: bool) -> None:
    import comfy.model_management as management

    device = management.get_torch_device()
    if device.type != "cuda" and not tiny:
        sys.exit("No CUDA card was found: give --tiny for small models on the CPU.")
    models = TINY if tiny else MODELS
    lines = [HEAD]
    print(HEAD)
    for name in names or models:
        lines += rows(name, models[name], 64 if tiny else SIDES.get(name, 1024), device)
    if not tiny:
        card = management.get_torch_device_name(device)
        text = "\n".join([f"{card}, {STEPS} steps, written by gpu.py.", "", *lines]) + "\n"
        (HERE / "gpu.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    given = sys.argv[1:]
    start()
    main([name for name in given if name != "--tiny"], "--tiny" in given)
