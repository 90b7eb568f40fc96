"""Tiny random models inside the real ComfyUI, and the plumbing to sample with them."""

from __future__ import annotations

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.samplers
import comfy.sd
import comfy.supported_models
import comfy.taesd.taesd
import torch

ModelType = comfy.model_base.ModelType

UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "num_heads": 2,
    "use_spatial_transformer": True,
    "context_dim": 16,
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "legacy": False,
    "dtype": torch.float32,
}


def randomise(module: torch.nn.Module, seed: int = 0, scale: float = 1.0) -> None:
    """Well-scaled random weights, those that are zero at the start included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            values = torch.randn(parameter.shape, generator=generator)
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
            parameter.copy_(values * scale / fan_in**0.5)


def patcher(model: torch.nn.Module) -> comfy.model_patcher.ModelPatcher:
    management = comfy.model_management
    device, offload = management.get_torch_device(), management.unet_offload_device()
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=offload)


def unet(prediction=ModelType.EPS, seed: int = 0) -> comfy.model_patcher.ModelPatcher:
    """A random UNet of SD1.5's kind with 0.3 M weights: prediction EPS, V_PREDICTION or FLOW."""
    config = comfy.supported_models.SD15(dict(UNET))
    if prediction == ModelType.FLOW:
        config.sampling_settings = {"shift": 3.0}
    model = comfy.model_base.BaseModel(config, model_type=prediction, device="cpu")
    randomise(model.diffusion_model, seed)
    return patcher(model)


def vae(channels: int = 4, seed: int = 1) -> comfy.sd.VAE:
    """A random TAESD decoder and encoder, loaded as ComfyUI loads one."""
    torch.manual_seed(seed)
    net = comfy.taesd.taesd.TAESD(latent_channels=channels)
    randomise(net, seed, scale=1.4)
    last = list(net.taesd_decoder.children())[-1]
    with torch.no_grad():  # pictures around mid-grey, few saturated
        last.bias.zero_()
        last.weight.mul_(0.1 / net.taesd_decoder(3 * torch.randn(2, channels, 8, 8)).std())
        last.bias.fill_(0.5)
    return comfy.sd.VAE(sd=dict(net.state_dict()))


def conditioning(seed: int, width: int = 16, tokens: int = 7, **extra):
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(1, tokens, width, generator=generator), dict(extra)]]


def guider(model, cfg: float = 3.0, **extra) -> comfy.samplers.CFGGuider:
    made = comfy.samplers.CFGGuider(model)
    made.set_conds(conditioning(1, **extra), conditioning(2, **extra))
    made.set_cfg(cfg)
    return made


def sigmas(
    model, sampler_name: str, steps: int = 4, scheduler: str = "normal", denoise: float = 1.0
):
    return comfy.samplers.KSampler(
        model,
        steps=steps,
        device="cpu",
        sampler=sampler_name,
        scheduler=scheduler,
        denoise=denoise,
        model_options=model.model_options,
    ).sigmas
