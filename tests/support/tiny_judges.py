"""Reward models with large backbones, at small width: see tiny_models.py."""

import inspect
from pathlib import Path

import comfy.utils
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLModel,
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


WORDS = 151658  # Qwen2-VL's and HPSv3's own


def qwen_config(width=128, inner=160, layers=2, heads=(1, 1), depth=2, sight=80):
    """The sizes of a Qwen2-VL."""
    text = {
        "vocab_size": WORDS, "hidden_size": width, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1], "rms_norm_eps": 1e-6, "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    }  # fmt: skip
    vision = {
        "depth": depth, "embed_dim": sight, "num_heads": sight // 80, "hidden_size": width,
        "mlp_ratio": 4,
    }  # fmt: skip
    return Qwen2VLConfig(text_config=text, vision_config=vision)


def hpsv3_head(width: int, inner=(1024, 16)) -> nn.Sequential:
    """Of the score's mean and spread."""
    return nn.Sequential(
        nn.Linear(width, inner[0]), nn.ReLU(), nn.Dropout(0.05),
        nn.Linear(*inner), nn.ReLU(), nn.Linear(inner[1], 2),
    )  # fmt: skip


def shipped(name: str) -> str:
    """The folder of a tokenizer that ComfyUI ships."""
    return str(Path(inspect.getfile(comfy.utils)).parent / name)


def t5_tokenizer() -> T5TokenizerFast:
    """The one that ComfyUI ships."""
    return T5TokenizerFast.from_pretrained(shipped("text_encoders/t5_tokenizer"))


def qwen_tokenizer() -> Qwen2Tokenizer:
    """Qwen2.5's, which ComfyUI ships: the words that HPSv3 uses are the same."""
    return Qwen2Tokenizer.from_pretrained(shipped("text_encoders/qwen25_tokenizer"))


def older_names(state):
    """Names of transformers until 4.51, which MizzenAI/HPSv3 has."""
    for new, old in (("model.visual.", "visual."), ("model.language_model.", "model.")):
        state = {n.replace(new, old, 1) if n.startswith(new) else n: t for n, t in state.items()}
    return state


def tiny_hpsv3():
    """As MizzenAI/HPSv3 has its weights, less the word head."""
    torch.manual_seed(0)
    config = qwen_config(layers=1, depth=1)
    parts = {"model.": Qwen2VLModel(config), "rm_head.": hpsv3_head(128, (24, 16))}
    return older_names(
        {
            prefix + name: tensor
            for prefix, part in parts.items()
            for name, tensor in randomise(part).state_dict().items()
        }
    )


UNET_SIZES = {
    "sample_size": 8, "cross_attention_dim": 48, "attention_head_dim": 1, "norm_num_groups": 8,
    "block_out_channels": (16, 32, 32, 32),
}  # fmt: skip
XL_SIZES = {
    "sample_size": 8, "cross_attention_dim": 48 + 64, "attention_head_dim": [2, 4, 4],
    "norm_num_groups": 8, "block_out_channels": (16, 32, 32), "use_linear_projection": True,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 1, 2], "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 24 + 6 * 8,
}  # fmt: skip


def text_config(width=48, **sizes) -> CLIPTextConfig:
    """A text encoder of Stable Diffusion."""
    return CLIPTextConfig(
        **{
            "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2,
            "num_attention_heads": 2, "projection_dim": 24, "eos_token_id": 2, **sizes,
        }
    )  # fmt: skip


def lrm_parts(unet=UNET_SIZES, texts=None, feature=24) -> dict[str, nn.Module]:
    """The networks that an LRM's folder holds, by their names there, and its projections."""
    xl = unet.get("addition_embed_type") == "text_time"
    texts = texts or [text_config(), text_config(64, hidden_act="gelu")]
    channels = unet["block_out_channels"]
    parts = {
        "unet": UNet2DConditionModel(**unet),
        "text_encoder": CLIPTextModel(texts[0]),
        "visual_projection": nn.Linear(sum(channels) + channels[-1], feature, bias=False),
    }
    if xl:
        return parts | {"text_encoder_2": CLIPTextModelWithProjection(texts[1])}
    width = texts[0].hidden_size
    return parts | {"text_projection": nn.Linear(width, feature, bias=False)}


def lrm_configs(parts) -> dict:
    """What the config.json of each part says."""
    configs = {"unet": dict(parts["unet"].config)}
    texts = {name: part for name, part in parts.items() if name.startswith("text_encoder")}
    return configs | {name: part.config.to_dict() for name, part in texts.items()}


def lrm_state(parts) -> dict:
    """The weights of all, by the names of the original."""
    state = {f"{p}.{n}": t for p, part in parts.items() for n, t in part.state_dict().items()}
    inner = "text_encoder.text_model."
    for name in [n for n in state if n.startswith("text_encoder.") and inner not in n]:
        state[name.replace("text_encoder.", inner, 1)] = state.pop(name)
    return state | {"logit_scale": torch.tensor(2.6592)}


def tiny_lrm():
    """As casiatao/LRM's lrm_sd15 has its weights."""
    torch.manual_seed(0)
    parts = {name: randomise(part.eval()) for name, part in lrm_parts().items()}
    return lrm_state(parts), lrm_configs(parts)


def clip_tokenizer() -> CLIPTokenizer:
    """The one that ComfyUI ships."""
    return CLIPTokenizer.from_pretrained(shipped("sd1_tokenizer"))


def tiny_clip_flant5():
    """As zhiqiulin/clip-flant5-xl has its weights."""
    torch.manual_seed(0)
    tower = CLIPVisionModel(CLIPVisionConfig(**TOWER_SIZES))
    width = T5_SIZES["d_model"]
    parts = {
        "": T5ForConditionalGeneration(T5Config(**T5_SIZES)),
        "vision_tower.vision_tower.vision_model.": getattr(tower, "vision_model", tower),
        "mm_projector.": nn.Sequential(nn.Linear(64, width), nn.GELU(), nn.Linear(width, width)),
    }
    return {
        prefix + name: tensor
        for prefix, part in parts.items()
        for name, tensor in randomise(part).state_dict().items()
    }


TINY = {
    "CLIP-FlanT5": (tiny_clip_flant5, t5_tokenizer),
    "HPSv3": (tiny_hpsv3, qwen_tokenizer),
    "LRM": (tiny_lrm, clip_tokenizer),
}
SINGLE = frozenset(TINY)
"""Computed in single precision in places, or too long: differences are their own tests' matter."""
