"""A tiny random VAE of every image decoder that ComfyUI has."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import comfy.ldm.cascade.stage_a
import comfy.ldm.cascade.stage_c_coder
import comfy.ldm.cosmos.vae
import comfy.ldm.genmo.vae.model
import comfy.ldm.hunyuan_video.vae
import comfy.ldm.hunyuan_video.vae_refiner
import comfy.ldm.lightricks.vae.causal_video_autoencoder as lightricks
import comfy.ldm.models.autoencoder as autoencoder
import comfy.ldm.wan.vae
import comfy.ldm.wan.vae2_2
import comfy.model_patcher
import comfy.pixel_space_convert
import comfy.sd
import comfy.taesd.taehv
import torch
from torch import nn

from . import tiny

KL = {
    "double_z": True, "z_channels": 4, "resolution": 64, "in_channels": 3, "out_ch": 3, "ch": 32,
    "ch_mult": [1, 2, 2, 2], "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
}  # fmt: skip
WAN = {
    "dim": 8, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": [],
    "temperal_downsample": [False, True, True],
}  # fmt: skip
COSMOS = {
    "z_channels": 16, "z_factor": 1, "latent_channels": 16, "resolution": 1024, "in_channels": 3,
    "out_channels": 3, "channels": 8, "channels_mult": [2, 4, 4], "num_res_blocks": 2,
    "attn_resolutions": [32], "dropout": 0.0, "patch_size": 4, "num_groups": 1,
    "temporal_compression": 8, "spacial_compression": 8,
}  # fmt: skip
_MODEL = "comfy.ldm.modules.diffusionmodules.model"
_GAUSSIAN = "comfy.ldm.models.autoencoder.DiagonalGaussianRegularizer"


def engine(module: str, sizes: dict, decoder: str = "", **more) -> nn.Module:
    return autoencoder.AutoencodingEngine(
        regularizer_config={"target": _GAUSSIAN},
        encoder_config={"target": f"{module}.Encoder", "params": sizes},
        decoder_config={"target": decoder or f"{module}.Decoder", "params": {**sizes, **more}},
    )


def hunyuan(module: str, widths: list[int], channels: int, spatial: int, **more) -> nn.Module:
    sizes = {
        "block_out_channels": widths, "in_channels": 3, "out_channels": 3, "num_res_blocks": 1,
        "ffactor_spatial": spatial, "z_channels": channels, **more,
    }  # fmt: skip
    return engine(f"comfy.ldm.hunyuan_video.{module}", sizes)


def refiner(refined: bool) -> nn.Module:
    widths = [32, 32, 64, 64, 64]
    return hunyuan("vae_refiner", widths, 32, 16, ffactor_temporal=4, refiner_vae=refined)


def ltxv(noisy: bool) -> nn.Module:
    blocks = [
        ["res_x", {"num_layers": 2, "inject_noise": noisy}],
        ["compress_all", {"residual": True, "multiplier": 1}],
        ["res_x", {"num_layers": 2}],
        ["compress_all", {"residual": True, "multiplier": 1}],
        ["res_x", {"num_layers": 1}],
        ["compress_all", {"residual": True, "multiplier": 1}],
        ["res_x", {"num_layers": 1}],
    ]
    encoder = [["res_x", {"num_layers": 1}], *([["compress_all", {}]] * 3)]
    config = {
        "dims": 3, "latent_channels": 128, "encoder_blocks": encoder, "decoder_blocks": blocks,
        "norm_layer": "pixel_norm", "patch_size": 4, "latent_log_var": "uniform",
        "causal_decoder": False, "timestep_conditioning": noisy,
    }  # fmt: skip
    net = lightricks.VideoVAE(config=config)
    for name, buffer in net.per_channel_statistics.named_buffers():
        buffer.fill_(0.0 if name == "mean-of-means" else 1.0)
    return net


class Mochi(comfy.ldm.genmo.vae.model.VideoVAE):
    """With a decoder of few channels; it takes no sizes."""

    def __init__(self):
        nn.Module.__init__(self)
        self.decoder = comfy.ldm.genmo.vae.model.Decoder(
            out_channels=3, base_channels=32, channel_multipliers=[1, 2, 2, 2],
            temporal_expansions=[1, 2, 3], spatial_expansions=[2, 2, 2],
            num_res_blocks=[1, 1, 1, 1, 1], latent_dim=12, has_attention=[False] * 5,
            padding_mode="replicate", output_norm=False,
        )  # fmt: skip


class Kind(NamedTuple):
    """How a decoder is made; the shape of one latent; pixels a number of it has."""

    make: Callable[[], nn.Module]
    latent: tuple[int, ...]
    scale: int
    raw: bool = False  # the decoder's output is the picture


KINDS = {
    "SD, SDXL": Kind(lambda: autoencoder.AutoencoderKL(embed_dim=4, ddconfig=KL), (4, 4, 5), 8),
    "Flux": Kind(lambda: engine(_MODEL, {**KL, "z_channels": 16}), (16, 4, 5), 8),
    "SD upscaler": Kind(lambda: engine(_MODEL, {**KL, "ch_mult": [1, 2, 2]}), (4, 6, 7), 4),
    "Flux 2": Kind(
        lambda: autoencoder.AutoencoderKL(
            embed_dim=4, ddconfig={**KL, "batch_norm_latent": True}
        ),
        (16, 2, 3),
        16,
    ),
    "SVD": Kind(
        lambda: engine(
            _MODEL, KL, "comfy.ldm.modules.temporal_ae.VideoDecoder", video_kernel_size=[3, 1, 1]
        ),
        (4, 4, 5),
        8,
    ),
    "TAESD": Kind(lambda: comfy.taesd.taesd.TAESD(latent_channels=4), (4, 4, 5), 8),
    "TAEHV": Kind(
        lambda: comfy.taesd.taehv.TAEHV(16, show_progress_bar=False), (16, 1, 3, 2), 8, True
    ),
    "Cascade, stage A": Kind(
        lambda: comfy.ldm.cascade.stage_a.StageA(bottleneck_blocks=2, c_hidden=16),
        (4, 6, 7),
        4,
        True,
    ),
    "Cascade, stage C": Kind(lambda: comfy.ldm.cascade.stage_c_coder.StageC_coder(), (16, 2, 3), 8),
    "Hunyuan Image": Kind(
        lambda: hunyuan("vae", [32, 32, 32, 64, 64, 64], 64, 32), (64, 2, 3), 32
    ),
    "Hunyuan Image refiner": Kind(lambda: refiner(True), (32, 1, 2, 3), 16),
    "HunyuanVideo 1.5": Kind(lambda: refiner(False), (32, 1, 2, 3), 16),
    "HunyuanVideo": Kind(
        lambda: autoencoder.AutoencoderKL(
            embed_dim=16, ddconfig={**KL, "z_channels": 16, "conv3d": True, "time_compress": 4}
        ),
        (16, 1, 4, 5),
        8,
    ),
    "Wan 2.1, Qwen-Image": Kind(
        lambda: comfy.ldm.wan.vae.WanVAE(z_dim=16, **WAN), (16, 1, 4, 5), 8
    ),
    "Wan 2.2": Kind(
        lambda: comfy.ldm.wan.vae2_2.WanVAE(z_dim=48, dec_dim=8, **WAN), (48, 1, 2, 3), 16
    ),
    "LTXV": Kind(lambda: ltxv(False), (128, 1, 2, 3), 32),
    "LTXV with noise": Kind(lambda: ltxv(True), (128, 1, 2, 3), 32),
    "Cosmos": Kind(
        lambda: comfy.ldm.cosmos.vae.CausalContinuousVideoTokenizer(**COSMOS), (16, 1, 4, 5), 8
    ),
    "Mochi": Kind(Mochi, (12, 1, 4, 5), 8),
    "pixels": Kind(comfy.pixel_space_convert.PixelspaceConversionVAE, (3, 32, 24), 1),
}  # fmt: skip


def build(name: str, dtype: torch.dtype = torch.float32, seed: int = 3) -> comfy.sd.VAE:
    """The host's VAE object around a tiny network; most of its loader's sizes are fixed."""
    kind = KINDS[name]
    vae = comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)})
    network = kind.make().eval()
    decoders = [part for key, part in network.named_children() if "encoder" not in key]
    for part in decoders:
        tiny.randomise(part, seed, scale=1.2)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d) and part.affine:
            nn.init.ones_(part.weight)
    network.to(dtype)
    vae.first_stage_model = network
    vae.patcher = comfy.model_patcher.ModelPatcher(
        network, load_device=vae.device, offload_device=vae.patcher.offload_device
    )
    vae.vae_dtype, vae.latent_channels = dtype, kind.latent[0]
    vae.latent_dim = len(kind.latent) - 1
    vae.upscale_ratio = kind.scale if vae.latent_dim == 2 else (lambda a: a, kind.scale, kind.scale)
    vae.memory_used_decode = lambda shape, dtype: 1
    if not kind.raw:
        # in place, as newer hosts do not look at what it returns
        vae.process_output = lambda image: image.add_(1.0).div_(2.0).clamp_(0.0, 1.0)
    else:
        vae.process_output = lambda image: image
    return vae


def latent(name: str, batch: int = 1, dtype: torch.dtype = torch.float32, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((batch, *KINDS[name].latent), generator=generator, dtype=torch.float64).to(
        dtype
    )
