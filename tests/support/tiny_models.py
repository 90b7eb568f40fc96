"""Reward models of small width with random weights, read and recognised like published ones."""

from functools import cache
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel

from ComfyUI_DNO.rewards import models
from ComfyUI_DNO.rewards.models.files import Stored

from . import tiny_encoders, tiny_judges, tiny_preferences
from .random_weights import randomise
from .tiny_judges import clip_tokenizer


def clip_config(width=64, layers=2, **vision) -> CLIPConfig:
    """What the sizes of a small CLIP's weights say."""
    tower = {
        "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers,
        "num_attention_heads": width // 64, "hidden_act": "quick_gelu",
    }  # fmt: skip
    return CLIPConfig(
        text_config={**tower, "vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407},
        vision_config={**tower, "image_size": 32, "patch_size": 8, **vision},
        projection_dim=32,
    )


def original_clip(**sizes) -> CLIPModel:
    """transformers' own, with random weights."""
    torch.manual_seed(0)
    network = CLIPModel(clip_config(**sizes)).eval()
    return randomise(network)


def tiny_clip():
    return original_clip().state_dict()


def original_mps(side=224):
    """imscore's, with random weights."""
    sizes = tiny_preferences.CROSS_SIZES
    network = tiny_preferences.ported_mps(clip_config(image_size=side), clip_tokenizer(), **sizes)
    return randomise(network)


def tiny_mps():
    return original_mps(32).state_dict()


def tiny_image_reward():
    return tiny_preferences.ported_image_reward(side=32).state_dict()


TINY = {
    "CLIP": (tiny_clip, clip_tokenizer),
    "MPS": (tiny_mps, clip_tokenizer),
    "ImageReward": (tiny_image_reward, tiny_preferences.bert_tokenizer),
    **{title: (weights, lambda: None) for title, weights in tiny_encoders.TINY.items()},
    **tiny_judges.TINY,
}
"""Title of a kind -> what makes its weights, in the published layout, and its tokenizer."""


@cache
def tiny(title: str, dtype=torch.float64):
    """A small network of that kind, as the loader builds it; in double for finite differences."""
    weights, tokenizer = TINY[title]
    dtype = torch.float32 if title in tiny_judges.SINGLE else dtype
    made = weights()
    state, config = made if isinstance(made, tuple) else (made, {})
    network = models.build(Stored(Path(f"tiny {title}"), state, config)).to(dtype)
    for name, part in network.named_modules():
        if name.endswith(("text_model", "text_projection")):
            part.float()  # transformers masks CLIP's words in single precision
    network.tokenizer = tokenizer()
    return network
