"""Gradients are exact through what users patch onto a model, and the picture stays ComfyUI's."""

from __future__ import annotations

import comfy.cldm.cldm
import comfy.controlnet
import comfy.hooks
import comfy.ops
import comfy.samplers
import comfy.sd
import comfy_extras.nodes_apg
import comfy_extras.nodes_freelunch
import comfy_extras.nodes_model_advanced
import comfy_extras.nodes_pag
import comfy_extras.nodes_perpneg
import comfy_extras.nodes_sag
import pytest
import torch

from ..support import families
from ..support.families import FAMILIES, build, conditioning, randomise
from ..support.family_probe import Probe, difference, doubles, sample

FAMILY = FAMILIES["SD1.5"]
LADDER = (1e-4, 1e-5, 1e-6)
ATTENTION = "middle_block.1.transformer_blocks.0.attn{}.to_{}"


def gaussian(*shape: int, seed: int = 11) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def lora(model):
    """Low-rank weights for two layers, as a LoRA file holds them."""
    weights = {}
    for layer in (ATTENTION.format(1, "q"), ATTENTION.format(2, "out") + ".0"):
        rows, columns = model.get_model_object(f"diffusion_model.{layer}.weight").shape
        weights[f"diffusion_model.{layer}.lora_up.weight"] = gaussian(rows, 2)
        weights[f"diffusion_model.{layer}.lora_down.weight"] = 0.3 * gaussian(2, columns, seed=12)
    return weights


def with_lora(model):
    patched, _ = comfy.sd.load_lora_for_models(model, None, lora(model), 0.8, 0)
    return families.guider(FAMILY, patched)


def with_hooks(model):
    """A LoRA on one prompt of the first steps: weights change there, within one evaluation."""
    loras = comfy.hooks.create_hook_lora({}, 0.8, 0.0)
    loras.hooks[0].weights = lora(model)
    made = families.guider(FAMILY, model)
    early = conditioning(FAMILY, 4, end_percent=0.5)
    early = comfy.hooks.set_hooks_for_conditioning(early, loras)
    made.set_conds(conditioning(FAMILY, 1) + early, conditioning(FAMILY, 2))
    return made


def with_controlnet(model):
    options = {key: value for key, value in FAMILY.unet.items() if key != "out_channels"}
    for key in ("transformer_depth_output", "image_size"):
        options.pop(key)
    dtype = model.model.get_dtype()
    net = comfy.cldm.cldm.ControlNet(
        image_size=32,
        hint_channels=3,
        dtype=dtype,
        operations=comfy.ops.disable_weight_init,
        **options,
    ).eval()
    randomise(net, seed=1)
    control = comfy.controlnet.ControlNet(net, load_device=torch.device("cpu"))
    control.set_cond_hint(gaussian(1, 3, 64, 64).sigmoid().to(dtype), 0.7)
    return families.guider(FAMILY, model, control=control, control_apply_to_uncond=True)


class Features(torch.nn.Module):
    """A T2I adapter in one layer."""

    unshuffle_amount = 8

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 32, 8, stride=8)

    def forward(self, image):
        return {"input": [self.layer(image)]}


def with_t2i_adapter(model):
    net = Features()
    randomise(net, seed=1)
    adapter = comfy.controlnet.T2IAdapter(net, 3, 8, "nearest-exact")
    adapter.set_cond_hint(gaussian(1, 3, 64, 64).sigmoid(), 0.7)
    return families.guider(FAMILY, model, control=adapter, control_apply_to_uncond=True)


def with_image_prompt(model):
    """More keys and values for the cross attention, as an IP-Adapter brings them."""
    tokens, patched = gaussian(1, 3, families.WIDTH), model.clone()

    def attend(n, context, value, extra_options):
        more = tokens.to(context).expand(len(context), -1, -1) * n.mean((1, 2), keepdim=True).tanh()
        return n, torch.cat([context, more], 1), torch.cat([value, more * 0.5], 1)

    patched.set_model_attn2_patch(attend)
    return families.guider(FAMILY, patched)


def with_sag(model):
    node = comfy_extras.nodes_sag.SelfAttentionGuidance
    return families.guider(FAMILY, node.execute(model, 0.5, 2.0).result[0])


def with_pag(model):
    node = comfy_extras.nodes_pag.PerturbedAttentionGuidance
    return families.guider(FAMILY, node.execute(model, 3.0).result[0])


def with_rescaled_cfg(model):
    node = comfy_extras.nodes_model_advanced.RescaleCFG
    return families.guider(FAMILY, node().patch(model, 0.7)[0])


def with_apg(model):
    return families.guider(
        FAMILY, comfy_extras.nodes_apg.APG.execute(model, 0.5, 5.0, 0.3).result[0]
    )


def with_free_u(model):
    node = comfy_extras.nodes_freelunch.FreeU_V2
    arguments = (model, 1.3, 1.4, 0.9, 0.2)
    patched = (
        node.execute(*arguments).result if hasattr(node, "execute") else node().patch(*arguments)
    )
    return families.guider(FAMILY, patched[0])


def with_perp_neg(model):
    made = comfy_extras.nodes_perpneg.Guider_PerpNeg(model)
    made.set_conds(*(conditioning(FAMILY, seed) for seed in (1, 2, 3)))
    made.set_cfg(3.0, 0.8)
    return made


def with_regions(model):
    """One prompt everywhere, another in a masked corner and for the first half of the steps."""
    mask = torch.zeros(1, 8, 8)
    mask[:, 2:, 2:] = 1
    corner = conditioning(FAMILY, 4, area=(8, 8, 0, 0), strength=0.8, end_percent=0.5, mask=mask)
    made = families.guider(FAMILY, model)
    made.set_conds(conditioning(FAMILY, 1) + corner, conditioning(FAMILY, 2))
    return made


PATCHES = [
    with_lora,
    with_hooks,
    with_controlnet,
    with_t2i_adapter,
    with_image_prompt,
    with_sag,
    with_pag,
    with_rescaled_cfg,
    with_apg,
    with_free_u,
    with_perp_neg,
    with_regions,
]


@pytest.mark.parametrize("patch", PATCHES)
def test_the_gradient_is_exact_and_the_picture_comfyuis(patch):
    exact, probe = Probe(steps=LADDER), Probe()
    with doubles():
        sample(patch(build(FAMILY, torch.float64)), exact, FAMILY.latent, torch.float64)
    assert min(exact.errors) < 1e-6, exact.errors
    with torch.inference_mode():
        model = build(FAMILY)
        plain = sample(families.guider(FAMILY, model), "euler", FAMILY.latent)
        expected = sample(patch(model), "euler", FAMILY.latent)
        rendered = sample(patch(model), probe, FAMILY.latent)
        after = sample(families.guider(FAMILY, model), "euler", FAMILY.latent)
    assert torch.equal(rendered, expected)
    assert not torch.equal(expected, plain)
    assert torch.equal(after, plain)
    assert difference(probe.gradient, exact.gradient) < 1e-3
