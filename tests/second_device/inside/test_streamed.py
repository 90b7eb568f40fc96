"""VAE and judges whose weights come and go: pictures and gradients are the resident ones."""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import comfy.model_management as management
import pytest
import torch

from ComfyUI_DNO.nodes.host.judges.clip_vision import as_encoder
from ComfyUI_DNO.nodes.host.ordinary import ordinary_modules
from ComfyUI_DNO.nodes.host.picture import decode, plan
from ComfyUI_DNO.nodes.host.picture.tiles import Tiles
from ComfyUI_DNO.nodes.host.sampling.weights import Weights
from ComfyUI_DNO.rewards.image_similarity import ImageSimilarity

from ...support import tiny, vaes
from ...support.examples import picture
from ...support.tiny_encoders import host_vision
from ..climbing import climb, unload
from ..streaming import one_buffer

KINDS = {"TAESD": tiny.vae, "SDXL": lambda: vaes.build("SD, SDXL")}
HOSTS = ["clip", "siglip", "dinov2"]
SHAPE = torch.Size((1, 4, 8, 8))
WAYS = {"whole": 0, "blocks": 1, "tiles": 2}


@contextmanager
def live(patcher, network, streams: bool) -> Iterator[Weights]:
    """The network loaded, with ordinary weights, on the device or streamed through one buffer."""
    unload()
    state = management.VRAMState
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setattr(management, "vram_state", state.NO_VRAM if streams else state.NORMAL_VRAM)
        with torch.inference_mode():
            management.load_models_gpu([patcher])
        buffer = stack.enter_context(one_buffer()) if streams else None
        stack.enter_context(ordinary_modules([network]))
        weights = Weights()
        stack.enter_context(weights.watched([network]))
        yield weights
        assert buffer is None or buffer.casts > 5


def pulled(call, given):
    """(answer, gradient) on the CPU."""
    leaf = given.to(management.get_torch_device()).requires_grad_()
    answer = call(leaf)
    (gradient,) = torch.autograd.grad(answer.square().sum(), leaf)
    return answer.detach().cpu(), gradient.cpu()


def assert_same(got, expected):
    torch.testing.assert_close(got[0], expected[0], rtol=0, atol=1e-6)
    assert (got[1] - expected[1]).norm() <= 1e-5 * expected[1].norm()
    assert expected[1].norm() > 0


@pytest.fixture(scope="module")
def vae_of():
    """A VAE of a kind, always the same one: what it takes to decode is measured once."""
    return functools.cache(lambda kind: KINDS[kind]())


def pulled_through(vae, way: str, streams: bool):
    with live(vae.patcher, vae.first_stage_model, streams) as weights:
        again = weights.of(vae.first_stage_model)
        assert (again is not None) is streams
        decoder = decode.Decoder(vae, lambda latent: latent, again=again)
        ways = decoder._measured().ways(SHAPE)
        tiles = Tiles(5, 5, 2, decoder._measured().scale)
        ways = [*ways[:2], plan.Way(1, ways[1].blocks, tiles, 4, exact=False)]
        assert ways[1].blocks
        decoder._ways, decoder._shape = [ways[WAYS[way]]], SHAPE
        latent = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
        return pulled(decoder, latent)


@pytest.mark.parametrize(
    "kind, way", [*itertools.product(["TAESD"], WAYS), ("SDXL", "whole"), ("SDXL", "blocks")]
)
def test_a_streamed_vae_has_the_resident_gradient(kind, way, vae_of):
    vae = vae_of(kind)
    expected = pulled_through(vae, way, streams=False)
    assert_same(pulled_through(vae, way, streams=True), expected)


def test_what_decoding_takes_does_not_hold_the_weights_that_are_streamed(vae_of, monkeypatch):
    monkeypatch.setattr(plan, "_known", weakref.WeakKeyDictionary())
    vae, found = vae_of("TAESD"), []
    for streams in (False, True):
        with live(vae.patcher, vae.first_stage_model, streams):
            found.append(plan.measured(vae, decode.Decoder(vae, lambda latent: latent)._decode))
        plan._known.clear()
    resident, streamed = found
    assert replace(streamed, by_head=None) == replace(resident, by_head=None)
    layer = max(weight.nbytes for weight in vae.first_stage_model.parameters())
    area = (max(plan.PROBES) // resident.scale) ** 2
    # The head's peak is in a convolution, with the weights at hand; held, nine and more would be.
    assert streamed.by_head(area) - resident.by_head(area) < 2 * layer


@pytest.fixture
def on_the_device(monkeypatch):
    """CLIP_VISION computes on the device, as with --gpu-only."""
    monkeypatch.setattr(management, "text_encoder_device", management.get_torch_device)


@pytest.mark.parametrize("kind", HOSTS)
def test_a_streamed_clip_vision_has_the_resident_gradient(kind, on_the_device):
    host = host_vision(kind)
    encoder, found = as_encoder(host), []

    def seen(image):
        return torch.cat([part.flatten() for part in encoder.see(encoder.preprocess(image))])

    for streams in (False, True):
        with (
            live(host.patcher, host.model, streams) as weights,
            encoder.fetching(weights.of(encoder)),
        ):
            found.append(pulled(seen, picture(1)))
    assert_same(found[1], found[0])


def climbed(host, vae):
    """(latent, noise) of a climb towards a picture as CLIP_VISION sees it, on the CPU."""
    unload()
    wanted = ImageSimilarity(encoder=as_encoder(host), reference=picture(1, seed=7))
    latent, history = climb(vae=vae, reward=wanted)
    assert len(history.records) == 2
    return latent, history.records[-1].reward, history.best.noise.initial


def test_a_climb_whose_weights_are_all_streamed_is_the_resident_one(
    vae_of, on_the_device, monkeypatch
):
    """The network, the VAE and the judge, each through the same buffer."""
    host, vae = host_vision("clip"), vae_of("TAESD")
    expected = climbed(host, vae)
    monkeypatch.setattr(management, "vram_state", management.VRAMState.NO_VRAM)
    with one_buffer() as buffer:
        got = climbed(host, vae)
    assert buffer.casts > 100
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
