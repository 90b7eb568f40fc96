"""A look inside one sampling: the host's own, made a function of its noise."""

from __future__ import annotations

from collections.abc import Callable

import comfy.sample
import comfy.samplers
import torch

from ComfyUI_DNO.dno.noise import Noise
from ComfyUI_DNO.nodes.host.ordinary import ordinary, ordinary_modules
from ComfyUI_DNO.nodes.host.sampling.render import Sampling


class Probe(comfy.samplers.Sampler):
    """Calls `look(sampling)` where the host expects a sampler, the model being live."""

    def __init__(self, sampler, look: Callable[[Sampling], torch.Tensor]):
        self.sampler, self.look = sampler, look

    def sample(
        self,
        model_wrap,
        sigmas,
        extra_args,
        callback,
        noise,
        latent_image=None,
        denoise_mask=None,
        disable_pbar=False,
    ):
        with torch.inference_mode(False), ordinary_modules([model_wrap.inner_model]):
            tensors = [ordinary(tensor) for tensor in (sigmas, noise, latent_image, denoise_mask)]
            sampling = Sampling(self.sampler, model_wrap, extra_args, tensors)
            return self.look(sampling).detach()


def look(guider, sampler_name: str, sigmas, noise, latent, look, seed: int = 3, mask=None):
    """Run `look(sampling)` inside `guider`'s sampling; its return value is the sampled latent."""
    probe = Probe(comfy.samplers.sampler_object(sampler_name), look)
    return guider.sample(
        noise, latent, probe, sigmas.clone(), seed=seed, denoise_mask=mask, disable_pbar=True
    )


def directional_derivatives(sampling: Sampling, steps: tuple[float, ...] = (1e-4, 1e-5)):
    """Of a random linear functional of the latent along a random direction of all the noise:

    by backpropagation, and by central differences with each step size.
    """
    noise = Noise(sampling.noise)
    with torch.enable_grad():
        latent = sampling.render(noise)
    generator = torch.Generator().manual_seed(5)

    def random(like):
        return torch.randn(like.shape, generator=generator, dtype=like.dtype)

    functional = random(latent)
    directions = [random(leaf) for leaf in noise.leaves()]
    gradients = torch.autograd.grad((latent * functional).sum(), noise.leaves(), allow_unused=True)
    exact = sum(
        float((g * d).sum()) for g, d in zip(gradients, directions, strict=True) if g is not None
    )

    def value(step: float) -> float:
        moved = [
            leaf.detach() + step * d for leaf, d in zip(noise.leaves(), directions, strict=True)
        ]
        with torch.no_grad():
            return float((sampling.render(Noise(moved[0], moved[1:])) * functional).sum())

    return exact, [(value(step) - value(-step)) / (2 * step) for step in steps]
