"""What a run costs: evaluations counted, and what autograd keeps between forward and backward."""

from __future__ import annotations

from contextlib import ExitStack

import comfy.sample
import pytest
import torch

from ComfyUI_DNO.dno.noise import Noise
from ComfyUI_DNO.dno.objective import Reward, Weighted
from ComfyUI_DNO.nodes.host.sampling.plan import Level
from ComfyUI_DNO.nodes.options import Options
from ComfyUI_DNO.nodes.sampler import DNOSampler

from ..support import tiny
from ..support.probe import look


class Mean(Reward):
    def __call__(self, image):
        return image.mean((1, 2, 3))


def evaluations(memory: str, iterations: int, steps: int, **inputs) -> tuple[int, int]:
    """Run and count the evaluations of the network: without a graph, and with one recorded."""
    counts = torch.zeros(2)  # not a list, which would be put back as state of the model

    def count(apply_model, arguments):
        counts[int(torch.is_grad_enabled())] += 1
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    model = tiny.unet(tiny.ModelType.FLOW)
    model.set_model_unet_function_wrapper(count)
    aligned(model, memory, iterations, steps, **inputs)
    return tuple(counts.int().tolist())


def aligned(model, memory: str, iterations: int, steps: int, batch: int = 1, **inputs):
    """The history of a short run."""
    with torch.inference_mode():
        return DNOSampler.execute(
            model,
            tiny.conditioning(1),
            tiny.conditioning(2),
            {"samples": torch.zeros(batch, 4, 8, 8)},
            tiny.vae(),
            {"mean": Weighted(1.0, Mean())},
            0,
            steps,
            3.0,
            "euler",
            "normal",
            1.0,
            iterations,
            0.01,
            options=Options(memory=memory),
            **inputs,
        )[1]


def test_whole_calls_cost_one_forward_and_one_recomputation_per_step():
    plain, recorded = evaluations("call", iterations=3, steps=4)
    assert plain == 4 * 4  # the first picture and three more
    assert recorded == 3 * 4  # no backward after the last


@pytest.mark.parametrize("memory", ["automatic", "recorded", "blocks", "least"])
def test_what_fits_is_recorded_from_the_first_iteration_on(memory):
    """One evaluation more, plain, shows what the records keep, and that kernels are the same.

    So the result, which comes from a recorded evaluation, is not sampled again. Blocks that are
    computed again are not seen from out here.
    """
    plain, recorded = evaluations(memory, iterations=3, steps=4)
    assert recorded == 3 * 4
    assert plain == 1 + 4


@pytest.mark.parametrize("memory", ["call", "automatic"])
def test_the_history_counts_what_the_network_did(memory):
    """Against a count at the network itself, there and back."""
    rows = torch.zeros(1)  # not a list, which would be put back as state of the model

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(context, value):
            rows.add_(len(value))
            return value.view_as(value)

        @staticmethod
        def backward(context, gradient):
            rows.add_(len(gradient))
            return gradient

    def count(apply_model, arguments):
        return Counted.apply(
            apply_model(arguments["input"], arguments["timestep"], **arguments["c"])
        )

    model = tiny.unet(tiny.ModelType.FLOW)
    model.set_model_unet_function_wrapper(count)
    history = aligned(model, memory, iterations=3, steps=4, batch=2)
    spent = [record.evaluations for record in history.records]
    assert spent == ([4, 16, 28, 40] if memory == "call" else [5, 13, 21, 29])
    total = float(rows) / 2 / 2  # CFG's two halves, a batch of two
    assert total == spent[-1]


@pytest.mark.parametrize("level", list(Level), ids=lambda level: level.name.lower())
def test_memory_in_the_number_of_steps(level):
    kept = {steps: _bytes_kept(steps, level) for steps in (2, 8)}
    latents = 6 * 4 * 8 * 8 * 4  # six more steps, fp32
    growth = kept[8] - kept[2]
    if level in (Level.RECORDED, Level.KEPT):
        assert growth > 30 * latents
    else:
        assert growth <= 8 * latents


def _bytes_kept(steps: int, level: Level) -> int:
    model = tiny.unet(tiny.ModelType.FLOW)
    latent = torch.zeros(1, 4, 8, 8)
    kept = []

    def count(sampling):
        sampling.levels.forced, storages = level, {}
        stack.enter_context(sampling.levels)

        def pack(tensor):
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        weights = {w.data_ptr() for w in model.model.parameters()}
        hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
        with torch.enable_grad(), hooks:
            result = sampling.render(Noise(sampling.noise))
        kept.append(sum(size for address, size in storages.items() if address not in weights))
        return result

    noise, sigmas = comfy.sample.prepare_noise(latent, 3), tiny.sigmas(model, "euler", steps)
    with ExitStack() as stack:
        look(tiny.guider(model), "euler", sigmas, noise, latent, count)
    return kept[0]
