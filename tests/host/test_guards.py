"""Attention and kernels that have no backward give way to those that have, where it is needed."""

from __future__ import annotations

import comfy.model_management
import pytest
import torch
from comfy.ldm.modules import attention as host

from ComfyUI_DNO.nodes.host import compat
from ComfyUI_DNO.nodes.host.sampling import guards

from ..support import families
from ..support.families import FAMILIES, build
from ..support.family_probe import Probe, difference, sample

FLUX = FAMILIES["Flux"]


def rounds_and_cuts(function, q, k, v, *args, **kwargs):
    """A user's attention override whose kernel cuts the gradient, and rounds."""
    return function(q.detach().half().float(), k.detach(), v.detach(), *args, **kwargs)


def attention_sage(q, k, v, *args, **kwargs):
    raise NotImplementedError("this kernel has no backward")


def temper(function, q, k, v, *args, **kwargs):
    """A user's attention override that differentiates: it must not be replaced."""
    return function(q * 0.7, k, v, *args, **kwargs)


def run(override=None):
    model, probe = build(FLUX), Probe()
    if override is not None:
        options = model.model_options["transformer_options"]
        options["optimized_attention_override"] = override
    plain = sample(families.guider(FLUX, model), "euler", FLUX.latent)
    assert torch.equal(sample(families.guider(FLUX, model), probe, FLUX.latent), plain)
    return probe.gradient


def test_an_attention_without_a_backward_is_replaced_where_the_gradient_is_taken():
    assert difference(run(rounds_and_cuts), run()) < 1e-2


def test_an_attention_with_a_backward_stays():
    step = 1e-2
    model, probe = build(FLUX), Probe(steps=(step,))
    model.model_options["transformer_options"]["optimized_attention_override"] = temper
    sample(families.guider(FLUX, model), probe, FLUX.latent)
    assert probe.errors[0] < 1e-3
    assert difference(probe.gradient, run()) > 1e-2


def test_comfyuis_own_opaque_attention_is_replaced(monkeypatch):
    monkeypatch.setattr(host, "optimized_attention", attention_sage)
    options = guards.differentiable_options({}, None)
    attend = options["transformer_options"]["optimized_attention_override"]
    q = torch.randn(1, 4, 8, requires_grad=True)
    out = attend(attention_sage, q, q, q, 2)
    torch.testing.assert_close(out, host.attention_pytorch(q, q, q, 2))
    assert out.requires_grad
    with torch.no_grad(), pytest.raises(NotImplementedError):
        attend(attention_sage, q, q, q, 2)  # pictures are made by the user's own kernel


def test_training_is_believed_for_the_gradient_alone():
    seen = []

    def evaluate(model, conds):
        seen.append((torch.is_grad_enabled(), comfy.model_management.in_training))

    before = getattr(comfy.model_management, "in_training", None)
    with compat.training():
        guards.kernels(evaluate, torch.nn.Identity(), [None])
        with torch.no_grad():
            guards.kernels(evaluate, torch.nn.Identity(), [None])
    assert seen == [(True, True), (False, False)]
    assert getattr(comfy.model_management, "in_training", None) is before


def test_several_devices_become_one():
    options = {"multigpu_clones": {"another": object()}, "transformer_options": {"kept": 1}}
    differentiable = guards.differentiable_options(options, None)
    assert "multigpu_clones" not in differentiable and "multigpu_clones" in options
    assert differentiable["transformer_options"]["kept"] == 1


@pytest.mark.skipif(not compat.comfy_kitchen, reason="this ComfyUI has no comfy-kitchen")
def test_fused_kernels_become_plain_torch():
    q, angles = torch.randn(1, 2, 5, 8, requires_grad=True), torch.randn(1, 1, 5, 4, 2, 2)
    fused = compat.comfy_kitchen.apply_rope1(q, angles)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        torch.autograd.grad(fused.sum(), q)
    with guards.PlainKernels():
        plain = compat.comfy_kitchen.apply_rope1(q, angles)
    torch.testing.assert_close(plain, fused)
    assert torch.autograd.grad(plain.sum(), q)[0].abs().sum() > 0
