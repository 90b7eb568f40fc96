"""Half and quantised weights: gradients point where those of float32 do."""

from __future__ import annotations

import functools
import json

import comfy.ops
import comfy.supported_models
import pytest
import torch

from ComfyUI_DNO.dno.noise import Noise
from ComfyUI_DNO.nodes.host.sampling.plan import Level

from ..support import families
from ..support.families import FAMILIES, build
from ..support.family_probe import Probe, cosine, sample
from .test_families import KNOWN, assert_untouched, state

every_family = pytest.mark.parametrize("name", KNOWN)
FEW = ["SD1.5", "Flux", "Wan 2.1", "Qwen-Image"]
FP8 = torch.float8_e4m3fn
HALF = {torch.bfloat16: 0.9, torch.float16: 0.9999}  # how close a gradient is to float32's


def gradient(name: str, model, level: Level = Level.CALL) -> tuple[torch.Tensor, ...]:
    probe = Probe(level=level)
    sample(families.guider(FAMILIES[name], model), probe, FAMILIES[name].latent)
    assert all(g.isfinite().all() for g in probe.gradient)
    return probe.gradient


@functools.cache
def reference(name: str) -> tuple[torch.Tensor, ...]:
    return gradient(name, build(FAMILIES[name]))


@every_family
def test_weights_in_half_precision_computing_in_float32(name):
    with torch.inference_mode():
        model = build(FAMILIES[name], torch.float16, torch.float32)
        before = state(model)
        assert cosine(gradient(name, model), reference(name)) > 0.9999
        assert_untouched(before)


@functools.cache
def in_half(name: str, dtype: torch.dtype, level: Level) -> tuple[torch.Tensor, ...]:
    with torch.inference_mode():
        model = build(FAMILIES[name], dtype)
    return gradient(name, model, level)


@every_family
@pytest.mark.parametrize("dtype", HALF)
def test_computing_in_half_precision(name, dtype):
    """Timesteps of a thousand in bfloat16 make some of these random networks other networks."""
    assert cosine(in_half(name, dtype, Level.CALL), reference(name)) > HALF[dtype]


@pytest.mark.parametrize("level", [Level.KEPT, Level.SPLIT])
@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", FEW)
def test_computing_in_half_precision_block_by_block(name, dtype, level):
    got = in_half(name, dtype, level)
    assert cosine(got, reference(name)) > HALF[dtype]
    assert cosine(got, in_half(name, dtype, Level.CALL)) > 0.999


FAINT = 2.0**-27  # fp16 has no number below 2**-24


class Pulled(Probe):
    """The gradients of two images, of which the second is pulled that much fainter."""

    def __init__(self, faint: float = 1.0, level: Level = Level.CALL):
        super().__init__(level=level)
        self._faint = faint

    def _probe(self, noise):
        two = Noise(torch.cat([noise.initial, noise.initial.flip(-1)]))
        rendered = self.latent = self.sampling.render(two)
        sizes = torch.tensor([1.0, self._faint]).reshape(-1, *[1] * (rendered.ndim - 1))
        self.gradient = torch.autograd.grad((rendered.sin() * sizes).sum(), two.leaves())


def pulled(name: str, dtype: torch.dtype, **how) -> torch.Tensor:
    family, probe = FAMILIES[name], Pulled(**how)
    with torch.inference_mode():
        sample(families.guider(family, build(family, dtype)), probe, family.latent)
    return probe.gradient[0]


@pytest.mark.parametrize("name", ["SD3", "Flux"])
def test_a_faint_gradient_comes_through_a_network_in_half_precision(name):
    """No bit of it is lost, whatever its neighbour's; the rest is the network's own rounding."""
    exact = pulled(name, torch.float32)
    for level in (Level.RECORDED, Level.CALL, Level.SPLIT):
        strong = pulled(name, torch.float16, level=level)
        faint = pulled(name, torch.float16, faint=FAINT, level=level)
        assert torch.equal(faint[0], strong[0]) and torch.equal(faint[1] / FAINT, strong[1])
        assert cosine((faint[1],), (exact[1],)) > 0.998


@pytest.mark.parametrize("name", FEW)
def test_weights_in_eight_bits(name):
    with torch.inference_mode():
        model = build(FAMILIES[name], FP8, torch.float32)
        before = state(model)
        got = gradient(name, model)
        assert_untouched(before)
    assert cosine(got, reference(name)) > 0.95


def quantised(name: str):
    """The reference's weights as a checkpoint with quantised linear layers holds them."""
    family = FAMILIES[name]
    weights = build(family).model.diffusion_model.state_dict()
    quantise = {}
    for module_name, module in build(family).model.diffusion_model.named_modules():
        if isinstance(module, torch.nn.Linear) and "blocks" in module_name:
            weight = weights[f"{module_name}.weight"]
            weights[f"{module_name}.weight_scale"] = weight.abs().max() / 448
            weights[f"{module_name}.input_scale"] = torch.tensor(0.02)
            weights[f"{module_name}.weight"] = (weight / weight.abs().max() * 448).to(FP8)
            quantise[module_name] = {"format": "float8_e4m3fn"}
            weights[f"{module_name}.comfy_quant"] = torch.tensor(
                list(json.dumps(quantise[module_name]).encode()), dtype=torch.uint8
            )
    config = getattr(comfy.supported_models, family.config)(family.options())
    config.unet_config.update(family.options())
    config.set_inference_dtype(torch.float32, torch.float32)
    config.layer_quant_config = config.quant_config = quantise
    model = config.get_model({}, device=torch.device("cpu"))
    missing, unexpected = model.diffusion_model.load_state_dict(weights, strict=False)
    assert not missing
    return families.patcher(model)


@pytest.mark.parametrize("name", ["SD1.5", "Flux"])
@pytest.mark.parametrize("native", [False, True])
def test_quantised_layers(name, native, monkeypatch):
    """native: the device multiplies in fp8, inputs being quantised as well."""
    monkeypatch.setattr(comfy.model_management, "supports_fp8_compute", lambda device=None: native)
    with torch.inference_mode():
        model = quantised(name)
        plain = sample(families.guider(FAMILIES[name], model), "euler", FAMILIES[name].latent)
        before = state(model)
        got = gradient(name, model)
        assert_untouched(before)
        rendered = sample(families.guider(FAMILIES[name], model), Probe(), FAMILIES[name].latent)
    if native:  # else newer ComfyUI rounds otherwise in inference mode than out of it, by itself
        assert torch.equal(rendered, plain)
    torch.testing.assert_close(rendered, plain, rtol=1e-4, atol=1e-2)
    assert cosine(got, reference(name)) > 0.95
