"""One sampling with the model live in ComfyUI's guider, to be measured level by level."""

from __future__ import annotations

from collections.abc import Callable


def inside(guider, sigmas, latent, measure: Callable, sampler: str = "euler_ancestral") -> None:
    """Call `measure(sampling)` where the host expects a sampler."""
    import comfy.sample
    import comfy.samplers
    import torch

    from ComfyUI_DNO.nodes.host.compat import training
    from ComfyUI_DNO.nodes.host.ordinary import ordinary, ordinary_modules
    from ComfyUI_DNO.nodes.host.sampling.render import Sampling

    class Probe(comfy.samplers.Sampler):
        def sample(self, model_wrap, sigmas, extra_args, callback, noise, *rest):
            inner = comfy.samplers.sampler_object(sampler)
            conds, modules = model_wrap.conds, [model_wrap.inner_model]
            with (
                torch.inference_mode(False),
                torch.enable_grad(),
                training(),
                ordinary_modules(modules) as weights,
            ):
                model_wrap.conds = ordinary(conds)
                tensors = [ordinary(tensor) for tensor in (sigmas, noise, rest[0], rest[1])]
                sampling = Sampling(inner, model_wrap, extra_args, tensors, weights)
                with sampling.levels:
                    measure(sampling)
                model_wrap.conds = conds
            return noise

    with torch.inference_mode():
        noise = comfy.sample.prepare_noise(latent, 0)
        guider.sample(noise, latent, Probe(), sigmas, seed=0, disable_pbar=True)


def pull(sampling, level: str | None):
    """One sampling at a level and its backward: (latent, gradients); for None, a plain one.

    level: a name of `Level`, or "least": as the sampling was planned.
    """
    import torch

    from ComfyUI_DNO.dno.noise import Noise
    from ComfyUI_DNO.nodes.host.sampling.plan import Level

    noise = Noise(sampling.noise)
    with torch.set_grad_enabled(level is not None):
        sampling.levels.forced = Level[level] if level and level != "least" else None
        latent = sampling.render(noise)
        if level is None:
            return latent, []
        return latent.detach(), list(torch.autograd.grad(latent.sum(), noise.leaves()))


class Slope:
    """The slope of the latent's sum along a random direction of the noise, by central differences.

    `error(gradients)`: |difference - <gradient, direction>| / |gradient|.
    """

    def __init__(self, sampling, step: float):
        import torch

        from ComfyUI_DNO.dno.noise import Noise

        with torch.no_grad():
            noise = Noise(sampling.noise)
            sampling.render(noise)  # which draws what the sampler adds
            generator = torch.Generator().manual_seed(7)
            shapes = [tensor.shape for tensor in noise.tensors()]
            way = [torch.randn(shape, generator=generator).to(sampling.noise) for shape in shapes]
            values = []
            for sign in (step, -step):
                moved = [t + sign * d for t, d in zip(noise.tensors(), way, strict=True)]
                latent = sampling.render(Noise(moved[0], moved[1:]))
                values.append(latent.double().sum().item())
        self.way, self.found = way, (values[0] - values[1]) / (2 * step)

    def error(self, gradients) -> float:
        pairs = list(zip(gradients, self.way, strict=True))
        slope = sum((g.double() * d.double()).sum().item() for g, d in pairs)
        size = sum((g.double() ** 2).sum().item() for g in gradients) ** 0.5
        return abs(self.found - slope) / size
