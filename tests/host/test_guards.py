"""Attention and kernels that have no backward give way to those that have, where it is needed."""

from __future__ import annotations

import comfy.model_management
import pytest
import torch
from comfy.ldm.hydit import attn_layers
from comfy.ldm.modules import attention as host

from ComfyUI_DNO.dno.autograd.saved import Ledger
from ComfyUI_DNO.nodes.host import compat
from ComfyUI_DNO.nodes.host.sampling import guards
from ComfyUI_DNO.nodes.host.sampling.plan import Level

from ..support import families
from ..support.families import FAMILIES, build
from ..support.family_probe import Probe, difference, sample
from .test_families import KNOWN

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


@pytest.mark.skipif(
    host.optimized_attention is not host.attention_sub_quad, reason="this ComfyUI's is another"
)
@pytest.mark.parametrize("name", KNOWN)
def test_a_record_keeps_no_attention_matrix(name, monkeypatch):
    """Of ComfyUI's sub-quadratic attention, also where its caller hands no options on."""
    family, matrices, saved = FAMILIES[name], set(), set()
    attend, pack = host.efficient_dot_product_attention, Ledger.pack

    def attending(q, k, *args, **kwargs):
        matrices.add((*q.shape[:2], k.shape[-1]))
        return attend(q, k, *args, **kwargs)

    def packing(ledger, tensor):
        saved.add(tuple(tensor.shape))
        return pack(ledger, tensor)

    monkeypatch.setattr(host, "efficient_dot_product_attention", attending)
    monkeypatch.setattr(Ledger, "pack", packing)
    model, probe = build(family), Probe(level=Level.RECORDED)
    plain = sample(families.guider(family, model), "euler", family.latent, steps=1)
    picture = sample(families.guider(family, model), probe, family.latent, steps=1)
    assert matrices and saved and not matrices & saved
    if name == "Cosmos":  # torch multiplies its text another way where a gradient is wanted
        torch.testing.assert_close(picture, plain, rtol=1e-4, atol=1e-4)
    else:
        assert torch.equal(picture, plain)


class Dropped(Exception):
    """A run that fails."""


@pytest.mark.parametrize("level", [Level.RECORDED, Level.KEPT, Level.SPLIT])
def test_attention_without_a_backward_that_is_called_without_options(monkeypatch, level):
    """As Sage's is by HunyuanDiT; in calls and blocks that are computed again in backward too."""

    def attention_sage(*args, **kwargs):
        with torch.no_grad():
            return host.attention_sub_quad(*args, **kwargs)

    family = FAMILIES["HunyuanDiT"]
    expected, probe = Probe(level=level), Probe(level=level)
    sample(families.guider(family, build(family)), expected, family.latent)
    monkeypatch.setattr(attn_layers, "optimized_attention", attention_sage)
    plain = sample(families.guider(family, build(family)), "euler", family.latent)
    picture = sample(families.guider(family, build(family)), probe, family.latent)
    assert difference(probe.gradient, expected.gradient) < 1e-4
    assert torch.equal(picture, plain)
    assert attn_layers.optimized_attention is attention_sage


def test_what_stands_in_is_put_back_and_leaves_a_users_attention_to_it():
    before, temperings = attn_layers.optimized_attention, []

    def tempered(function, q, *args, **kwargs):
        temperings.append(1)
        return function(q * 0.7, *args, **kwargs)

    q = torch.randn(1, 4, 8, requires_grad=True)
    options = {"optimized_attention_override": guards.attention(tempered)}
    with pytest.raises(Dropped), guards.attention_everywhere():
        assert attn_layers.optimized_attention is not before
        out = attn_layers.optimized_attention(q, q, q, 2, transformer_options=options)
        torch.testing.assert_close(out, host.attention_pytorch(q * 0.7, q, q, 2))
        assert temperings == [1]
        raise Dropped
    assert attn_layers.optimized_attention is before


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
