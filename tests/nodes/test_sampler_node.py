"""The DNO Sampler as a user runs it: in inference mode, beside KSampler, leaving nothing behind."""

from __future__ import annotations

import gc
from contextlib import nullcontext

import comfy.model_management
import comfy.samplers
import nodes
import pytest
import torch
from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced

from ComfyUI_DNO.dno.objective import Reward, Weighted
from ComfyUI_DNO.dno.optimizers import SGD
from ComfyUI_DNO.nodes.host.sampling.endings import OUT_OF_MEMORY
from ComfyUI_DNO.nodes.options import Options
from ComfyUI_DNO.nodes.sampler import DNOSampler, DNOSamplerCustom, DNOSamplerHistory
from ComfyUI_DNO.regularizers import Spectrum

from ..support import tiny

pytestmark = pytest.mark.filterwarnings("ignore:Should have:UserWarning")  # torchsde's own


class Tilt(Reward):
    """A smooth reward with a gradient everywhere: the left half bright, the right half dark."""

    def __call__(self, image):
        ramp = torch.linspace(1, -1, image.shape[-1]).to(image)
        return (image * ramp).mean((1, 2, 3)) * 10


REWARD = {"tilt": Weighted(1.0, Tilt())}
SPECTRUM = {"spectrum": Weighted(1.0, Spectrum())}
INPUTS = dict(steps=3, cfg=3.0, sampler_name="euler_ancestral", scheduler="normal", denoise=1.0)


@pytest.fixture(scope="module")
def parts():
    """(model, vae, positive, negative) made as ComfyUI makes them: inference tensors."""
    with torch.inference_mode():
        return (
            tiny.unet(tiny.ModelType.FLOW),
            tiny.vae(),
            tiny.conditioning(1),
            tiny.conditioning(2),
        )


def run(parts, latent=None, reward=REWARD, iterations=3, seed=5, options=None, **changes):
    model, vae, positive, negative = parts
    latent = latent or {"samples": torch.zeros(2, 4, 8, 8)}
    with torch.inference_mode():
        return DNOSampler.execute(
            model,
            positive,
            negative,
            latent,
            changes.pop("vae", vae),
            reward,
            seed,
            **INPUTS | {"learning_rate": 0.05} | changes,
            iterations=iterations,
            options=options,
        )


def ksampler(parts, latent=None, seed=5, **changes):
    model, _, positive, negative = parts
    latent = latent or {"samples": torch.zeros(2, 4, 8, 8)}
    inputs = INPUTS | changes
    with torch.inference_mode():
        return nodes.common_ksampler(
            model,
            seed,
            inputs["steps"],
            inputs["cfg"],
            inputs["sampler_name"],
            inputs["scheduler"],
            positive,
            negative,
            latent,
            denoise=inputs["denoise"],
        )[0]["samples"]


MASK = torch.zeros(1, 64, 64)
MASK[:, :, 32:] = 1
LATENTS = {
    "empty": {"samples": torch.zeros(2, 4, 8, 8)},
    "image to image": {
        "samples": torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    },
    "masked": {
        "samples": torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)),
        "noise_mask": MASK,
    },
    "wide": {"samples": torch.zeros(1, 4, 8, 12)},
    "picked from a batch": {"samples": torch.zeros(2, 4, 8, 8), "batch_index": [1, 3]},
}


@pytest.mark.parametrize("denoise", [1.0, 0.6])
@pytest.mark.parametrize("latent", LATENTS.values(), ids=LATENTS)
def test_no_iterations_is_ksampler(parts, latent, denoise):
    samples = run(parts, latent, iterations=0, denoise=denoise)[0]["samples"]
    assert torch.equal(samples, ksampler(parts, latent, denoise=denoise))


@pytest.mark.parametrize("latent", LATENTS.values(), ids=LATENTS)
@pytest.mark.parametrize("name", ["euler", "ddim", "dpmpp_2m_sde"])
def test_reward_rises(parts, latent, name):
    history = run(parts, latent, sampler_name=name)[1]
    first = history.records[0].reward
    assert (history.best.reward > first + 1e-4).all()
    assert [record.step for record in history.records] == [0, 1, 2, 3]


def test_the_mask_is_kept(parts):
    samples = run(parts, LATENTS["masked"])[0]["samples"]
    kept, given = samples[..., :4], LATENTS["masked"]["samples"][..., :4]
    assert torch.allclose(kept, given, atol=1e-4)
    assert not torch.allclose(samples[..., 4:], LATENTS["masked"]["samples"][..., 4:], atol=1e-2)


