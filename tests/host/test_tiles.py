"""What is decoded in tiles, and how a decoder falls from the whole to blocks and to tiles."""

from __future__ import annotations

import comfy.model_management as management
import comfy.utils
import pytest
import torch
from torch.nn.functional import cosine_similarity

from ComfyUI_DNO.dno.autograd.profile import Live
from ComfyUI_DNO.nodes.host.ordinary import ordinary_modules
from ComfyUI_DNO.nodes.host.picture import plan
from ComfyUI_DNO.nodes.host.picture.decode import Decoder
from ComfyUI_DNO.nodes.host.picture.plan import Growth
from ComfyUI_DNO.nodes.host.picture.tiles import Tiles, split
from ComfyUI_DNO.rewards import Darkness, Sharpness

from ..support import vaes


def same(latent):
    return latent


def noise(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.fixture(scope="module")
def vae():
    vae = vaes.build("SD, SDXL")
    with ordinary_modules([vae.first_stage_model]):
        yield vae


def pulled(decoder, latent, reward=None):
    """A picture, and the gradient of its reward by the latent, or of a random pull."""
    leaf = latent.clone().requires_grad_()
    image = decoder(leaf)
    score = reward(image) if reward else image * noise(*image.shape, dtype=image.dtype)
    (gradient,) = torch.autograd.grad(score.sum(), leaf)
    return image.detach(), gradient


@pytest.mark.parametrize("tile, overlap", [((8, 8), 2), ((6, 16), 3), ((20, 16), 2)])
def test_tiles_are_blended_as_comfyui_blends_them(vae, tile, overlap):
    latent = noise(2, 4, 20, 16)

    def decode(part):
        return vae.first_stage_model.decode(part)

    with torch.no_grad():
        ours = Tiles(*tile, overlap, 8)(decode, latent)
    theirs = comfy.utils.tiled_scale(latent, decode, tile[1], tile[0], overlap, 8)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_gradient_is_blended_as_the_picture_is():
    """Within a tile that of the tile alone, whole; where two overlap, their weighted mean."""
    vae = vaes.build("SD, SDXL", torch.float64)
    tiles, latent = Tiles(4, 8, 2, 8), noise(1, 4, 6, 8, dtype=torch.float64)
    with ordinary_modules([vae.first_stage_model]):
        decode = vae.first_stage_model.decode

        def gradient(decode, latent, pull):
            leaf = latent.clone().requires_grad_()
            return torch.autograd.grad(decode(leaf), leaf, pull)[0]

        pull = noise(1, 3, 48, 64, dtype=torch.float64)
        ours = gradient(lambda leaf: tiles(decode, leaf), latent, pull)
        first = gradient(decode, latent[..., :4, :], pull[..., :32, :])
        second = gradient(decode, latent[..., 2:, :], pull[..., 16:, :])
    torch.testing.assert_close(ours[..., :2, :], first[..., :2, :])
    torch.testing.assert_close(ours[..., 4:, :], second[..., 2:, :])
    share = torch.tensor([[2.0], [1.0]], dtype=torch.float64) / 3
    between = share * first[..., 2:, :] + (1 - share) * second[..., :2, :]
    torch.testing.assert_close(ours[..., 2:4, :], between)


def test_a_reward_of_the_whole_picture_climbs_in_tiles_as_in_the_whole(vae):
    """A normalisation's backward takes means: with those of a fading tile it is .06."""
    latent = noise(1, 4, 48, 40)
    with torch.inference_mode(False):
        decode = vae.first_stage_model.decode
        _, whole = pulled(decode, latent, Darkness())
        _, tiled = pulled(lambda leaf: Tiles(34, 40, 8, 8)(decode, leaf), latent, Darkness())
    assert cosine_similarity(tiled.flatten(), whole.flatten(), dim=0) > 0.98


def test_one_image_after_the_other_is_exact(vae):
    latent = noise(3, 4, 5, 6)
    whole, alone = Decoder(vae, same), Decoder(vae, same)
    image, gradient = pulled(whole, latent)
    ways = alone._measured().ways(latent.shape)
    (way,) = [way for way in ways if way.exact and way.tiles]
    alone._ways, alone._shape = [way], latent.shape
    same_image, same_gradient = pulled(alone, latent)
    torch.testing.assert_close(same_image, image, rtol=1e-5, atol=1e-6)
    assert cosine_similarity(same_gradient.flatten(), gradient.flatten(), dim=0) > 0.999999


@pytest.mark.parametrize("kind", ["demo", "SDXL"])
def test_tiles_climb_where_the_whole_would(kind, demo_model, vae):
    vae = demo_model[2] if kind == "demo" else vae
    latent = noise(1, vae.latent_channels, 48, 48)
    with torch.inference_mode(False), ordinary_modules([vae.first_stage_model]):
        image, gradient = pulled(Decoder(vae, same), latent)
        tiled = Decoder(vae, same)
        (way, *_) = [way for way in tiled._measured().ways(latent.shape) if not way.exact]
        tiled._ways, tiled._shape = [way], latent.shape
        seams, close = pulled(tiled, latent)
    assert way.count > 1
    assert not torch.equal(seams, image)
    assert cosine_similarity(close.flatten(), gradient.flatten(), dim=0) > 0.99


def test_a_reward_climbs_through_the_smallest_tiles_as_through_the_whole(demo_model):
    """At 448 px, in as many tiles as SDXL's decoder at 2048; benchmarks/tiles.py has 1024 px."""
    vae = demo_model[2]
    latent = noise(1, vae.latent_channels, 56, 56)
    with torch.inference_mode(False), ordinary_modules([vae.first_stage_model]):
        _, gradient = pulled(Decoder(vae, same), latent, Sharpness())
        tiled = Decoder(vae, same)
        way = tiled._measured().ways(latent.shape)[-1]
        tiled._ways, tiled._shape = [way], latent.shape
        _, close = pulled(tiled, latent, Sharpness())
    assert way.count == 6
    assert cosine_similarity(close.flatten(), gradient.flatten(), dim=0) > 0.99


def test_what_decoding_takes_is_foreseen_from_a_small_decode(vae):
    decoder = Decoder(vae, same)
    ways = decoder._measured().ways((1, 4, 32, 24))
    for way in ways[:2]:
        decoder._ways, decoder._shape = [way], torch.Size((1, 4, 32, 24))
        leaf = noise(1, 4, 32, 24).requires_grad_()
        with Live() as live:
            torch.autograd.grad(decoder(leaf).sum(), leaf)
        assert live.peak == pytest.approx(way.bytes, rel=0.15)
    assert ways[1].bytes < 0.6 * ways[0].bytes
    tiled = decoder._measured().ways((1, 4, 256, 256))
    assert [way.bytes for way in tiled] == sorted((way.bytes for way in tiled), reverse=True)
    assert tiled[-1].bytes < 0.05 * tiled[1].bytes


def test_growth_goes_through_what_was_measured():
    grown = Growth.through((100, 400), (1000, 10000))
    assert grown(100) == pytest.approx(1000, abs=1)
    assert grown(400) == pytest.approx(10000, abs=1)
    assert grown(1000) > 25000  # it grows faster than the area
    assert Growth.through((9, 9), (90, 90))(18) == 180


@pytest.mark.parametrize(
    "side, tiles, overlap, tile", [(256, 2, 8, 132), (10, 3, 4, 6), (5, 1, 2, 5)]
)
def test_tiles_cover_a_side(side, tiles, overlap, tile):
    assert split(side, tiles, overlap) == tile


class Budget(Live):
    """Memory of so many bytes: one more is what a card says when it is full."""

    def __init__(self, limit: float):
        super().__init__()
        self.limit = limit

    def _count(self, tensor):
        super()._count(tensor)
        if self.now > self.limit:
            raise management.OOM_EXCEPTION(f"{self.now} bytes of {self.limit:.0f}")


def way_of(decoder):
    way = decoder.way
    return "tiles" if way.tiles else "blocks" if way.blocks else "whole"


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(plan, "LEAST_TILE", 80)
    monkeypatch.setattr(plan, "OVERLAPS", (16,))


@pytest.mark.parametrize("share, ends", [(1.2, "whole"), (0.8, "blocks"), (0.3, "tiles")])
def test_where_memory_runs_out_the_decoder_falls(vae, share, ends, caplog, small_tiles):
    latent = noise(1, 4, 24, 24)
    image, gradient = pulled(Decoder(vae, same), latent)
    whole = Decoder(vae, same)._measured().whole(24 * 24)
    decoder = Decoder(vae, same)
    with Budget(share * whole):
        decoded, close = pulled(decoder, latent)
        assert way_of(decoder) == ends
        again, _ = pulled(decoder, latent)  # without falling once more
    assert ends == "tiles" or torch.equal(decoded, again)
    assert (ends == "whole") is not ("ran out of memory" in caplog.text)
    if ends != "tiles":
        assert torch.equal(decoded, image)
    assert cosine_similarity(close.flatten(), gradient.flatten(), dim=0) > 0.95  # small tiles


def test_memory_that_fits_no_tile_is_told(vae, small_tiles):
    decoder = Decoder(vae, same)
    with Budget(2e6), pytest.raises(management.OOM_EXCEPTION):
        pulled(decoder, noise(1, 4, 24, 24))


@pytest.mark.parametrize("share, ends", [(1.0, "whole"), (0.99, "blocks"), (0.2, "tiles")])
def test_room_decides_the_way_before_memory_runs_out(vae, share, ends, small_tiles):
    latent = noise(1, 4, 24, 24)
    whole = Decoder(vae, same)._measured().whole(24 * 24)
    decoder = Decoder(vae, same, room=share * whole + 1)
    foreseen = decoder.way_for(latent.shape)
    with torch.no_grad():
        picture = decoder(latent)
    assert way_of(decoder) == ends
    assert decoder.way == foreseen
    assert decoder.picture_for(latent.shape).shape == picture.shape
    assert bool(decoder.text()) is (ends != "whole")


@pytest.mark.parametrize("images", [1, 3])
def test_seams_are_the_last_resort(vae, images, small_tiles):
    """What is exact may take more than half of the memory before a picture is tiled."""
    shape = torch.Size([images, 4, 24, 24])
    least = Decoder(vae, same).memory(shape)
    ways = [Decoder(vae, same, room=share * least).way_for(shape) for share in (0.6, 0.58)]
    assert [way.exact for way in ways] == [True, False]
    assert ways[0].bytes == least and ways[0].blocks
    tiled = [way for way in Decoder(vae, same)._measured().ways(shape) if not way.exact]
    for way in tiled:
        assert Decoder(vae, same, room=0.6 * way.bytes).way_for(shape) == way


def test_tiles_share_much_and_small_ones_less(vae):
    """The farther from a seam, the more a tile's picture and gradient are the whole's."""
    ways = Decoder(vae, same)._measured().ways((1, 4, 128, 96))
    tiles = [way.tiles for way in ways if not way.exact]
    assert [tile.overlap for tile in tiles] == sorted((t.overlap for t in tiles), reverse=True)
    assert {tile.overlap * tile.scale for tile in tiles} == set(plan.OVERLAPS)
    areas = [tile.height * tile.width for tile in tiles]
    assert areas == sorted(areas, reverse=True)
    assert all(min(tile.height, tile.width) > 2 * tile.overlap for tile in tiles)


def test_a_multiple_of_the_batch_is_decoded_batch_by_batch(vae):
    decoder, latent = Decoder(vae, same), noise(6, 4, 4, 5)
    with torch.no_grad():
        decoder(latent[:2])
        parts = torch.cat([decoder(part) for part in latent.split(2)])
        assert torch.equal(decoder(latent), parts)
