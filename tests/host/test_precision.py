"""Half and quantised weights: gradients point where those of float32 do."""

from __future__ import annotations

import functools
import json

import comfy.ops
import comfy.supported_models
import pytest
import torch

from ComfyUI_DNO.nodes.host.sampling.plan import Level

from ..support import families
from ..support.families import FAMILIES, build
from ..support.family_probe import Probe, cosine, difference, sample
from .test_families import KNOWN, assert_untouched, state

every_family = pytest.mark.parametrize("name", KNOWN)
FEW = ["SD1.5", "Flux", "Wan 2.1", "Qwen-Image"]
FP8 = torch.float8_e4m3fn
HALF = {torch.bfloat16: 0.9, torch.float16: 0.9999}  # how close a gradient is to float32's


def gradient(name: str, model, level: Level = Level.CALL, size: float = 1.0):
    probe = Probe(level=level, size=size)
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


@pytest.mark.parametrize("level", [Level.RECORDED, Level.CALL, Level.KEPT, Level.SPLIT])
@pytest.mark.parametrize("name", ["SD1.5", "Flux"])
def test_a_small_gradient_survives_half_precision(name, level):
    """fp16 has no number below 6e-8; what a large picture's reward gives a latent is near it."""
    with torch.inference_mode():
        model = build(FAMILIES[name], torch.float16)
    small = [part / 1e-8 for part in gradient(name, model, level, size=1e-8)]
    assert difference(small, reference(name)) < 0.02


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
