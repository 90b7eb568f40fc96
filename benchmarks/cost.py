"""Time and memory of one iteration, as ratios to plain sampling in the same run.

    python run.py exec -- python benchmarks/cost.py

T F is one plain sampling of T steps. An iteration needs a sampling and its backward: 3 T F where
every step is computed twice (memory flat in T), 2 T F where all steps are kept. Decoding, reward,
regularizers and read-outs come on top, once per iteration. Seconds are the processor's, so that
other work on the machine does not count. Writes cost.md beside this file.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from demo_runs import CFG, HOME, ROOT, SIZE, Demo

REPEATS = 3


def main() -> None:
    demo = Demo()
    rows = [
        "| model | steps | least memory | recorded | kept by autograd: least | recorded |",
        "|---|---|---|---|---|---|",
    ]
    for name, guider, latent in (_demo_checkpoint(demo), _random_unet()):
        for steps in (5, 10, 20):
            rows.append(_row(name, guider, latent, steps))
            print(rows[-1], flush=True)
    text = "\n".join(rows) + "\n"
    (Path(__file__).resolve().parent / "cost.md").write_text(text, encoding="utf-8")


def _demo_checkpoint(demo: Demo):
    import comfy.samplers
    import torch

    guider = comfy.samplers.CFGGuider(demo.model)
    guider.set_conds(demo.encode("a cat"), demo.encode(""))
    guider.set_cfg(CFG)
    return "demo checkpoint, 128 px", guider, torch.zeros(1, 16, SIZE, SIZE)


def _random_unet():
    """A random UNet of SD1.5's kind, 25 times the size of the tests'."""
    import torch

    sys.path.insert(0, str(ROOT / "tests"))
    import tiny

    tiny.UNET.update(model_channels=96, channel_mult=[1, 2, 4], num_res_blocks=[1, 1, 1])
    tiny.UNET.update(transformer_depth=[1, 1, 1], transformer_depth_output=[1] * 6, num_heads=4)
    model = tiny.unet(tiny.ModelType.FLOW)
    millions = sum(weight.numel() for weight in model.model.parameters()) / 1e6
    return f"random UNet, {millions:.0f} M, 128 px", tiny.guider(model), torch.zeros(1, 4, 16, 16)


def _row(name: str, guider, latent, steps: int) -> str:
    sigmas = _sigmas(guider.model_patcher, steps)
    plain, least, recorded, kept = [], [], [], {}

    def measure(sampling) -> None:
        for _ in range(REPEATS):  # interleaved, so that all meet the same load
            plain.append(_seconds(lambda: _sample(sampling, backward=False)))
            sampling.recomputer.budget = 0
            least.append(_seconds(lambda: _sample(sampling)))
            sampling.recomputer.budget = 2**50
            recorded.append(_seconds(lambda: _sample(sampling)))
        for mode, budget in (("least", 0), ("recorded", 2**50)):
            sampling.recomputer.budget = budget
            kept[mode] = _bytes_kept(sampling) / 2**20

    _inside(guider, sigmas, latent, measure)
    base = median(plain)
    return (
        f"| {name} | {steps} | {median(least) / base:.2f} T F | {median(recorded) / base:.2f} T F "
        f"| {kept['least']:.1f} MB | {kept['recorded']:.0f} MB |"
    )


def _inside(guider, sigmas, latent, measure: Callable) -> None:
    """Call `measure(sampling)` with the model live, inside ComfyUI's guider."""
    import comfy.sample
    import comfy.samplers
    import torch

    from ComfyUI_DNO.nodes.host.sampling.ordinary import ordinary, ordinary_modules
    from ComfyUI_DNO.nodes.host.sampling.render import Sampling

    class Probe(comfy.samplers.Sampler):
        def sample(self, model_wrap, sigmas, extra_args, callback, noise, *rest):
            inner = comfy.samplers.sampler_object("euler_ancestral")
            with torch.inference_mode(False), ordinary_modules([model_wrap.inner_model]) as weights:
                conds, model_wrap.conds = model_wrap.conds, ordinary(model_wrap.conds)
                tensors = [ordinary(tensor) for tensor in (sigmas, noise, rest[0], rest[1])]
                measure(Sampling(inner, model_wrap, extra_args, tensors, weights))
                model_wrap.conds = conds
            return noise

    with torch.inference_mode():
        noise = comfy.sample.prepare_noise(latent, 0)
        guider.sample(noise, latent, Probe(), sigmas, seed=0, disable_pbar=True)


def _sample(sampling, backward: bool = True) -> None:
    import torch

    from ComfyUI_DNO.dno.noise import Noise

    noise = Noise(sampling.noise)
    with torch.set_grad_enabled(backward):
        latent = sampling.render(noise)
        if backward:
            torch.autograd.grad(latent.sum(), noise.leaves())


def _bytes_kept(sampling) -> int:
    """Bytes of all tensors that autograd saves in one sampling, weights not counted."""
    import torch

    from ComfyUI_DNO.dno.noise import Noise

    sizes = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in sampling.recomputer.resident:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with torch.enable_grad(), hooks:
        latent = sampling.render(Noise(sampling.noise))
    del latent
    return sum(sizes.values())


def _sigmas(model, steps: int):
    import comfy.samplers

    return comfy.samplers.KSampler(
        model, steps=steps, device="cpu", sampler="euler_ancestral", scheduler="simple"
    ).sigmas


def _seconds(action: Callable[[], None]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


if __name__ == "__main__":
    HOME.mkdir(parents=True, exist_ok=True)
    main()
