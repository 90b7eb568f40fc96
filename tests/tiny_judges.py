"""Reward models with large backbones, at small width: see tiny_models.py."""

from pathlib import Path

import comfy.utils
import torch
from torch import nn
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    T5Config,
    T5ForConditionalGeneration,
    T5TokenizerFast,
)

from .random_weights import randomise

T5_SIZES = {
    "d_model": 48, "d_kv": 16, "num_heads": 3, "d_ff": 80, "num_layers": 2, "vocab_size": 32128,
    "num_decoder_layers": 2, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
    "decoder_start_token_id": 0, "dropout_rate": 0.0,
}  # fmt: skip
TOWER_SIZES = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_attention_heads": 1,
    "image_size": 42, "patch_size": 14, "hidden_act": "quick_gelu",
}  # fmt: skip


def shipped(name: str) -> str:
    """The folder of a tokenizer that ComfyUI ships."""
    return str(Path(comfy.utils.__file__).parent / "text_encoders" / name)


def t5_tokenizer() -> T5TokenizerFast:
    """The one that ComfyUI ships."""
    return T5TokenizerFast.from_pretrained(shipped("t5_tokenizer"))


def tiny_clip_flant5():
    """As zhiqiulin/clip-flant5-xl has its weights."""
    torch.manual_seed(0)
    tower = CLIPVisionModel(CLIPVisionConfig(**TOWER_SIZES))
    width = T5_SIZES["d_model"]
    parts = {
        "": T5ForConditionalGeneration(T5Config(**T5_SIZES)),
        "vision_tower.vision_tower.": tower,
        "mm_projector.": nn.Sequential(nn.Linear(64, width), nn.GELU(), nn.Linear(width, width)),
    }
    return {
        prefix + name: tensor
        for prefix, part in parts.items()
        for name, tensor in randomise(part).state_dict().items()
    }


TINY = {"CLIP-FlanT5": (tiny_clip_flant5, t5_tokenizer)}
SINGLE = frozenset(TINY)
"""Computed in single precision in places, whatever the weights are: no finite differences."""
