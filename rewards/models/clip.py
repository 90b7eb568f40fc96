"""CLIP in the layouts of transformers and of OpenCLIP: also PickScore, HPSv2 and HPSv2.1.

Sizes that no shape tells are those of the published towers: OpenAI's L/14 and smaller have the
quick GELU, OpenCLIP's larger ones the exact one. A folder's config.json says it for any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
)

from .building import Shapes, assemble, layers
from .network import Architecture
from .preprocess import Preprocess
from .running import encode, read, recompute, unit
from .vision import VisionEncoder, collecting, tower_of, with_tower, without_tower
from .words import repaired

_HEADS = {1280: 16, 1408: 16, 1664: 16}  # of vision towers; all others have heads of 64
_GELU_FROM = 1024  # text width: OpenAI's towers are narrower and have the quick GELU
_GELU_ABOVE = 1024  # vision width, likewise
_CLASS = "vision_model.embeddings.class_embedding"
_PATCHES = "vision_model.embeddings.patch_embedding.weight"
_WORDS = "text_model.embeddings.token_embedding.weight"


class CLIPVision(VisionEncoder, Architecture):
    """The vision tower of a CLIP (arXiv 2103.00020), as in ComfyUI's folder clip_vision."""

    title = "CLIP vision"
    family = "clip"

    def __init__(self, network: CLIPModel | CLIPVisionModel | CLIPVisionModelWithProjection):
        super().__init__()
        self.network = network
        tower = tower_of(network)
        self.preprocess = Preprocess(tower.config.image_size)
        recompute(tower.encoder.layers)

    @classmethod
    def matches(cls, shapes: Shapes) -> bool:
        """Whether these are the weights of the vision tower alone."""
        ours = {_PATCHES, _CLASS} <= with_tower(shapes).keys() and _WORDS not in shapes
        theirs = {"visual.conv1.weight", "visual.class_embedding"} <= shapes.keys()
        return ours or (theirs and "token_embedding.weight" not in shapes)

    @classmethod
    def build(cls, state: Mapping[str, Tensor], config: Mapping | None = None) -> CLIPVision:
        """The network with these weights; without a config its sizes are those of the weights."""
        state = with_tower(_in_our_names(state))
        if config:
            hf_config = CLIPVisionConfig.from_dict(dict(config.get("vision_config", config)))
        else:
            hf_config = CLIPVisionConfig(**vision_sizes(state))
        kind = CLIPVisionModel
        if "visual_projection.weight" in state:
            kind = CLIPVisionModelWithProjection
            hf_config.projection_dim = len(state["visual_projection.weight"])
        return cls(assemble(lambda: kind(hf_config), without_tower(state), cls.title))

    @property
    def width(self) -> int:
        """D, the length of an embedding."""
        projection = getattr(self.network, "visual_projection", None)
        return projection.out_features if projection else self.network.config.hidden_size

    def see(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Preprocessed (B,3,S,S) -> the embedding (B,D), and the middle layers' patches (B,N,C)."""
        tower = tower_of(self.network)
        projection = getattr(self.network, "visual_projection", lambda pooled: pooled)

        def compute(given: Tensor) -> tuple[Tensor, ...]:
            with collecting(tower.encoder.layers) as middle:
                pooled = tower(pixel_values=given).pooler_output
            return projection(pooled), *(tokens[:, 1:] for tokens in middle)

        return encode(tower, pixels, compute)


class CLIP(CLIPVision):
    """Two towers into one space (arXiv 2103.00020)."""

    title = "CLIP"
    tokenizer_name = "clip"

    @classmethod
    def matches(cls, shapes: Shapes) -> bool:
        """Whether these are the weights of both towers."""
        ours = {_PATCHES, _WORDS, "text_projection.weight", "visual_projection.weight"}
        theirs = {"visual.conv1.weight", "token_embedding.weight", "text_projection"}
        return ours <= shapes.keys() or theirs <= shapes.keys()

    @classmethod
    def build(cls, state: Mapping[str, Tensor], config: Mapping | None = None) -> CLIP:
        """The network with these weights; without a config its sizes are those of the weights."""
        state = _in_our_names(state)
        hf_config = CLIPConfig.from_dict(dict(config)) if config else config_of(state)
        return cls(assemble(lambda: CLIPModel(hf_config), state, cls.title))

    @torch.no_grad()
    def text_embed(self, prompts: Sequence[str]) -> Tensor:
        """Prompts -> (B,D) of unit length, fp32 on the CPU; beyond 77 tokens they are cut off."""
        tokens = self.tokenize(prompts).to(self.network.text_projection.weight.device)
        pooled = self.network.text_model(input_ids=tokens).pooler_output
        return unit(self.network.text_projection(pooled).cpu().float())

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """(B,77) token numbers."""
        length = self.network.config.text_config.max_position_embeddings
        return read(self.tokenizer, list(map(repaired, prompts)), length).input_ids

    @property
    def scale(self) -> float:
        """exp(logit_scale), by which CLIP multiplies cosines."""
        return float(self.network.logit_scale.double().exp())


def config_of(state: Mapping[str, Tensor]) -> CLIPConfig:
    """The sizes of a CLIP in transformers' layout, from its weights' shapes."""
    words, width = state[_WORDS].shape
    activation = "gelu" if width >= _GELU_FROM else "quick_gelu"
    text = {
        "hidden_size": width,
        "intermediate_size": len(state["text_model.encoder.layers.0.mlp.fc1.bias"]),
        "num_hidden_layers": layers(state, "text_model.encoder.layers."),
        "num_attention_heads": max(width // 64, 1),
        "max_position_embeddings": len(state["text_model.embeddings.position_embedding.weight"]),
        "vocab_size": words,
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
        "hidden_act": activation,
    }
    return CLIPConfig(
        text_config=text,
        vision_config=vision_sizes(state) | {"hidden_act": activation},
        projection_dim=len(state["text_projection.weight"]),
    )


def vision_sizes(state: Mapping[str, Tensor]) -> dict[str, int | str]:
    """The sizes of the vision tower in transformers' layout, from its weights' shapes."""
    width, _, patch, _ = state[_PATCHES].shape
    patches = len(state["vision_model.embeddings.position_embedding.weight"]) - 1
    return {
        "hidden_size": width,
        "intermediate_size": len(state["vision_model.encoder.layers.0.mlp.fc1.bias"]),
        "num_hidden_layers": layers(state, "vision_model.encoder.layers."),
        "num_attention_heads": _HEADS.get(width, max(width // 64, 1)),
        "patch_size": patch,
        "image_size": round(patches**0.5) * patch,
        "hidden_act": "gelu" if width > _GELU_ABOVE else "quick_gelu",
    }


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
_JOINED = r"(.*)\.attn\.in_proj_(weight|bias)$"


def _in_our_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return from_open_clip(state) if "visual.conv1.weight" in state else dict(state)


def from_open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """OpenCLIP's names and shapes -> those of transformers.

    >>> list(from_open_clip({"visual.proj": torch.ones(2, 3)}))
    ['visual_projection.weight']
    """
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        joined = re.match(_JOINED, name)
        if joined:
            for part, piece in zip("qkv", tensor.chunk(3), strict=True):
                renamed[_rename(f"{joined[1]}.self_attn.{part}_proj.{joined[2]}")] = piece
        else:
            transposed = name in ("visual.proj", "text_projection")
            renamed[_rename(name)] = tensor.T.contiguous() if transposed else tensor
    return renamed


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name
