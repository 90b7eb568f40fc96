"""Diffusion models at their published size, as ComfyUI's model detection configures them.

Weights are not needed: `memory.py` measures on tensors without contents, `gpu.py` on random ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "use_spatial_transformer": True,
    "legacy": False,
}
SD15 = {
    **UNET,
    "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4],
    "num_heads": 8,
    "num_head_channels": -1,
    "context_dim": 768,
    "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    "transformer_depth_middle": 1,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
}
SDXL = {
    **UNET,
    "num_res_blocks": [2, 2, 2],
    "channel_mult": [1, 2, 4],
    "num_heads": -1,
    "num_head_channels": 64,
    "context_dim": 2048,
    "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
    "transformer_depth_middle": 10,
    "use_linear_in_transformer": True,
    "adm_in_channels": 2816,
    "num_classes": "sequential",
}
SD35 = {
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "input_size": None,
    "adm_in_channels": 2048,
    "pos_embed_scaling_factor": None,
    "qk_norm": "rms",
}
SD35_MEDIUM = {
    **SD35,
    "depth": 24,
    "num_patches": 384 * 384,
    "pos_embed_max_size": 384,
    "x_block_self_attn_layers": list(range(13)),
    "context_embedder_config": {
        "target": "torch.nn.Linear",
        "params": {"in_features": 4096, "out_features": 1536},
    },
}
SD35_LARGE = {
    **SD35,
    "depth": 38,
    "num_patches": 192 * 192,
    "pos_embed_max_size": 192,
    "x_block_self_attn_layers": [],
    "context_embedder_config": {
        "target": "torch.nn.Linear",
        "params": {"in_features": 4096, "out_features": 2432},
    },
}
STREAMS = {
    "axes_dim": [16, 56, 56],
    "num_heads": 24,
    "mlp_ratio": 4.0,
    "qkv_bias": True,
    "hidden_size": 3072,
    "context_in_dim": 4096,
}
FLUX = {
    **STREAMS,
    "image_model": "flux",
    "theta": 10000,
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": 2,
    "vec_in_dim": 768,
    "depth": 19,
    "depth_single_blocks": 38,
    "guidance_embed": True,
}
CHROMA = {
    **STREAMS,
    "image_model": "chroma",
    "theta": 10000,
    "in_channels": 64,
    "out_channels": 64,
    "patch_size": 2,
    "depth": 19,
    "depth_single_blocks": 38,
    "in_dim": 64,
    "out_dim": 3072,
    "hidden_dim": 5120,
    "n_layers": 5,
}
HUNYUAN = {
    **STREAMS,
    "image_model": "hunyuan_video",
    "theta": 256,
    "in_channels": 16,
    "out_channels": 16,
    "patch_size": [1, 2, 2],
    "vec_in_dim": 768,
    "depth": 20,
    "depth_single_blocks": 40,
    "guidance_embed": True,
    "byt5": False,
    "meanflow": False,
    "use_cond_type_embedding": False,
    "vision_in_dim": None,
}
WAN = {
    "image_model": "wan2.1",
    "model_type": "t2v",
    "dim": 1536,
    "ffn_dim": 8960,
    "num_heads": 12,
    "num_layers": 30,
    "in_dim": 16,
    "out_dim": 16,
    "freq_dim": 256,
    "text_dim": 4096,
    "text_len": 512,
    "patch_size": (1, 2, 2),
    "window_size": (-1, -1),
    "qk_norm": True,
    "cross_attn_norm": True,
    "eps": 1e-6,
}
LUMINA = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": 16,
    "dim": 2304,
    "cap_feat_dim": 2304,
    "n_layers": 26,
    "qk_norm": True,
    "n_heads": 24,
    "n_kv_heads": 8,
    "axes_dims": [32, 32, 32],
    "axes_lens": [300, 512, 512],
    "rope_theta": 10000.0,
    "ffn_dim_multiplier": 4.0,
}
Z_IMAGE = {
    **LUMINA,
    "dim": 3840,
    "cap_feat_dim": 2560,
    "n_layers": 30,
    "n_heads": 30,
    "n_kv_heads": 30,
    "axes_dims": [32, 48, 48],
    "axes_lens": [1536, 512, 512],
    "rope_theta": 256.0,
    "ffn_dim_multiplier": 8.0 / 3.0,
    "z_image_modulation": True,
    "time_scale": 1000.0,
    "pad_tokens_multiple": 32,
}


@dataclass(frozen=True)
class Published:
    """A model: its class in comfy.supported_models, its configuration, and what it is given.

    text:   tokens and width of the prompt's embedding.
    pooled: width of the pooled embedding as the network gets it, 0 for none; `pooled_in` as the
            text encoder gives it, where that is another.
    video:  whether latents have a frame axis.
    cfg:    whether its usual use evaluates a negative prompt as well.
    half:   the 16-bit format that it is used in.
    """

    family: str
    config: dict
    text: tuple[int, int]
    channels: int = 16
    pooled: int = 0
    pooled_in: int = 0
    guidance: bool = False
    video: bool = False
    cfg: bool = True
    half: str = "bfloat16"
    more: dict = field(default_factory=dict)

    def latent(self, height: int, width: int, frames: int = 1) -> tuple[int, ...]:
        """The latent of one picture or film of that many pixels, without the batch."""
        time = ((frames - 1) // 4 + 1,) if self.video else ()
        return (self.channels, *time, height // 8, width // 8)

    def small(self, text: tuple[int, int] | None = None, **changes) -> Published:
        """The same kind of model in another size."""
        return replace(self, text=text or self.text, config={**self.config, **changes})


MODELS = {
    "SD1.5": Published("SD15", SD15, (77, 768), 4, half="float16"),
    "SDXL": Published("SDXL", SDXL, (77, 2048), 4, pooled=2816, pooled_in=1280, half="float16"),
    "SD3.5-medium": Published("SD3", SD35_MEDIUM, (154, 4096), pooled=2048),
    "SD3.5-large": Published("SD3", SD35_LARGE, (154, 4096), pooled=2048),
    "Lumina2": Published("Lumina2", LUMINA, (128, 2304), more={"num_tokens": 128}),
    "Z-Image": Published("ZImage", Z_IMAGE, (128, 2560), cfg=False, more={"num_tokens": 128}),
    "Flux.1-dev": Published("Flux", FLUX, (256, 4096), pooled=768, guidance=True, cfg=False),
    "Chroma": Published("Chroma", CHROMA, (256, 4096), guidance=True),
    "Qwen-Image": Published(
        "QwenImage",
        {"image_model": "qwen_image", "in_channels": 64, "num_layers": 60},
        (128, 3584),
        video=True,
    ),
    "HunyuanVideo": Published(
        "HunyuanVideo", HUNYUAN, (256, 4096), pooled=768, guidance=True, video=True, cfg=False
    ),
    "Wan2.1-1.3B": Published("WAN21_T2V", WAN, (512, 4096), video=True),
}
