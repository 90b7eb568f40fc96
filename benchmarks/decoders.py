"""Decoders at their published size, counted with their backward: whole, by blocks and in tiles."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

GB = 2**30
KL = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 256,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 128,
    "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_resolutions": [],
    "dropout": 0.0,
}
WAN = {
    "dim": 96,
    "z_dim": 16,
    "dim_mult": [1, 2, 4, 4],
    "num_res_blocks": 2,
    "attn_scales": [],
    "temperal_downsample": [False, True, True],
    "dropout": 0.0,
}


def _kl(**changes):
    from comfy.ldm.models.autoencoder import AutoencoderKL

    return AutoencoderKL(ddconfig={**KL, **changes}, embed_dim=changes.get("z_channels", 4))


def _flux():
    from comfy.ldm.models.autoencoder import AutoencodingEngine

    parts = "comfy.ldm.modules.diffusionmodules.model"
    sizes = {**KL, "z_channels": 16}
    return AutoencodingEngine(
        regularizer_config={"target": "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"},
        encoder_config={"target": f"{parts}.Encoder", "params": sizes},
        decoder_config={"target": f"{parts}.Decoder", "params": sizes},
    )


def _wan():
    from comfy.ldm.wan.vae import WanVAE

    return WanVAE(**WAN)


def _wan22():
    from comfy.ldm.wan.vae2_2 import WanVAE

    return WanVAE(**{**WAN, "dim": 160, "z_dim": 48})


def _taesd():
    from comfy.taesd.taesd import TAESD

    return TAESD(latent_channels=4)


def _hunyuan():
    return _kl(z_channels=16, conv3d=True, time_compress=4)


DECODERS = {  # name -> what makes it, channels (and frames) of its latent, pixels per number
    "SD1.5, SDXL": (_kl, (4,), 8),
    "SD3, Flux": (_flux, (16,), 8),
    "Wan 2.1, Qwen-Image": (_wan, (16, 1), 8),
    "Wan 2.2": (_wan22, (48, 1), 16),
    "HunyuanVideo": (_hunyuan, (16, 1), 8),
    "TAESD": (_taesd, (4,), 8),
}


def planned(name: str, side: int, room: float):
    """How the pack decodes a square picture within `room` GB, from small decodes as it plans."""
    import torch

    from ComfyUI_DNO.nodes.host.picture.head import Head
    from ComfyUI_DNO.nodes.host.picture.plan import PROBES, Growth, Measured

    _, channels, scale = DECODERS[name]
    areas = [(pixels // scale) ** 2 for pixels in PROBES]
    counts = [{"by_blocks": False}, {"by_blocks": True}, {"by_blocks": True, "head": True}]
    whole, by_block, by_head = (
        Growth.through(areas, [round(GB * decoder_count(name, p, **which)) for p in PROBES])
        for which in counts
    )
    head = Head(torch.nn.Identity())  # of the network that is made when it is counted
    features = 4.0 * 512  # bytes, about: of the widest, in fp32
    measured = Measured(frozenset([name]), whole, by_block, scale, head, by_head, features)
    return measured.within((1, *channels, side // scale, side // scale), room * GB)[0]


def decoder_count(
    name: str, side: int, by_blocks: bool, dtype=None, way=None, head: bool = False
) -> float:
    """GB at the peak of one decoding of a square picture and its backward, weights not counted.

    way: of the pack's, in tiles. head: only what is done for the whole before tiles.
    """
    import torch
    from counted import Counted, no_contents

    from ComfyUI_DNO.dno.autograd.blocks import by_block
    from ComfyUI_DNO.nodes.host.picture.head import possible_heads
    from ComfyUI_DNO.nodes.host.picture.plan import PROBES
    from ComfyUI_DNO.nodes.host.picture.repeatable import single_frame

    make, channels, scale = DECODERS[name]
    with no_contents(), torch.no_grad():
        with default_dtype(dtype or torch.bfloat16):
            network = make().requires_grad_(False)

        def latent(pixels: int):
            shape = (1, *channels, pixels // scale, pixels // scale)
            return torch.empty(shape, dtype=dtype or torch.bfloat16)

        z, found = latent(side), frozenset()
        if by_blocks:
            found = _blocks(network, latent(PROBES[-1]))  # where the pack finds them
        with single_frame(network), by_block(found):
            first = None
            if head or (way and way.head):
                first = possible_heads(network, network.decode, latent(PROBES[0]), found)[0]
            with Counted([*network.parameters(), z]) as counted:
                _pull(network, z, way and way.tiles, first, head)
    gc.collect()
    return counted.peak / GB


@contextmanager
def default_dtype(dtype) -> Iterator[None]:
    """Within, modules are made in `dtype`; tensors without contents cannot be moved to it."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _pull(network, z, tiles, first, alone: bool) -> None:
    """Decode `z` and pull it, in tiles or not; of a `first` head, or it alone."""
    import torch

    def decode(part):
        return network.decode(part).float()

    with torch.enable_grad():
        leaf = z.clone().requires_grad_()
        if alone:
            made = first.features(decode, leaf)
        elif tiles and first:
            rest, head = partial(first.rest, decode, like=z), partial(first.features, decode)
            made = tiles.finer(first.ratio)(rest, leaf, head)
        else:
            made = tiles(decode, leaf) if tiles else decode(leaf)
        torch.autograd.grad(made.sum(), leaf)


def _blocks(network, probe):
    import torch

    from ComfyUI_DNO.dno.autograd import profile, saved
    from ComfyUI_DNO.nodes.host.picture.repeatable import single_frame

    resident = frozenset(saved.address(weight) for weight in network.parameters())

    def run():
        return network.decode(probe.clone().requires_grad_())

    apart = patch.object(profile, "address", saved.address)
    with torch.enable_grad(), single_frame(network), apart:
        return profile.profile(network, run, resident).blocks()
