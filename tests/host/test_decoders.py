"""Every decoder of ComfyUI, block by block: exact gradients, and less memory."""

from __future__ import annotations

import pytest
import torch

from ComfyUI_DNO.nodes.host.ordinary import ordinary_modules
from ComfyUI_DNO.nodes.host.picture import plan
from ComfyUI_DNO.nodes.host.picture.decode import Decoder
from ComfyUI_DNO.nodes.host.picture.plan import measured

from ..support import vaes


@pytest.fixture(autouse=True)
def small_probes(monkeypatch):
    """What is measured here is small already."""
    monkeypatch.setattr(plan, "PROBES", (24, 40))


every_decoder = pytest.mark.parametrize("name", vaes.KINDS)


def same(latent):
    return latent


def pulled(decoder, latent):
    """The decoded picture, before it is clamped, and a gradient of the latent."""
    leaf = latent.clone().requires_grad_()
    image, leaf = decoder.attempt(leaf)
    pull = torch.linspace(-1, 1, image.numel(), dtype=image.dtype).reshape(image.shape)
    (gradient,) = torch.autograd.grad(image, leaf, pull)
    return image.detach(), gradient


def slope(decoder, latent, direction, step: float):
    """The same along a direction, by central differences."""
    ahead, behind = (decoder.attempt(latent + h * direction)[0] for h in (step, -step))
    pull = torch.linspace(-1, 1, ahead.numel(), dtype=ahead.dtype).reshape(ahead.shape)
    return ((ahead - behind) * pull).sum() / (2 * step)


def forced(vae, latent, index: int) -> Decoder:
    """A decoder that goes one of its ways: 0 whole, 1 block by block."""
    decoder = Decoder(vae, same)
    decoder._ways = [decoder._measured().ways(latent.shape)[index]]
    return decoder


@every_decoder
def test_pictures_are_those_of_vae_decode(name):
    with torch.inference_mode():
        vae, latent = vaes.build(name), vaes.latent(name)
        torch.manual_seed(0)  # LTXV's noise
        expected = vae.decode(latent.clone())  # which an identity gives on and the host changes
        expected = (expected[:, 0] if expected.ndim == 5 else expected).movedim(-1, 1)
    with torch.no_grad():
        image = Decoder(vae, same)(latent)
    assert image.shape == expected.shape
    assert torch.allclose(image, expected.float().clamp(0, 1), atol=1e-5)
    assert expected.std() > 1e-3


KINKED = ("TAESD", "TAEHV")  # by their ReLUs
UNDIVIDED = ("pixels", "Cascade, stage C")  # no part of them keeps more than it is given


@every_decoder
def test_block_by_block_is_the_whole_exactly(name):
    vae = vaes.build(name, torch.float64)
    latent = vaes.latent(name, dtype=torch.float64)
    with ordinary_modules([vae.first_stage_model]):
        image, gradient = pulled(forced(vae, latent, 0), latent)
        direction = vaes.latent(name, dtype=torch.float64, seed=1)
        step, close = (1e-8, 1e-5) if name in KINKED else (1e-5, 1e-6)
        exact = slope(forced(vae, latent, 0), latent, direction, step)
        assert abs((gradient * direction).sum() - exact) < close * gradient.norm()
        if name in UNDIVIDED:
            assert not measured(vae, Decoder(vae, same)._decode).blocks
            return
        blocks = forced(vae, latent, 1)
        assert len(blocks.way.blocks) > 3
        same_image, same_gradient = pulled(blocks, latent)
    assert torch.equal(image, same_image)
    torch.testing.assert_close(same_gradient, gradient, rtol=1e-11, atol=1e-13)
