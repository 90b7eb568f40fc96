"""A sampler that renders as the aligner does, and says how exact the gradient is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import comfy.samplers
import torch
from torch import Tensor

from ComfyUI_DNO.dno.noise import Noise
from ComfyUI_DNO.nodes.host import compat
from ComfyUI_DNO.nodes.host.ordinary import ordinary, ordinary_modules
from ComfyUI_DNO.nodes.host.sampling import guards
from ComfyUI_DNO.nodes.host.sampling.plan import Level
from ComfyUI_DNO.nodes.host.sampling.render import Sampling

from . import tiny


class Probe(comfy.samplers.Sampler):
    """Samples, and takes the gradient of <latent, weights> by the noise as the aligner would.

    steps:    step sizes of central differences.
    level:    at which every evaluation runs; whole calls are computed again by default.
    memory:   what the user chose instead, with so many bytes free.
    scope:    of the noise that is optimised.
    size:     of the weights: 1 is a gradient as large as the latent.
    latent:   what was rendered.
    gradient: one tensor per noise tensor.
    errors:   |difference - <gradient, direction>| / |gradient|: of central differences per step
              size, then of those of fourth order, from each two neighbouring sizes.
    """

    def __init__(
        self,
        name: str = "euler",
        steps: tuple[float, ...] = (),
        level: Level | None = None,
        memory: str = "call",
        free: int = 2**40,
        scope: str = "all",
        size: float = 1.0,
    ):
        self.inner, self.steps = (
            comfy.samplers.sampler_object(name) if isinstance(name, str) else name,
            steps,
        )
        self.level, self.memory, self.free, self.scope = level, memory, free, scope
        self.size = size

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
        modules = [p.model for p in (model_wrap.model_patcher, *model_wrap.loaded_models)]
        modules = [module for module in modules if isinstance(module, torch.nn.Module)]
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(compat.training())
            resident = stack.enter_context(ordinary_modules(modules))
            model_wrap.conds = ordinary(model_wrap.conds)
            plain = [ordinary(t) for t in (sigmas, noise, latent_image, denoise_mask)]
            self.sampling = Sampling(self.inner, model_wrap, extra_args, plain, resident)
            stack.enter_context(self.sampling.levels)
            self.sampling.levels.begin(self.memory, self.free, 0, len(sigmas) - 1, _unwatched)
            self.sampling.levels.forced = self.level
            self._probe(Noise(plain[1], scope=self.scope))
        return self.latent

    def _probe(self, noise: Noise) -> None:
        rendered = self.sampling.render(noise)
        self.latent = rendered.detach().clone()
        weights = self.size * _gaussian(rendered, 5)
        self.gradient = torch.autograd.grad((rendered * weights).sum(), noise.leaves())
        directions = [_gaussian(leaf, 7 + index) for index, leaf in enumerate(noise.leaves())]
        slope, size = _dot(self.gradient, directions), _dot(self.gradient, self.gradient) ** 0.5
        found = [self._difference(noise, directions, weights, step) for step in self.steps]
        self.errors = [abs(each - slope) / size for each in found + self._extrapolated(found)]

    def _extrapolated(self, found: list[float]) -> list[float]:
        """Without the part that grows with the step's square: Richardson's extrapolation."""
        pairs = zip(self.steps, found, self.steps[1:], found[1:], strict=False)
        return [(p**2 * b - q**2 * a) / (p**2 - q**2) for p, a, q, b in pairs]

    @torch.no_grad()
    def _difference(self, noise: Noise, directions, weights: Tensor, step: float) -> float:
        values = []
        for sign in (step, -step):
            moved = [t + sign * d for t, d in zip(noise.tensors(), directions, strict=True)]
            rendered = self.sampling.render(Noise(moved[0], moved[1:]))
            values.append((rendered * weights).sum().item())
        return (values[0] - values[1]) / (2 * step)


def sample(guider, sampler, latent_shape, dtype=torch.float32, mask=None, steps: int = 3) -> Tensor:
    """Sample from the same noise, whatever the precision, with a sampler or a sampler's name."""
    if isinstance(sampler, str):
        sampler = comfy.samplers.sampler_object(sampler)
    noise = torch.randn(1, *latent_shape, generator=torch.Generator().manual_seed(3)).to(dtype)
    sigmas = tiny.sigmas(guider.model_patcher, "euler", steps, "simple")  # no timestep on an edge
    return guider.sample(
        noise,
        torch.zeros_like(noise),
        sampler,
        sigmas.to(dtype),
        denoise_mask=mask,
        seed=3,
        disable_pbar=True,
    )


@contextmanager
def doubles() -> Iterator[None]:
    """Keeps a float64 model in float64 where the host casts to float32.

    Central differences then see rounding of 1e-16, not of 1e-7.
    """
    saved = [(Tensor, name, getattr(Tensor, name)) for name in ("float", "to", "type_as")]
    replaced = [_kept(name, cast) for _, name, cast in saved]
    norm, kitchen = torch.linalg.vector_norm, compat.comfy_kitchen
    saved.append((torch.linalg, "vector_norm", norm))
    replaced.append(lambda x, *args, dtype=None, **kwargs: norm(x, *args, **kwargs))
    for name in kitchen.backends.eager.__all__ if kitchen else ():  # its ops know no float64
        if name.startswith(guards.FUSED):
            saved.append((kitchen, name, getattr(kitchen, name)))
            replaced.append(getattr(kitchen.backends.eager, name))
    try:
        for (owner, name, _), value in zip(saved, replaced, strict=True):
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in saved:
            setattr(owner, name, value)


def _unwatched(recomputed: bool) -> None:
    """Nobody looks on."""


def _kept(name: str, cast):
    def kept(tensor, *args, **kwargs):
        if tensor.dtype == torch.float64:
            wanted = [torch.float32] if name == "float" else [*args, *kwargs.values()]
            if any(getattr(item, "dtype", item) is torch.float32 for item in wanted):
                return tensor.clone() if kwargs.get("copy") else tensor
        return cast(tensor, *args, **kwargs)

    return kept


def _gaussian(like: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator).to(like)


def _dot(a, b) -> float:
    return sum((x.double() * y.double()).sum().item() for x, y in zip(a, b, strict=True))


def difference(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> float:
    """|a - b| / |b| of two gradients."""
    gap = [x.double() - y.double() for x, y in zip(a, b, strict=True)]
    return (_dot(gap, gap) / _dot(b, b)) ** 0.5


def cosine(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> float:
    """The cosine of two gradients."""
    return _dot(a, b) / (_dot(a, a) * _dot(b, b)) ** 0.5