def test_cfg_1_evaluates_the_prompt_only(parts):
    batches = []

    def count(apply_model, arguments):
        batches.append(len(arguments["input"]))
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    model = parts[0].clone()
    model.set_model_unet_function_wrapper(count)
    run((model, *parts[1:]), {"samples": torch.zeros(1, 4, 8, 8)}, cfg=1.0, iterations=1)
    assert set(batches) == {1}


def test_images_of_a_batch_do_not_meet(parts):
    """Image 0 beside another neighbour: bitwise for equal composition, else to rounding."""

    def image_0(*images, memory="call"):
        latent = {"samples": torch.zeros(len(images), 4, 8, 8), "batch_index": list(images)}
        # Not Adam: it turns the rounding of a tiny gradient into a full step.
        step = dict(optimizer=SGD(momentum=0.0), learning_rate=20.0, options=Options(memory=memory))
        return run(parts, latent, sampler_name="euler", **step)[0]["samples"][0]

    beside_1 = image_0(0, 1)
    assert torch.equal(beside_1, image_0(0, 7))
    recorded = [image_0(0, other, memory="recorded") for other in (1, 7)]
    assert torch.equal(*recorded)
    assert torch.allclose(beside_1, image_0(0), atol=1e-3)
    assert not torch.allclose(beside_1, ksampler(parts)[0], atol=0.05)


@pytest.mark.parametrize("memory", ["least", "automatic"])
@pytest.mark.parametrize("name", ["euler", "euler_ancestral", "dpmpp_sde", "ddim"])
def test_noise_and_sampler_outputs_replay_the_best(parts, name, memory):
    assert_replays(parts, name, Options(memory=memory))


def test_the_best_is_drawn_by_the_users_own_kernels(parts):
    """Steps that are kept for backward may use others; the picture that is handed on does not."""

    def sage(attention, *arguments, **options):
        with torch.no_grad():
            return 1.05 * attention(*arguments, **options)

    model = parts[0].clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = sage
    mine = (model, *parts[1:])
    rewards = [record.reward for record in run(mine, sampler_name="euler", iterations=4)[1].records]
    target = float(rewards[2].min()) - 1e-6  # stop at iteration 2, whose steps are kept
    options = Options(use_target=True, target_reward=target)
    history = assert_replays(mine, "euler", options, iterations=4)
    assert history.best.step.tolist() == [2, 2]


def assert_replays(parts, name: str, options: Options, **inputs):
    """SamplerCustomAdvanced with the node's noise, sampler and sigmas gives its latent."""
    made = run(parts, sampler_name=name, options=options, **inputs)
    latent, history, noise, sampler, sigmas, _ = made.result
    model, _, positive, negative = parts
    with torch.inference_mode():
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(INPUTS["cfg"])
        empty = {"samples": torch.zeros(2, 4, 8, 8)}
        replayed = SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, empty)[0]
    assert torch.equal(replayed["samples"], latent["samples"])
    return history


def test_the_custom_form_gives_the_same(parts):
    latent, *_ = run(parts, LATENTS["empty"]).result
    model, vae, positive, negative = parts
    with torch.inference_mode():
        aligned = DNOSamplerCustom.execute(
            comfy.samplers.sampler_object("euler_ancestral"), vae, REWARD, 3, 0.05
        )[0]
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(3.0)
        noise = comfy.sample.prepare_noise(LATENTS["empty"]["samples"], 5)
        sigmas = tiny.sigmas(model, "euler_ancestral", 3)

        class Noise:
            seed = 5

            def generate_noise(self, latent):
                return noise

        for _ in range(2):  # the same SAMPLER may be used again
            out, denoised = SamplerCustomAdvanced.execute(
                Noise(), guider, aligned, sigmas, LATENTS["empty"]
            ).result
            assert torch.equal(out["samples"], latent["samples"])
            assert torch.equal(denoised["samples"], latent["samples"])
        history, again, replay, before = DNOSamplerHistory.execute(aligned, out).result
        assert history is aligned.history and len(history.records) == 4
        assert torch.equal(before, history.first.movedim(1, -1))
        replayed = SamplerCustomAdvanced.execute(again, guider, replay, sigmas, LATENTS["empty"])[0]
        assert torch.equal(replayed["samples"], latent["samples"])


def test_a_history_of_nothing_is_refused(parts):
    plain = comfy.samplers.sampler_object("euler")
    with pytest.raises(ValueError, match="no DNO sampler"):
        DNOSamplerHistory.execute(plain, LATENTS["empty"])
    (aligned,) = DNOSamplerCustom.execute(plain, parts[1], REWARD, 3, 0.05).result
    with pytest.raises(ValueError, match="has not run"):
        DNOSamplerHistory.execute(aligned, LATENTS["empty"])


