"""Our runs against the paper's algorithm written out here, and against diffusers' DDIM."""

from __future__ import annotations

import comfy.sample
import comfy.samplers
import pytest
import torch

from ComfyUI_DNO.dno.ascent import ascend
from ComfyUI_DNO.dno.noise import Noise
from ComfyUI_DNO.dno.objective import Objective, Reward, Weighted
from ComfyUI_DNO.dno.optimizers import Adam

from ..support import tiny
from ..support.probe import look

ITERATIONS, RATE, CFG = 10, 0.05, 3.0
TEXTS = (0.3, -0.2)  # of the positive and the negative prompt


def denoise(x, sigma, text):
    """D(x, sigma): a smooth denoiser."""
    near = torch.tanh(x * (0.7 + 0.3 * text) / (1 + sigma))
    return 1.3 * near + 0.2 * torch.sin(torch.roll(x, 1, -1) / (1 + sigma) + text)


def guided(x, sigma):
    cond, uncond = (denoise(x, sigma, text) for text in TEXTS)
    return uncond + CFG * (cond - uncond)


def through_comfyui(apply_model, arguments):
    """The same denoiser as ComfyUI's model, the prompt read off its conditioning."""
    x, sigma = arguments["input"], arguments["timestep"].reshape(-1, 1, 1, 1)
    text = arguments["c"]["c_crossattn"].mean((1, 2)).reshape(-1, 1, 1, 1)
    return denoise(x, sigma, text)


def decode(latent):
    return torch.sigmoid(latent[:, :3] - 0.5 * latent[:, 3:])


class Target(Reward):
    """Mean squared distance to a fixed picture, negated."""

    def __call__(self, image):
        wanted = torch.linspace(0, 1, image.shape[-1]).expand_as(image)
        return -(image - wanted).square().mean((1, 2, 3))


@pytest.fixture(scope="module")
def ours():
    """(rewards of every iterate, first noise, sigmas) of our loop in ComfyUI, euler_ancestral."""
    model = tiny.unet()
    model.set_model_unet_function_wrapper(through_comfyui)
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(*([[torch.full((1, 2, 16), text), {}]] for text in TEXTS))
    guider.set_cfg(CFG)
    sigmas, latent = _diffusers()[1], torch.zeros(2, 4, 8, 8)
    record = {}

    def climb(sampling):
        noise = Noise(sampling.noise)
        objective = Objective({"target": Weighted(1.0, Target())})
        record["rewards"] = []
        with torch.enable_grad():
            for iterate in ascend(
                sampling.render,
                decode,
                objective,
                noise,
                optimizer=Adam(),
                learning_rate=RATE,
                iterations=ITERATIONS,
                clip=1e-3,
            ):
                record["rewards"].append(iterate.reward.clone())
                record.setdefault("noise", noise.snapshot())
        return sampling.noise

    noise = comfy.sample.prepare_noise(latent, 3)
    look(guider, "euler_ancestral", sigmas, noise, latent, climb)
    return torch.stack(record["rewards"]), record["noise"], sigmas


def _diffusers(steps: int = 8):
    """diffusers' DDIM scheduler and its noise levels as ComfyUI's sigmas."""
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="leading",
    )
    scheduler.set_timesteps(steps)
    alphas = scheduler.alphas_cumprod[scheduler.timesteps]
    return scheduler, torch.cat([((1 - alphas) / alphas).sqrt(), torch.zeros(1)]).float()


def start(noise, sigmas):
    """Below sigma_max ComfyUI starts at sigma z: sqrt(1 - a) z in the paper's space, not z."""
    return noise[0] * (sigmas[0] ** 2 / (1 + sigmas[0] ** 2)).sqrt()


def paper_sampler(noise, sigmas):
    """DDIM with eta 1 in the paper's form, alpha-bar a = 1 / (1 + sigma^2)."""
    alphas = 1 / (1 + sigmas**2)
    x = start(noise, sigmas)
    for step in range(len(sigmas) - 1):
        a, p, sigma = alphas[step], alphas[step + 1], sigmas[step]
        x0 = guided(x / a.sqrt(), sigma)
        eps = (x - a.sqrt() * x0) / (1 - a).sqrt()
        spread = ((1 - p) / (1 - a)).sqrt() * (1 - a / p).sqrt()
        x = p.sqrt() * x0 + (1 - p - spread**2).clamp(min=0).sqrt() * eps
        if step < len(sigmas) - 2:
            x = x + spread * noise[step + 1]
    return x


def diffusers_sampler(noise, sigmas):
    scheduler, _ = _diffusers()
    x = start(noise, sigmas)
    for step, t in enumerate(scheduler.timesteps):
        a = scheduler.alphas_cumprod[t]
        eps = (x - a.sqrt() * guided(x / a.sqrt(), sigmas[step])) / (1 - a).sqrt()
        fresh = noise[step + 1] if step + 1 < len(noise) else torch.zeros_like(x)
        x = scheduler.step(eps, t, x, eta=1.0, variance_noise=fresh).prev_sample
    return x


@pytest.mark.parametrize("sampler", [paper_sampler, diffusers_sampler])
def test_same_rewards_as_the_reference_loop(ours, sampler):
    """Algorithm 1 as written: Adam on all the noise, each image's gradient clipped by its norm."""
    rewards, first, sigmas = ours
    noise = [tensor.detach().clone().requires_grad_() for tensor in first.tensors()]
    optimizer = torch.optim.Adam(noise, lr=RATE)
    reference = []
    for _ in range(ITERATIONS + 1):
        reward = Target()(decode(sampler(noise, sigmas)))
        reference.append(reward.detach())
        optimizer.zero_grad()
        (-reward.sum()).backward()
        for image in range(2):
            norm = torch.sqrt(sum(leaf.grad[image].square().sum() for leaf in noise))
            for leaf in noise:
                leaf.grad[image] *= min(1.0, 1e-3 / float(norm))
        optimizer.step()
    reference = torch.stack(reference)
    assert (reference[-1] - reference[0] > 0.005).all()
    assert torch.allclose(rewards, reference, atol=1e-4, rtol=0)
