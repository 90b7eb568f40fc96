"""A sampling is a pure function of its noise, whatever else is in the graph, or that is told."""

from __future__ import annotations

import functools
import itertools
import logging
import os
import random

import comfy.hooks
import comfy.k_diffusion.sampling
import comfy.ops
import comfy.sample
import comfy.samplers
import comfy_extras.nodes_post_processing  # noqa: F401  newer ComfyUI's nodes_latent needs it first
import numpy as np
import pytest
import torch
from comfy_extras.nodes_custom_sampler import SamplerCustomAdvanced
from comfy_extras.nodes_easycache import EasyCacheNode, LazyCacheNode
from comfy_extras.nodes_latent import LatentApplyOperationCFG, LatentOperationTonemapReinhard
from comfy_extras.nodes_tomesd import TomePatchModel

from ComfyUI_DNO.nodes.host.sampling import outside, weights
from ComfyUI_DNO.nodes.host.sampling.plan import Level
from ComfyUI_DNO.nodes.options import Options
from ComfyUI_DNO.nodes.sampler import DNOSampler, DNOSamplerCustom

from ..nodes.test_sampler_node import REWARD
from ..support import tiny
from ..support.families import FAMILIES, build, conditioning, guider
from ..support.family_probe import Probe, difference, doubles, sample
from .test_model_patches import lora

SD15 = FAMILIES["SD1.5"]
EMPTY = {"samples": torch.zeros(1, 4, 8, 8)}


def parts(patch=lambda model: model):
    with torch.inference_mode():
        return patch(build(SD15)), tiny.vae(4), conditioning(SD15, 1), conditioning(SD15, 2)


@torch.inference_mode()
def climb(given, iterations=3, learning_rate=0.05, steps=4, name="euler", options=None):
    model, vae, positive, negative = given
    drawing = (5, steps, 3.0, name, "simple", 1.0)
    return DNOSampler.execute(
        model,
        positive,
        negative,
        EMPTY,
        vae,
        REWARD,
        *drawing,
        iterations,
        learning_rate,
        options=options,
    ).result


class Noise:
    seed = 5

    def generate_noise(self, latent):
        return comfy.sample.prepare_noise(latent["samples"], self.seed)


@torch.inference_mode()
def advanced(given, sampler, noise=None, sigmas=None):
    guided = comfy.samplers.CFGGuider(given[0])
    guided.set_conds(*given[2:])
    guided.set_cfg(3.0)
    if sigmas is None:
        sigmas = tiny.sigmas(given[0], "euler", 4, "simple")
    return SamplerCustomAdvanced.execute(noise or Noise(), guided, sampler, sigmas, EMPTY).result


@torch.inference_mode()
def custom(given, sampler, iterations=3, learning_rate=0.05):
    return DNOSamplerCustom.execute(sampler, given[1], REWARD, iterations, learning_rate)[0]


def rewards(history) -> set[float]:
    return {float(record.reward.mean()) for record in history.records}


def scheduled():
    """A LoRA whose strength follows keyframes."""
    model, vae, positive, negative = parts()
    with torch.inference_mode():
        group = comfy.hooks.create_hook_lora({}, 1.0, 0.0)
        group.hooks[0].weights = lora(model)
        frames = comfy.hooks.HookKeyframeGroup()
        for strength, start in ((1.0, 0.0), (0.3, 0.4), (0.0, 0.8)):
            frames.add(comfy.hooks.HookKeyframe(strength=strength, start_percent=start))
        group.hooks[0].hook_keyframe = frames
        return model, vae, comfy.hooks.set_hooks_for_conditioning(positive, group), negative


def merged():
    """Token merging draws from torch's generator inside the network."""
    return parts(lambda model: TomePatchModel.execute(model, 0.5)[0])


def cached(node):
    return lambda: parts(lambda model: node.execute(model, 0.2, 0.15, 0.95, False)[0])


class Slotted:
    __slots__ = ("calls",)

    def __init__(self):
        self.calls = 0


COUNTED, NUMBERS = Slotted(), np.random.default_rng(3)  # globals of a pack


def count() -> int:
    COUNTED.calls += 1
    return COUNTED.calls % 3


def scaled(factor):
    """A network that is scaled by what `factor()` gives, another number at each call."""

    def patch(model):
        patched = model.clone()
        patched.set_model_unet_function_wrapper(
            lambda apply, a: apply(a["input"], a["timestep"], **a["c"]) * (1 + 0.1 * factor())
        )
        return patched

    return lambda: parts(patch)


