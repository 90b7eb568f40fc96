"""Image encoders and aesthetic predictors of small width: see tiny_models.py."""

import json
import tempfile
from pathlib import Path

import torch
from comfy import clip_vision
from safetensors.torch import load_file
from torch import nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    SiglipConfig,
    SiglipModel,
    SiglipVisionModel,
)

from ComfyUI_DNO.rewards.models.preprocess import HALF, IMAGENET_MEAN, IMAGENET_STD
from ComfyUI_DNO.rewards.models.vision import with_tower

from .random_weights import randomise

CLIP_VISION = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 1,
    "image_size": 32, "patch_size": 8, "hidden_act": "quick_gelu", "projection_dim": 32,
}  # fmt: skip
SIGLIP_VISION = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 1,
    "image_size": 32, "patch_size": 8,
}  # fmt: skip
SIGLIP_TEXT = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 1,
    "vocab_size": 32128, "max_position_embeddings": 16,
}  # fmt: skip
DINOV2 = {
    "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 1, "patch_size": 14,
    "image_size": 56, "layer_norm_eps": 1e-6,
}  # fmt: skip


def seeded(make):
    """What `make` makes, with random weights of its own in every layer."""
    torch.manual_seed(0)
    return randomise(make().eval())


def published(network):
    """Its weights as transformers writes them, whose later versions have other names in memory."""
    with tempfile.TemporaryDirectory() as folder:
        network.save_pretrained(folder)
        state = load_file(Path(folder) / "model.safetensors")
    return with_tower(state)


def original_clip_vision(**sizes):
    config = CLIPVisionConfig(**CLIP_VISION | sizes)
    return seeded(lambda: CLIPVisionModelWithProjection(config))


def original_siglip(**sizes):
    config = SiglipConfig(text_config=SIGLIP_TEXT, vision_config=SIGLIP_VISION | sizes)
    return seeded(lambda: SiglipModel(config))


def original_siglip_vision(**sizes):
    config = original_siglip(**sizes).config.vision_config
    return seeded(lambda: SiglipVisionModel(config))


def original_dinov2(**sizes):
    network = seeded(lambda: Dinov2Model(Dinov2Config(**DINOV2 | sizes)))
    with torch.no_grad():
        network.embeddings.position_embeddings.normal_(std=0.5)
    return network


class LAIONHead(nn.Module):
    """Sizes from the encoder's width; names as in sac+logos+ava1-l14-linearMSE."""

    def __init__(self, width, sizes=(48, 32, 16, 8)):
        super().__init__()
        ends = [width, *sizes, 1]
        linear = [nn.Linear(*pair) for pair in zip(ends, ends[1:], strict=False)]
        drops = [nn.Dropout(0.2), nn.Dropout(0.2), nn.Dropout(0.1)]
        parts = [layer for pair in zip(linear, drops, strict=False) for layer in pair]
        self.layers = nn.Sequential(*parts, *linear[3:])

    def forward(self, embed):
        return self.layers(embed)


def v25_head(width, sizes=(48, 32, 16, 8)):
    """Names as in aesthetic_predictor_v2_5.pth."""
    ends = [width, *sizes, 1]
    linear = [nn.Linear(*pair) for pair in zip(ends, ends[1:], strict=False)]
    parts = [part for layer in linear for part in (layer, nn.Dropout(0.5))][:-1]
    return nn.ModuleDict({"scoring_head": nn.Sequential(*parts)})


def weights_of(network):
    return published(network) if hasattr(network, "save_pretrained") else network.state_dict()


def prefixed(**parts):
    """Of several networks by prefix ("clip__" for "clip.") one state dict."""
    return {
        f"{prefix.replace('__', '.')}{name}": tensor
        for prefix, network in parts.items()
        for name, tensor in weights_of(network).items()
    }


def tiny_aesthetic():
    """As RE-N-Y/laion-aesthetic has its weights."""
    return prefixed(clip__=original_clip_vision(), mlp__=seeded(lambda: LAIONHead(32)))


def host_original(kind: str):
    """transformers' network whose weights `host_vision` holds."""
    make = {
        "clip": original_clip_vision,
        "siglip": original_siglip_vision,
        "dinov2": lambda: original_dinov2(image_size=518),  # ComfyUI knows no other
    }
    return make[kind]()


def host_vision(kind: str) -> clip_vision.ClipVisionModel:
    """A CLIP_VISION at small width: ComfyUI's own loader, but for the file with the sizes."""
    original = host_original(kind)
    config = {"num_channels": 3, **original.config.to_dict()}
    if kind == "siglip":
        config |= {"image_mean": HALF, "image_std": HALF}
    if kind == "dinov2":
        config |= {"image_mean": IMAGENET_MEAN, "image_std": IMAGENET_STD}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(config), encoding="utf-8")
        host = clip_vision.ClipVisionModel(str(path))
    lacking, _ = host.load_sd(published(original))
    assert not lacking
    return host


TINY = {
    "CLIP vision": lambda: published(original_clip_vision()),
    "SigLIP": lambda: published(original_siglip()),
    "SigLIP vision": lambda: published(original_siglip_vision()),
    "DINOv2": lambda: published(original_dinov2()),
    "aesthetic predictor": tiny_aesthetic,
}
