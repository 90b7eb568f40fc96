"""CLIP in the layouts of transformers and of OpenCLIP: also PickScore, HPSv2 and HPSv2.1."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from ...dno.sharing import once
from .building import Shapes, assemble, layers
from .preprocess import Preprocess
from .running import encode, recompute, unit

_HEADS = {1280: 16, 1664: 16}  # of vision towers; all others have heads of 64
_GELU_FROM = 1024  # text width: OpenAI's towers are narrower and have the quick GELU
_PATCHES = "vision_model.embeddings.patch_embedding.weight"
_WORDS = "text_model.embeddings.token_embedding.weight"


class CLIP(nn.Module):
    """Two towers into one space (arXiv 2103.00020)."""

    title = "CLIP"
    tokenizer_name = "clip"
    tokenizer = None

    def __init__(self, network: CLIPModel) -> None:
        super().__init__()
        self.network = network
        self.preprocess = Preprocess(network.config.vision_config.image_size)
        recompute(network.vision_model.encoder.layers)

    @classmethod
    def matches(cls, shapes: Shapes) -> bool:
        """Whether these are the weights of both towers."""
        ours = {_PATCHES, _WORDS, "text_projection.weight", "visual_projection.weight"}
        theirs = {"visual.conv1.weight", "token_embedding.weight", "text_projection"}
        return ours <= shapes.keys() or theirs <= shapes.keys()

    @classmethod
    def build(cls, state: Mapping[str, Tensor], config: Mapping | None = None) -> CLIP:
        """The network with these weights; without a config its sizes are those of the weights."""
        state = from_open_clip(state) if "visual.conv1.weight" in state else dict(state)
        made = CLIPConfig.from_dict(dict(config)) if config else config_of(state)
        return cls(assemble(lambda: CLIPModel(made), state, cls.title))

    def image_embed(self, image: Tensor, preprocess: Preprocess | None = None) -> Tensor:
        """(B,3,H,W) in [0,1] -> (B,D) of unit length, fp32."""
        preprocess = preprocess or self.preprocess
        return once((id(self), preprocess), image, lambda seen: self._embed(preprocess(seen)))

    @torch.no_grad()
    def text_embed(self, prompts: Sequence[str]) -> Tensor:
        """Prompts -> (B,D) of unit length, fp32 on the CPU; beyond 77 tokens they are cut off."""
        tokens = self.tokens(prompts).to(self.network.text_projection.weight.device)
        found = self.network.text_model(input_ids=tokens).pooler_output
        return unit(self.network.text_projection(found).cpu().float())

    def tokens(self, prompts: Sequence[str]) -> Tensor:
        """(B,77) token numbers."""
        length = self.network.config.text_config.max_position_embeddings
        made = self.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=length,
            return_tensors="pt",
        )
        return made.input_ids

    @property
    def scale(self) -> float:
        """exp(logit_scale), by which CLIP multiplies cosines."""
        return float(self.network.logit_scale.exp())

    def _embed(self, pixels: Tensor) -> Tensor:
        def compute(given: Tensor) -> Tensor:
            pooled = self.network.vision_model(pixel_values=given).pooler_output
            return self.network.visual_projection(pooled)

        return unit(encode(self.network.vision_model, pixels, compute))


def config_of(state: Mapping[str, Tensor]) -> CLIPConfig:
    """The sizes of a CLIP in transformers' layout, from its weights' shapes."""
    width, _, patch, _ = state[_PATCHES].shape
    places = len(state["vision_model.embeddings.position_embedding.weight"]) - 1
    words, text_width = state[_WORDS].shape
    activation = "gelu" if text_width >= _GELU_FROM else "quick_gelu"
    vision = {
        "hidden_size": width,
        "intermediate_size": len(state["vision_model.encoder.layers.0.mlp.fc1.bias"]),
        "num_hidden_layers": layers(state, "vision_model.encoder.layers."),
        "num_attention_heads": _HEADS.get(width, max(width // 64, 1)),
        "patch_size": patch,
        "image_size": round(places**0.5) * patch,
        "hidden_act": activation,
    }
    text = {
        "hidden_size": text_width,
        "intermediate_size": len(state["text_model.encoder.layers.0.mlp.fc1.bias"]),
        "num_hidden_layers": layers(state, "text_model.encoder.layers."),
        "num_attention_heads": max(text_width // 64, 1),
        "max_position_embeddings": len(state["text_model.embeddings.position_embedding.weight"]),
        "vocab_size": words,
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
        "hidden_act": activation,
    }
    return CLIPConfig(
        text_config=text,
        vision_config=vision,
        projection_dim=len(state["text_projection.weight"]),
    )


_RENAMED = (
    (r"^visual\.proj$", "visual_projection.weight"),
    (r"^text_projection$", "text_projection.weight"),
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"\.attn\.out_proj\.", ".self_attn.out_proj."),
    (r"\.ln_(\d)\.", r".layer_norm\1."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)
_JOINED = re.compile(r"(.*)\.attn\.in_proj_(weight|bias)$")


def from_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenCLIP's names and shapes -> those of transformers."""
    made: dict[str, Tensor] = {}
    for name, tensor in state.items():
        joined = _JOINED.match(name)
        if joined:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                made[_rename(f"{joined[1]}.self_attn.{part}_proj.{joined[2]}")] = piece
        else:
            transposed = name in ("visual.proj", "text_projection")
            made[_rename(name)] = tensor.T.contiguous() if transposed else tensor
    return made


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name