STATES = [count, lambda: NUMBERS.random(), random.Random(3).random]


@pytest.mark.parametrize("factor", STATES, ids=["slots of a global", "numpy's", "Python's"])
def test_state_of_every_kind_is_put_back(factor):
    assert len(rewards(climb(scaled(factor)(), learning_rate=0.0, iterations=2)[1])) == 1


def test_an_iterator_that_goes_on_is_told(caplog):
    factors = itertools.cycle((0.0, 1.0))
    climb(scaled(lambda: next(factors))(), iterations=1)
    assert "keeps an iterator" in caplog.text


@pytest.mark.parametrize("given", [scheduled, merged, cached(EasyCacheNode), cached(LazyCacheNode)])
def test_the_same_noise_gives_the_same_picture_and_the_outputs_replay_it(given):
    given = given()
    assert len(rewards(climb(given, learning_rate=0.0, steps=6)[1])) == 1
    latent, _, noise, sampler, sigmas, *_ = climb(given, steps=6)
    assert torch.equal(advanced(given, sampler, noise, sigmas)[0]["samples"], latent["samples"])


def test_the_gradient_is_exact_where_the_network_draws():
    probe = Probe("euler", steps=(1e-5, 1e-6))
    with doubles():
        model = TomePatchModel.execute(build(SD15, torch.float64), 0.5)[0]
        sample(guider(SD15, model), probe, (4, 8, 8), torch.float64)
    assert min(probe.errors) < 1e-7


def every_second_step(model):
    """A step cache as packs have them: each second step takes over the change of the first."""
    state, patched = {}, model.clone()

    def wrapper(apply, a):
        sigmas = a["c"]["transformer_options"]["sample_sigmas"]
        step = int((sigmas - a["timestep"][0]).abs().argmin())
        if step % 2 and state:
            return a["input"] + state["change"]
        out = apply(a["input"], a["timestep"], **a["c"])
        state["change"] = (out - a["input"]).detach()
        return out

    patched.set_model_unet_function_wrapper(wrapper)
    return patched


def without_repeating(model):
    """A network that is another one at every evaluation, out of anybody's reach."""
    patched = model.clone()

    def wrapper(apply, a):
        return apply(a["input"], a["timestep"], **a["c"]) * (1 + 1e-4 * os.urandom(1)[0])

    patched.set_model_unet_function_wrapper(wrapper)
    return patched


@pytest.mark.parametrize(
    ("patch", "told"), [(every_second_step, "step cache"), (without_repeating, "repeat itself")]
)
def test_what_the_gradient_does_not_see_is_told_once(patch, told, caplog):
    with caplog.at_level(logging.WARNING):
        climb(parts(patch), iterations=3, steps=6, options=Options(memory="call"))
    found = [record.message for record in caplog.records if told in record.message]
    assert len(found) == 1 and found[0].startswith("DNO: ")
    with pytest.raises(ValueError, match=told):
        climb(parts(patch), iterations=3, steps=6, options=Options(memory="call", strict=True))


def with_momentum(model):
    """A guidance that remembers, outside the network: its memory carries the gradient."""
    patched, memory = model.clone(), {}

    def guide(args):
        change = args["cond"] - args["uncond"]
        memory["change"] = change + 0.5 * memory.get("change", 0)
        return args["uncond"] + 2 * memory["change"]

    patched.set_model_sampler_cfg_function(guide)
    return patched


def test_a_memory_that_carries_the_gradient_is_exact_and_not_told(caplog):
    probe = Probe(steps=(1e-5, 1e-6))
    with doubles():
        model = with_momentum(build(SD15, torch.float64))
        sample(guider(SD15, model), probe, (4, 8, 8), torch.float64)
    assert min(probe.errors) < 1e-7
    climb(parts(with_momentum), iterations=2)
    assert "keeps tensors" not in caplog.text


TABLE = {"gaussian": torch.randn_like}  # looked up at run time, as packs with a choice of noises do


@torch.no_grad()
def ancestral(model, x, sigmas, extra_args=None, callback=None, disable=None):
    for now, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        x = model(x, now * x.new_ones([len(x)]), **(extra_args or {}))
        if following > 0:
            x = x + following * TABLE["gaussian"](x)
    return x


