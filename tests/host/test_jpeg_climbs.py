"""The size of a JPEG, a reward without a gradient, falls and rises on the demo checkpoint.

Budget: 264 denoiser evaluations at most for each direction, one picture of 128 pixels at 8 steps,
with Hybrid-2's defaults. An evaluation is forward or backward; CFG's two halves count as one.
"""

import nodes
import pytest
import torch

from ComfyUI_DNO.dno.objective import Weighted
from ComfyUI_DNO.nodes.sampler import DNOSampler
from ComfyUI_DNO.rewards import JPEGCompressibility, JPEGIncompressibility

BUDGET, STEPS, ITERATIONS = 264, 8, 3


def counted(model):
    """A copy of the MODEL, and a list of the pictures in each of its calls, there and back."""
    rows = []

    def call(apply_model, arguments):
        answer = apply_model(arguments["input"], arguments["timestep"], **arguments["c"])
        rows.append(len(answer))
        if answer.requires_grad:
            answer.register_hook(lambda gradient: rows.append(len(gradient)))
        return answer

    copy = model.clone()
    copy.set_model_unet_function_wrapper(call)
    return copy, rows


# Gains with three seeds of the perturbations: 0.36 to 0.42 kB smaller, 0.72 to 0.76 kB larger.
@pytest.mark.parametrize(
    ("reward", "prompt", "seed", "gain"),
    [
        (JPEGCompressibility(), "a penguin", 3, 0.12),
        (JPEGIncompressibility(), "a cat", 2, 0.25),
    ],
    ids=["smaller", "larger"],
)
def test_the_file_size_climbs(demo_model, reward, prompt, seed, gain):
    model, clip, vae = demo_model
    model, rows = counted(model)
    with torch.inference_mode():
        positive, negative = (nodes.CLIPTextEncode().encode(clip, text)[0] for text in (prompt, ""))
        latent, history, *_ = DNOSampler.execute(
            model,
            positive,
            negative,
            {"samples": torch.zeros(1, 16, 16, 16)},
            vae,
            {"size": Weighted(1.0, reward)},
            seed,
            STEPS,
            3.0,
            "euler_ancestral",
            "simple",
            1.0,
            ITERATIONS,
            0.03,
            {},  # no regularizer
        ).args
        picture = vae.decode(latent["samples"]).movedim(-1, 1)
    assert sum(rows) / 2 <= BUDGET
    start = history.records[0].reward
    assert (history.best.reward > start + gain).all()
    assert reward(picture) == pytest.approx(history.best.reward, abs=0.02)  # of the file itself
