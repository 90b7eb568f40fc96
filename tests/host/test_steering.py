"""Steering in the host: every sampler, by evaluations alone, exactly replayed."""

from __future__ import annotations

from dataclasses import replace

import comfy.sample
import comfy.samplers
import pytest
import torch

from ComfyUI_DNO.dno.gradient import Problem
from ComfyUI_DNO.dno.method import Task
from ComfyUI_DNO.dno.noise import Noise
from ComfyUI_DNO.dno.objective import Objective, Weighted
from ComfyUI_DNO.dno.steer import ONE_PASS, Pass, Steer
from ComfyUI_DNO.nodes.host.picture.directions import Directions, LinearMap

from ..support import tiny
from ..support.probe import look
from ..support.toy import Ramp, normal

NAMES = comfy.samplers.SAMPLER_NAMES
SCALE = 0.18215  # of SD1.5's latents
PLAN = (Pass(12, "seed"), Pass(12, "fresh"), Pass(8))
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # k-diffusion's and torchsde's own


class Network:
    """A smooth denoiser in the place of the network; it must not be asked for a gradient."""

    def __init__(self):
        self._count = torch.zeros(())  # numbers would be put back with all that a sampling keeps

    @property
    def evaluations(self) -> int:
        return int(self._count)

    def __call__(self, apply_model, arguments):
        x, sigma = arguments["input"], arguments["timestep"].reshape(-1, 1, 1, 1)
        assert not (torch.is_grad_enabled() and x.requires_grad)
        self._count += 1
        return torch.tanh(x * 1.2 / (1 + sigma))


def steered(name, method, model=None, mask=None, batch=2, steps=4, **options):
    """Iterates of a method in the host, the network, and the noises replayed plainly."""
    model = (model or tiny.unet(tiny.ModelType.FLOW)).clone()
    network = Network()
    model.set_model_unet_function_wrapper(network)
    latent = torch.zeros(batch, 4, 8, 8)
    noise = comfy.sample.prepare_noise(latent, 3)
    iterates = []

    def run(sampling):
        objective = Objective({"ramp": Weighted(1.0, Ramp())})
        task = Task(
            Problem(sampling.render, torch.sigmoid, objective), Noise(sampling.noise), **options
        )
        for iterate in method.iterates(task):
            kept = replace(iterate, noise=iterate.noise.snapshot())
            with torch.no_grad():
                assert torch.equal(sampling.render(kept.noise.snapshot()), iterate.latent)
            iterates.append(kept)
        return iterates[-1].latent

    sigmas = tiny.sigmas(model, name, steps)
    sampled = look(tiny.guider(model), name, sigmas, noise, latent, run, mask=mask)
    return iterates, network, sampled


@pytest.mark.parametrize("name", NAMES)
def test_every_sampler_is_steered_and_replayed_bit_for_bit(name):
    iterates, *_ = steered(name, Steer(PLAN))
    rewards = torch.stack([iterate.reward for iterate in iterates])
    assert len(iterates) == 4
    assert (rewards[1:].amax(0) > rewards[0]).all()


