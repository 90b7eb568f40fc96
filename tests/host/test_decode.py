"""Decoding with a gradient: the pictures of VAE Decode, and every pixel still movable."""

from __future__ import annotations

from contextlib import ExitStack

import comfy.ldm.models.autoencoder
import comfy.ldm.wan.vae
import comfy.sd
import pytest
import torch

from ComfyUI_DNO.dno.autograd.saved import writes_allowed
from ComfyUI_DNO.nodes.host.picture.decode import Decoder, recomputed_blocks
from ComfyUI_DNO.nodes.host.sampling.ordinary import ordinary_modules

from ..support import tiny


def video_vae(seed: int = 2) -> comfy.sd.VAE:
    """A random, narrow VAE of Wan's and Qwen-Image's kind, loaded as ComfyUI loads one."""
    net = comfy.ldm.wan.vae.WanVAE(
        dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[],
        temperal_downsample=[False, True, True],
    )  # fmt: skip
    tiny.randomise(net, seed)
    return comfy.sd.VAE(sd=dict(net.state_dict()))


def kl_vae(seed: int = 3) -> comfy.sd.VAE:
    """A random, narrow VAE of Stable Diffusion's kind."""
    sizes = {
        "double_z": True, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3,
        "ch": 32, "ch_mult": [1, 2, 2, 2], "num_res_blocks": 2, "attn_resolutions": [],
        "dropout": 0.0,
    }  # fmt: skip
    net = comfy.ldm.models.autoencoder.AutoencoderKL(embed_dim=4, ddconfig=sizes)
    tiny.randomise(net, seed, scale=0.7)
    config = {"params": {"embed_dim": 4, "ddconfig": sizes}}
    return comfy.sd.VAE(sd=dict(net.state_dict()), config=config)


CASES = {
    "KL": (kl_vae, (2, 4, 4, 5)),
    "TAESD": (tiny.vae, (2, 4, 4, 5)),
    "Wan, one frame": (video_vae, (1, 16, 1, 4, 5)),
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def case(request):
    make, shape = request.param
    with torch.inference_mode():
        vae = make()
    return vae, torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_pictures_are_those_of_vae_decode(case):
    vae, latent = case
    with torch.inference_mode():
        expected = vae.decode(latent)
        expected = (expected[:, 0] if expected.ndim == 5 else expected).movedim(-1, 1)
    with torch.no_grad():
        image = Decoder(vae, lambda latent: latent)(latent)
    assert image.shape == expected.shape
    assert torch.allclose(image, expected.float(), atol=1e-5)


def test_gradient_is_exact_inside_the_range(case):
    vae, latent = case
    with torch.inference_mode(False), ordinary_modules([vae.first_stage_model]):
        decode = Decoder(vae, lambda latent: latent)
        weights = torch.randn(1, 3, 32, 40, generator=torch.Generator().manual_seed(1))
        direction = torch.randn(latent.shape, generator=torch.Generator().manual_seed(2))

        def value(at):
            return (0.5 + 0.3 * torch.tanh(decode(at) - 0.5)).double().mul(weights).sum()

        leaf = latent.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(value(leaf), leaf)
        exact = float((gradient * direction).sum())
        with torch.no_grad():
            steps = [
                float(value(latent + h * direction) - value(latent - h * direction)) / (2 * h)
                for h in (1e-2, 3e-3, 1e-3)  # ReLUs bend over larger ones
            ]
    assert min(abs(step - exact) for step in steps) < 3e-2 * float(gradient.norm())


def test_recomputed_blocks_give_the_same_gradient_and_keep_less(case):
    vae, latent = case
    latent = latent.repeat_interleave(4, -1)  # activations, not weights, are what counts
    found = []
    with torch.inference_mode(False), ordinary_modules([vae.first_stage_model]) as resident:
        decode = Decoder(vae, lambda latent: latent)
        forwards = {id(m): "forward" in vars(m) for m in vae.first_stage_model.modules()}
        for recomputed in (False, True):
            with ExitStack() as stack:
                if recomputed:
                    stack.enter_context(recomputed_blocks(vae))
                leaf = latent.clone().requires_grad_()
                ledger = stack.enter_context(writes_allowed(resident))
                image = decode(leaf)
                kept = ledger.bytes
                pulled = torch.autograd.grad(image.square().sum(), leaf)[0]
                found.append((image.detach(), pulled, kept))
        assert forwards == {id(m): "forward" in vars(m) for m in vae.first_stage_model.modules()}
    (image, gradient, kept), (same_image, same_gradient, fewer) = found
    assert torch.equal(image, same_image)
    torch.testing.assert_close(same_gradient, gradient, rtol=1e-4, atol=1e-6)
    assert gradient.abs().max() > 0
    assert fewer < 0.6 * kept


def test_saturated_pixels_may_come_back_but_not_go_further():
    """Outside [0,1] a gradient of a reward passes if it leads inwards, and is zero otherwise."""
    from ComfyUI_DNO.nodes.host.picture.decode import _ClampInwards

    values = torch.tensor([-0.5, -0.5, 1.5, 1.5, 0.5, 0.5], requires_grad=True)
    wanted = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    image = _ClampInwards.apply(values)
    assert image.tolist() == [0.0, 0.0, 1.0, 1.0, 0.5, 0.5]
    (gradient,) = torch.autograd.grad(image, values, wanted)
    assert gradient.tolist() == [1.0, 0.0, 0.0, -1.0, 1.0, -1.0]
