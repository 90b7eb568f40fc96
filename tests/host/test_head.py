"""What is done for the whole picture before its decoder goes on in tiles."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ComfyUI_DNO.nodes.host.ordinary import ordinary_modules
from ComfyUI_DNO.nodes.host.picture.decode import Decoder
from ComfyUI_DNO.nodes.host.picture.head import find_head, possible_heads
from ComfyUI_DNO.nodes.host.picture.plan import Way
from ComfyUI_DNO.nodes.host.picture.tiles import Tiles
from ComfyUI_DNO.rewards import Sharpness

from ..support import vaes

COUNTED = "SD, SDXL", "Flux", "Wan 2.1, Qwen-Image", "Wan 2.2", "HunyuanVideo", "TAESD"
"""Of which benchmarks/decoders.py takes the first that is possible, as it has no numbers."""


def same(latent):
    return latent


def pulled(picture, leaf, reward):
    return torch.autograd.grad(reward(picture).sum(), leaf)[0]


def cosine(a, b):
    return torch.cosine_similarity(a.flatten(), b.flatten(), dim=0).item()


@pytest.mark.parametrize("name", [name for name in vaes.KINDS if name != "pixels"])
def test_a_head_and_the_rest_are_the_decoder(name):
    """Picture and gradient, of every decoder that ComfyUI has: found by structure."""
    vae, latent = vaes.build(name), vaes.latent(name)
    with torch.inference_mode(False), ordinary_modules([vae.first_stage_model]):
        decoder = Decoder(vae, same)
        blocks = decoder._measured().blocks if name in COUNTED else frozenset()
        head = find_head(vae.first_stage_model, decoder._plain, latent, blocks)
        leaf = latent.clone().requires_grad_()
        whole = decoder._plain(leaf)
        features = head.features(decoder._plain, leaf)
        picture = head.rest(decoder._plain, features, latent)
        gradients = [pulled(made, leaf, torch.square) for made in (whole, picture)]
    assert features.shape[-1] == head.ratio * latent.shape[-1]
    first = possible_heads(vae.first_stage_model, decoder._plain, latent, blocks)[0]
    assert first == head or name not in COUNTED
    torch.testing.assert_close(picture, whole)
    torch.testing.assert_close(*gradients)


class Skipping(nn.Module):
    """A decoder that goes back to what was there before its middle."""

    def __init__(self, far: bool):
        super().__init__()
        self.start, self.middle = nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.up, self.far = nn.Sequential(nn.Upsample(scale_factor=8), nn.Conv2d(8, 3, 1)), far

    def forward(self, latent):
        first = self.start(latent)
        last = self.middle(first) + first
        beside = latent[:, :3].repeat_interleave(8, 2).repeat_interleave(8, 3) if self.far else 0
        return self.up(last) + beside


def test_a_head_is_all_that_the_rest_depends_on():
    latent = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    near, far = Skipping(far=False), Skipping(far=True)
    assert find_head(near, near, latent, frozenset()).module is near.start
    assert find_head(far, far, latent, frozenset()) is None


def test_a_head_does_not_end_within_a_block_that_is_recomputed():
    """Which would be left without its graph."""
    first, second = (nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))
    block = nn.Sequential(second, nn.Upsample(scale_factor=8), nn.Conv2d(4, 3, 1))
    network = nn.Sequential(first, block)
    latent = torch.randn(1, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    assert find_head(network, network, latent, frozenset()).module is second
    assert find_head(network, network, latent, frozenset([block])).module is first


@pytest.mark.parametrize("name", ["SD, SDXL", "Flux 2", "Wan 2.1, Qwen-Image"])
def test_tiles_that_go_on_from_a_head_are_closer_to_the_whole(name):
    kind, vae = vaes.KINDS[name], vaes.build(name)
    channels, *frames = kind.latent[:-2]
    height, width = (64 * 4 // kind.scale, 48 * 4 // kind.scale)
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(1, channels, *frames, height, width, generator=generator)
    tiles = Tiles(3 * height // 4, width, height // 4, kind.scale)
    with torch.inference_mode(False), ordinary_modules([vae.first_stage_model]):
        decoder, found = Decoder(vae, same), []
        head = decoder._measured().head
        for way in (Way(1), Way(1, tiles=tiles), Way(1, tiles=tiles, head=head)):
            decoder._ways, decoder._shape = [way], latent.shape
            leaf = latent.clone().requires_grad_()
            picture = decoder(leaf)
            found.append((picture.detach(), pulled(picture, leaf, Sharpness())))
    whole, without, with_head = found
    off = [(picture - whole[0]).norm().item() for picture, _ in (without, with_head)]
    angles = [1 - cosine(gradient, whole[1]) for _, gradient in (without, with_head)]
    assert off[1] < 0.9 * off[0]
    assert angles[1] < 0.75 * angles[0]