@pytest.mark.parametrize("name", ["euler_ancestral", "dpmpp_2m_sde", "lcm", "euler"])
def test_the_plain_sampling_is_the_hosts(name):
    model = tiny.unet(tiny.ModelType.FLOW)
    iterates, _, last = steered(name, Steer(PLAN), model)
    model = model.clone()
    model.set_model_unet_function_wrapper(Network())
    latent = torch.zeros(2, 4, 8, 8)
    expected = tiny.guider(model).sample(
        comfy.sample.prepare_noise(latent, 3),
        latent,
        comfy.samplers.sampler_object(name),
        tiny.sigmas(model, name),
        seed=3,
        disable_pbar=True,
    )
    torch.testing.assert_close(iterates[-1].latent, last * SCALE, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(iterates[0].latent, expected * SCALE, rtol=1e-6, atol=1e-6)


def test_one_pass_is_one_sampling():
    iterates, network, _ = steered("euler_ancestral", Steer(ONE_PASS))
    assert [iterate.step for iterate in iterates] == [1]
    assert network.evaluations == 2 * 4  # the pass, and its replay in this test


def test_the_kept_region_of_a_mask_stays():
    mask = torch.ones(1, 1, 8, 8)
    mask[..., :4] = 0
    iterates, *_ = steered("euler_ancestral", Steer(PLAN), mask=mask)
    for iterate in iterates:
        assert iterate.latent[..., :4].abs().max() < 1e-3  # the latent that was given is zero
    assert (iterates[1].reward > iterates[0].reward).all()


def test_an_image_of_a_batch_is_steered_as_by_itself():
    many, *_ = steered("euler_ancestral", Steer(PLAN), batch=2)
    single, *_ = steered("euler_ancestral", Steer(PLAN[:1] + PLAN[2:]), batch=2)
    torch.testing.assert_close(many[1].latent, single[1].latent)


class Format:
    latent_rgb_factors = None


def pictures_of(latent, factors):
    small = (torch.einsum("bchw,cd->bdhw", latent, factors) + 1) / 2
    return torch.nn.functional.interpolate(small, scale_factor=8, mode="nearest").clamp(0, 1)


def test_a_linear_map_uses_the_formats_factors_where_they_agree():
    factors = 0.2 * normal(4, 3)
    known = Format()
    known.latent_rgb_factors = factors.tolist()
    latent = normal(2, 4, 8, 8, seed=1)
    decoder = LinearMap(known)
    decoder.learn(latent, pictures_of(latent, factors))
    assert decoder.explained > 0.95
    torch.testing.assert_close(decoder._factors, factors)


@pytest.mark.parametrize("factors", [None, (5 * normal(4, 3, seed=9)).tolist()], ids=str)
def test_a_linear_map_is_fitted_where_the_format_has_none_or_another_vae(factors):
    other, latent, right = Format(), normal(2, 4, 8, 8, seed=1), 0.2 * normal(4, 3)
    other.latent_rgb_factors = factors
    decoder = LinearMap(other)
    decoder.learn(latent, pictures_of(latent, right))
    assert decoder.explained > 0.95
    picture = decoder(latent.requires_grad_())
    assert picture.shape == (2, 3, 64, 64)
    (gradient,) = torch.autograd.grad(picture.sum(), latent)
    assert gradient.isfinite().all() and gradient.any()


@pytest.mark.parametrize(
    "choice, roomy, linear, roughly",
    [
        ("automatic", True, False, True),
        ("automatic", False, True, True),
        ("linear", True, True, True),
        ("VAE", False, False, False),
    ],
)
def test_automatic_decodes_by_a_map_roughly_or_where_there_is_no_room(
    choice, roomy, linear, roughly
):
    factors, latent = 0.2 * normal(4, 3), normal(2, 4, 8, 8, seed=1)
    asked = []
    directions = Directions(choice, lambda x: asked.append(1) or x, roomy, Format())
    directions.learn(latent, pictures_of(latent, factors))
    for decode, by_map in ((directions, linear), (directions.roughly, roughly)):
        asked.clear()
        decode(latent)
        assert bool(asked) != by_map


@pytest.mark.parametrize("learned", [False, True])
def test_automatic_stays_with_the_vae_where_no_map_is_known_to_fit(learned):
    latent = normal(2, 4, 8, 8, seed=1)
    known = Format()
    known.latent_rgb_factors = normal(4, 3).tolist()
    directions = Directions("automatic", lambda x: x, False, known)
    if learned:
        other = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        directions.learn(latent, other)
    assert directions(latent) is latent and directions.roughly(latent) is latent


def test_only_rough_passes_ask_the_rough_decoder():
    asked = []

    def noting(name):
        return lambda latent: asked.append(name) or torch.sigmoid(latent)

    passes = (Pass(12, "seed", rough=True), Pass(12, "fresh", rough=True), Pass(8))
    decoders = {"directions": noting("exactly"), "roughly": noting("roughly")}
    steered("euler_ancestral", Steer(passes), **decoders)
    each = asked.count("exactly")
    assert each > 1 and asked == ["roughly"] * 2 * each + ["exactly"] * each


COUNTS = {"all": 9, "first": 0, "last 1": 1, "last 2": 2, "last 9": 9}  # at the end


@pytest.mark.parametrize("which", COUNTS)
def test_the_steps_that_carry_the_gradient(which):
    """Against the sampler by hand, the network's output held fixed at the other steps."""
    model = tiny.unet(tiny.ModelType.FLOW).clone()

    def network(apply_model, arguments):
        return torch.tanh(arguments["input"] * 1.2 / (1 + arguments["timestep"][0]))

    model.set_model_unet_function_wrapper(network)
    sigmas, gradients = tiny.sigmas(model, "euler", 4), []

    def run(sampling):
        sampling.carry(which)
        noise = Noise(sampling.noise)
        with torch.enable_grad():
            latent = sampling.render(noise)
        gradients.append(torch.autograd.grad(latent.sum(), noise.initial)[0])
        return latent.detach()

    noise = comfy.sample.prepare_noise(torch.zeros(1, 4, 8, 8), 3)
    look(tiny.guider(model, cfg=1.0), "euler", sigmas, noise, torch.zeros(1, 4, 8, 8), run)
    z = noise.clone().requires_grad_()
    x, last = z * sigmas[0], len(sigmas) - 1
    for i in range(last):
        denoised = torch.tanh(x * 1.2 / (1 + sigmas[i]))
        count = COUNTS[which]
        if not (i >= last - count or (which == "first" and i == 0)):
            denoised = denoised.detach()
        x = x + (x - denoised) / sigmas[i] * (sigmas[i + 1] - sigmas[i])
    (expected,) = torch.autograd.grad(x.sum(), z)
    torch.testing.assert_close(gradients[0], expected, rtol=1e-4, atol=1e-5)
