"""What bad input gets: one sentence that names the input and the mend, and the best so far."""

from __future__ import annotations

import comfy.samplers
import pytest
import torch

from ComfyUI_DNO.dno.checks import NonFiniteError
from ComfyUI_DNO.dno.objective import Reward, TermError, Weighted
from ComfyUI_DNO.nodes.sampler import DNOSamplerCustom

from ..nodes.test_sampler_node import REWARD, Failing, Tilt, assert_untouched, ksampler, run, state
from ..nodes.test_sampler_node import parts as parts  # the fixture
from ..support import tiny

EMPTY = {"samples": torch.zeros(2, 4, 8, 8)}


def failing(failure):
    return {"tilt": Weighted(1.0, Failing(failure))}


def explode(rewards):
    raise ValueError("the picture is too nice")


def nan_in_image_1(rewards):
    return rewards * torch.tensor([1.0, float("nan")])


class Constant(Reward):
    def __call__(self, image):
        return image.new_ones(len(image))


class OneForAll(Reward):
    def __call__(self, image):
        return image.mean()


BAD = {
    "no reward": (dict(reward=None), "reward input is not a DNO reward"),
    "wrong reward": (dict(reward=torch.zeros(1)), "reward input is not a DNO reward"),
    "wrong regularizer": (dict(regularizer=3), "regularizer input is not a DNO regularizer"),
    "no vae": (dict(vae=None), "vae input is empty"),
    "denoise 0": (dict(denoise=0.0), "denoise above 0"),
    "zero size": (dict(latent={"samples": torch.zeros(1, 4, 0, 8)}), "size zero"),
    "channels": (dict(latent={"samples": torch.ones(1, 16, 8, 8)}), "16 channels and the model"),
    "one score for all": (dict(reward={"mean": Weighted(1.0, OneForAll())}), "one score per image"),
}


@pytest.mark.parametrize(("inputs", "sentence"), BAD.values(), ids=BAD)
def test_a_sentence(parts, inputs, sentence):
    before = state(parts)
    with pytest.raises((ValueError, TermError), match=sentence) as caught:
        run(parts, **inputs)
    assert "\n" not in str(caught.value)
    assert_untouched(parts, before)


def test_a_vae_of_another_model(parts):
    with torch.inference_mode():
        other = tiny.vae(channels=16)
    with pytest.raises(ValueError, match="16 channels, the model makes 4"):
        run(parts, vae=other)


@pytest.mark.parametrize(
    ("channels", "sentence"), [(None, "vae input is empty"), (16, "decodes latents of 16 channels")]
)
def test_the_custom_form_checks_its_vae_too(parts, channels, sentence):
    model, _, positive, negative = parts
    with torch.inference_mode():
        vae = tiny.vae(channels=channels) if channels else None
        sampler = comfy.samplers.sampler_object("euler")
        aligned = DNOSamplerCustom.execute(sampler, vae, REWARD, 2, 0.05)[0]
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        noise = torch.zeros(1, 4, 8, 8)
        with pytest.raises(ValueError, match=sentence):
            guider.sample(noise, noise, aligned, tiny.sigmas(model, "euler"), disable_pbar=True)


def test_frames_are_refused(parts):
    from ComfyUI_DNO.nodes.host.sampling.job import check_latent

    with pytest.raises(ValueError, match="5 frames"):
        check_latent(torch.zeros(1, 4, 5, 8, 8))


@pytest.mark.parametrize(
    ("failure", "reason"),
    [(explode, "'tilt' failed: the picture is too nice"), (nan_in_image_1, "'tilt' is not finite")],
    ids=["raises", "NaN"],
)
def test_a_reward_that_fails_later_keeps_the_best(parts, failure, reason, caplog):
    latent, history, *_ = run(parts, reward=failing(failure), iterations=5).result
    better = run(parts, iterations=1)
    assert reason in history.stop_reason
    assert "iteration 2" in history.stop_reason or failure is explode
    assert len(history.records) == 2
    assert torch.equal(latent["samples"], better[0]["samples"])
    assert reason in caplog.text


def test_a_reward_that_fails_at_once_raises(parts):
    with pytest.raises(TermError, match="'tilt' failed: the picture is too nice"):
        run(parts, reward={"tilt": Weighted(1.0, AlwaysFailing())})


class AlwaysFailing(Tilt):
    def __call__(self, image):
        explode(None)


def test_a_model_that_gives_nan(parts):
    def broken(apply_model, arguments):
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"]) * float(
            "nan"
        )

    model = parts[0].clone()
    model.set_model_unet_function_wrapper(broken)
    with pytest.raises(NonFiniteError, match=r"latent .* is not finite .* at iteration 0"):
        run((model, *parts[1:]))


def test_a_constant_reward_says_that_there_is_no_gradient(parts):
    latent, history, *_ = run(parts, reward={"one": Weighted(1.0, Constant())}).result
    assert "no gradient at iteration 0" in history.stop_reason
    assert torch.equal(latent["samples"], ksampler(parts))


@pytest.mark.parametrize("part", ["whole model", "network"])
def test_a_model_without_a_gradient_is_refused(parts, part, monkeypatch):
    model = parts[0].clone()
    if part == "network":
        forward = model.model.diffusion_model.forward
        monkeypatch.setattr(model.model.diffusion_model, "forward", torch.no_grad()(forward))
    else:

        def compiled(apply_model, arguments):
            with torch.no_grad():
                return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

        model.set_model_unet_function_wrapper(compiled)
    hooks = len(model.model.diffusion_model._forward_hooks)
    with pytest.raises(ValueError, match="model cannot be differentiated"):
        run((model, *parts[1:]))
    assert len(model.model.diffusion_model._forward_hooks) == hooks