def state(parts):
    """Every weight by identity and value, and the modes that a run changes."""
    model, vae, positive, negative = parts
    weights = {}
    for module in (model.model, vae.first_stage_model):
        weights |= {(id(module), k): v for k, v in module.named_parameters(remove_duplicate=False)}
        weights |= {(id(module), k): v for k, v in module.named_buffers(remove_duplicate=False)}
    values = {key: tensor.detach().clone() for key, tensor in weights.items()}
    text = [(entry[0], entry[0].clone(), dict(entry[1])) for entry in positive + negative]
    modes = (torch.is_grad_enabled(), torch.is_inference_mode_enabled())
    training = getattr(comfy.model_management, "in_training", "absent")
    return (
        weights,
        values,
        text,
        modes,
        training,
        str(model.model_options),
        torch.get_default_dtype(),
    )


def assert_untouched(parts, before):
    weights, values, text, *modes = before
    now, _, texts, *modes_now = state(parts)
    assert modes == modes_now
    assert weights.keys() == now.keys()
    for key, tensor in weights.items():
        assert now[key] is tensor
        assert torch.equal(tensor.detach(), values[key])
    for (tensor, value, extra), (tensor_now, value_now, extra_now) in zip(text, texts, strict=True):
        assert tensor is tensor_now and torch.equal(value, value_now) and extra == extra_now


class Failing(Tilt):
    """Fails in one of the ways of the world, by default at the third picture."""

    def __init__(self, failure, at=3):
        self.failure, self.at, self.calls = failure, at, 0

    def __call__(self, image):
        self.calls += 1
        scores = super().__call__(image)
        return scores if self.calls < self.at else self.failure(scores)


def interrupt(scores):
    comfy.model_management.interrupt_current_processing()
    return scores


def memory_runs_out(scores):
    raise comfy.model_management.OOM_EXCEPTION("out of memory")


@pytest.mark.parametrize(
    ("failing", "raises"),
    [
        (Tilt(), None),
        (Failing(interrupt), comfy.model_management.InterruptProcessingException),
        (Failing(memory_runs_out), None),
        (Failing(memory_runs_out, at=1), comfy.model_management.OOM_EXCEPTION),
    ],
    ids=["success", "interrupt", "out of memory", "out of memory at once"],
)
def test_nothing_is_left_behind(parts, failing, raises):
    expected, before = ksampler(parts), state(parts)
    with pytest.raises(raises) if raises else nullcontext():
        run(parts, reward={"failing": Weighted(1.0, failing)})
    assert_untouched(parts, before)
    assert torch.equal(ksampler(parts), expected)
    assert not comfy.model_management.processing_interrupted()


def test_out_of_memory_at_the_smallest_level_keeps_the_best(parts, monkeypatch, caplog):
    """What a shorter run gives, and a sentence that names the knob; what the error held is free."""
    pictures, freed = torch.zeros(()), torch.zeros(())  # not lists, which would be put back

    def count(scores):
        pictures.add_(1)
        return scores

    def refuse(apply_model, arguments):
        if pictures >= 2 and torch.is_grad_enabled():
            memory_runs_out(None)
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    def emptied():
        errors = comfy.model_management.OOM_EXCEPTION
        freed.fill_(not any(type(each) is errors for each in gc.get_objects()))
        empty()

    empty = comfy.model_management.soft_empty_cache
    monkeypatch.setattr(comfy.model_management, "soft_empty_cache", emptied)
    model = parts[0].clone()
    model.set_model_unet_function_wrapper(refuse)
    reward = {"counting": Weighted(1.0, Failing(count, at=1))}
    latent, history, *_ = run((model, *parts[1:]), reward=reward).result
    assert len(history.records) == 3 and freed  # the last level ran out on its way back
    assert history.stop_reason == OUT_OF_MEMORY and OUT_OF_MEMORY in caplog.text
    shorter = run(parts, iterations=2)[0]
    assert torch.allclose(latent["samples"], shorter["samples"], atol=1e-5)


def test_interrupt_within_one_evaluation(parts):
    """Asked for in an evaluation of the backward pass, it comes before the next one."""
    evaluations = torch.zeros(())  # not a list, which would be put back as state of the model

    def ask(apply_model, arguments):
        evaluations.add_(torch.is_grad_enabled())
        if evaluations == 2:  # the second recomputation
            comfy.model_management.interrupt_current_processing()
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    model = parts[0].clone()
    model.set_model_unet_function_wrapper(ask)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run((model, *parts[1:]), options=Options(memory="least"))
    assert evaluations == 2


def test_a_picture_that_is_not_finite_names_the_vae(parts, monkeypatch):
    decode = parts[1].first_stage_model.decode
    monkeypatch.setattr(parts[1].first_stage_model, "decode", lambda z: decode(z) * float("nan"))
    with pytest.raises(ArithmeticError, match="decoded picture .* The VAE overflowed in float32"):
        run(parts, iterations=1)
