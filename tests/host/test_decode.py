"""Decoding with a gradient: exact, in half precision, and every pixel still movable."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from ComfyUI_DNO.nodes.host.ordinary import ordinary_modules
from ComfyUI_DNO.nodes.host.picture import decode as module
from ComfyUI_DNO.nodes.host.picture.decode import Decoder
from ComfyUI_DNO.nodes.host.picture.repeatable import recomputed

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


class Noting(nn.Module):
    """A block that goes by a note which the network takes away at the end, as LTXV's does."""

    def __init__(self):
        super().__init__()
        self.notes = {}

    def forward(self, x):
        return x.square() * (2 if threading.get_ident() in self.notes else 3)


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_block_finds_its_notes_again_in_whichever_thread(elsewhere):
    block, x, found = Noting(), torch.ones(3, requires_grad=True), []
    with recomputed([block], torch.device("cpu"), {}):
        block.notes[threading.get_ident()] = True
        y = block(x)
        block.notes.clear()
        block.notes["after"] = 1

        def pull():
            found.append(torch.autograd.grad(y.sum(), x)[0])

        thread = threading.Thread(target=pull)
        if elsewhere:
            thread.start()
            thread.join()
        else:
            pull()
    assert torch.equal(found[0], torch.full((3,), 4.0))
    assert block.notes == {"after": 1}
