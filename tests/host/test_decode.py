"""Decoding with a gradient: exact, in half precision, and every pixel still movable."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from ComfyUI_DNO.nodes.host.picture import decode as module
from ComfyUI_DNO.nodes.host.picture.decode import Decoder
from ComfyUI_DNO.nodes.host.sampling.ordinary import ordinary_modules

from ..support import tiny, vaes


def pulled_back(vae, latent, pull):
    with torch.inference_mode(False), ordinary_modules([vae.first_stage_model]):
        leaf = latent.clone().requires_grad_()
        image = Decoder(vae, lambda latent: latent)(leaf)
        return torch.autograd.grad(image, leaf, pull)[0]


def cosines(first, second):
    """Of each image; in double, for these gradients are small."""
    return cosine_similarity(
        *(1e6 * g.double().flatten(1) / g.abs().max() for g in (first, second))
    )


def lengths(gradient):
    return gradient.double().flatten(1).norm(dim=1)


@pytest.mark.parametrize("kind, alike", [("SD", 0.999), ("TAESD", 0.995)])
def test_an_fp16_vae_has_the_gradient_of_fp32(kind, alike, monkeypatch):
    """The reward is the mean of 128 px, with weight 0.25, and a millionth of it.

    TAESD's ReLUs open and close by what fp16 rounds.
    """
    vae = vaes.build("SD, SDXL") if kind == "SD" else tiny.vae()
    latent = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    pull = torch.full((2, 3, 128, 128), 0.25 / (3 * 128 * 128))
    pull[1] *= 1e-6
    exact = pulled_back(vae, latent, pull)
    vae.first_stage_model.half()
    vae.vae_dtype = torch.float16
    half = pulled_back(vae, latent, pull)
    assert (cosines(half, exact) > alike).all()
    assert ((lengths(half) / lengths(exact) - 1).abs() < 0.05).all()
    monkeypatch.setattr(module, "scaled", lambda call: call)
    lost = pulled_back(vae, latent, pull)
    assert not lost[1].any()
    assert not cosines(lost, exact)[0] > 0.999


def test_saturated_pixels_may_come_back_but_not_go_further():
    """Outside [0,1] a gradient of a reward passes if it leads inwards, and is zero otherwise."""
    from ComfyUI_DNO.nodes.host.picture.decode import _ClampInwards

    values = torch.tensor([-0.5, -0.5, 1.5, 1.5, 0.5, 0.5], requires_grad=True)
    wanted = torch.tensor([1.0, -1.0, 1.0, -1.0, 1.0, -1.0])
    image = _ClampInwards.apply(values)
    assert image.tolist() == [0.0, 0.0, 1.0, 1.0, 0.5, 0.5]
    (gradient,) = torch.autograd.grad(image, values, wanted)
    assert gradient.tolist() == [1.0, 0.0, 0.0, -1.0, 1.0, -1.0]