def around(model, x, sigmas, *, wrapped, **more):
    """A sampler around another one, as packs that bend sigmas have them."""

    def bent(x, sigma, **extra):
        return model(x, sigma * 0.98, **extra)

    bent.inner_model, bent.sigmas = model.inner_model, model.sigmas
    return wrapped.sampler_function(bent, x, sigmas, **more, **wrapped.extra_options)


@torch.no_grad()
def in_place(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Every second pixel is denoised by itself and written back into the picture."""
    for now, following in zip(sigmas[:-1], sigmas[1:], strict=True):
        x = x.clone()
        small = x[:, :, 1::2, 1::2]
        denoised = model(small, now * x.new_ones([len(x)]), **(extra_args or {}))
        small.copy_(small + 0.1 * (small - denoised) / now * (following - now))
        denoised = model(x, now * x.new_ones([len(x)]), **(extra_args or {}))
        x = x + (x - denoised) / now * (following - now)
    return x


def by_name(model, x, sigmas, **more):
    """One sampler after another, found by its name on the spot."""
    first = comfy.samplers.ksampler("ipndm").sampler_function
    x = first(model, x, sigmas[:3], **more)
    return comfy.k_diffusion.sampling.sample_heun(model, x, sigmas[2:], **more)


class Called:
    """An object that is called as a sampler function, and another that holds its sampler."""

    def __init__(self, wrapped):
        self.wrapped = wrapped

    def __call__(self, model, x, sigmas, **more):
        return self.wrapped.sampler_function(model, x, sigmas, **more)


EULER = comfy.samplers.sampler_object("euler")
SAMPLERS = {
    "found by name": comfy.samplers.KSAMPLER(by_name),
    "an object that is called": comfy.samplers.KSAMPLER(Called(EULER)),
    "a bound method": comfy.samplers.KSAMPLER(Called(EULER).__call__),
    "a table of noises": comfy.samplers.KSAMPLER(ancestral),
    "a sampler in a sampler": comfy.samplers.KSAMPLER(around, extra_options={"wrapped": EULER}),
    "writes in place": comfy.samplers.KSAMPLER(in_place),
}


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_samplers_of_other_packs_are_exact(sampler):
    given = parts()
    plain = advanced(given, sampler)[0]["samples"]
    assert torch.equal(advanced(given, custom(given, sampler, 0))[0]["samples"], plain)
    still = custom(given, sampler, learning_rate=0.0)
    advanced(given, still)
    assert len(rewards(still.history)) == 1
    probe = Probe(sampler, steps=(1e-5, 1e-6))
    with doubles():
        sample(guider(SD15, build(SD15, torch.float64)), probe, (4, 8, 8), torch.float64)
    assert min(probe.errors) < 1e-6


WAYS = {
    "draws by numpy": lambda x: torch.from_numpy(np.random.randn(*x.shape)).to(x),
    "draws by torch's aten.randn_like": torch.ops.aten.randn_like,
    "draws by torch's rand_like": torch.rand_like,
}


@pytest.mark.parametrize(("told", "draw"), WAYS.items(), ids=WAYS)
def test_draws_that_cannot_be_moved_are_repeated_and_told(told, draw, caplog):
    @torch.no_grad()
    def drawing(model, x, sigmas, extra_args=None, callback=None, disable=None):
        x = model(x, sigmas[0] * x.new_ones([len(x)]), **(extra_args or {}))
        return x + 0.1 * draw(x)

    given = parts()
    climbing = custom(given, comfy.samplers.KSAMPLER(drawing), learning_rate=0.0)
    advanced(given, climbing)
    assert len(rewards(climbing.history)) == 1 and told in caplog.text


def test_a_whole_round_of_numpys_generator_is_a_draw():
    """Its place among 624 numbers is then the same."""
    np.random.seed(0)
    before, place = outside._positions(), np.random.get_state()[2]
    np.random.bytes(4 * 624)
    assert np.random.get_state()[2] == place and outside._positions() != before


def test_numbers_for_a_log_are_told_and_do_not_end_the_climb(caplog):
    @torch.no_grad()
    def logging_its_latents(model, x, sigmas, extra_args=None, callback=None, disable=None):
        x = model(x, sigmas[0] * x.new_ones([len(x)]), **(extra_args or {}))
        logging.info("mean %s", x.detach().cpu().numpy().mean())
        return x

    given = parts()
    climbing = custom(given, comfy.samplers.KSAMPLER(logging_its_latents))
    advanced(given, climbing)
    assert climbing.history.best.reward > climbing.history.records[0].reward
    assert "computes with numpy" in caplog.text


def test_draws_by_any_name_are_optimised():
    given = parts()
    climbing = custom(given, SAMPLERS["a table of noises"])
    advanced(given, climbing)
    assert len(climbing.history.best.noise.injected) == 3
    assert climbing.history.best.reward > climbing.history.records[0].reward


def test_a_cfg_function_that_writes_in_place_climbs():
    operation = LatentOperationTonemapReinhard.execute(1.0)[0]
    given = parts(lambda model: LatentApplyOperationCFG.execute(model, operation)[0])
    history = climb(given, iterations=4)[1]
    assert history.best.reward > history.records[0].reward


def test_noise_that_is_switched_off_is_not_optimised():
    class Off:
        seed = 0

        def generate_noise(self, latent):
            return torch.zeros(latent["samples"].shape)

    given = parts()
    with pytest.raises(ValueError, match="noise is switched off, and this sampler draws none"):
        advanced(given, custom(given, EULER), Off())
    climbing = custom(given, comfy.samplers.sampler_object("euler_ancestral"))
    advanced(given, climbing, Off())
    assert climbing.history.best.noise.initial.abs().max() == 0
    assert climbing.history.best.reward > climbing.history.records[0].reward


class Packed(torch.Tensor):
    """A weight in a tensor class of its own, unwrapped by `torch.Tensor(weight)`: GGUF's way."""

    def __new__(cls, *args, kind, **kwargs):
        return super().__new__(cls, *args, **kwargs)

    def __init__(self, *args, kind, **kwargs):
        super().__init__()
        self.kind = kind

    def detach(self):
        return self

    def clone(self, *args, **kwargs):
        return self

    def to(self, *args, **kwargs):
        new = super().to(*args, **kwargs)
        new.kind = self.kind
        return new


class PackedLinear(comfy.ops.manual_cast.Linear):
    """A layer whose class makes its weight, of eight bits a number, for each product: GGUF's."""

    def cast_bias_weight(self, input=None, dtype=None, device=None):
        codes = self.weight.to(device or input.device).as_subclass(torch.Tensor)
        return codes.to(dtype or input.dtype) * self.weight.kind, self.bias

    def forward(self, x):
        return torch.nn.functional.linear(x, *self.cast_bias_weight(x))


def in_eight_bits(model, packed: bool):
    """Linear layers in 255 levels, unpacked for each product or beforehand."""
    for layer in model.model.diffusion_model.modules():
        if type(layer).__name__ == "Linear":
            weight = layer.weight.detach()
            step = float(weight.abs().max()) / 127
            codes = (weight / step).round().to(torch.int8)
            weight = Packed(codes, kind=step) if packed else codes * step
            layer.weight = torch.nn.Parameter(weight, requires_grad=False)
            layer.__class__ = PackedLinear if packed else type(layer)
    return model


def packed(model):
    for layer in model.model.diffusion_model.modules():
        if type(layer).__name__ == "Linear" and layer.bias is not None:
            bias = Packed(layer.bias.detach().clone(), kind="F32")
            layer.bias = torch.nn.Parameter(bias, requires_grad=False)
            layer.forward = lambda x, of=layer: torch.nn.functional.linear(
                x, of.weight, torch.Tensor(of.bias.to(x.device))
            )
    return model


@pytest.mark.parametrize("memory", ["automatic", "blocks"])
def test_weights_in_a_tensor_class_of_their_own_climb(memory):
    options = Options(memory=memory)
    plain, own = (climb(parts(p), 2, options=options)[1] for p in (lambda model: model, packed))
    assert [float(r.reward) for r in own.records] == pytest.approx(
        [float(r.reward) for r in plain.records], rel=1e-4
    )


@pytest.mark.parametrize("level", [Level.RECORDED, Level.CALL, Level.KEPT, Level.SPLIT])
def test_packed_weights_have_the_gradient_of_the_unpacked(level, monkeypatch):
    found, fetched, fetch = [], [], weights._Fetch.__call__
    monkeypatch.setattr(weights._Fetch, "__call__", lambda s: fetched.append(s) or fetch(s))
    for packs in (False, True):
        model = parts(functools.partial(in_eight_bits, packed=packs))[0]
        probe = Probe(level=level)
        sample(guider(SD15, model), probe, SD15.latent)
        found.append(probe.gradient)
        assert bool(fetched) is packs  # never kept: unpacked again in backward
    assert difference(found[1], found[0]) < 1e-5
