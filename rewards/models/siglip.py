"""SigLIP and SigLIP 2 of fixed size, in transformers' layout; with or without its text tower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import SiglipConfig, SiglipModel, SiglipVisionConfig, SiglipVisionModel

from .building import Shapes, assemble, layers
from .network import Architecture
from .preprocess import HALF, Preprocess
from .running import encode, read, recompute, unit
from .vision import VisionEncoder, collecting, tower_of, with_tower, without_tower

_HEADS = {1152: 16, 1536: 16}  # so400m and giant; all others have heads of 64
_SIZES = {(27, 14): 384}  # of pictures, by patches and their pixels; others are their product
_TOWER = "vision_model."
_PATCHES = f"{_TOWER}embeddings.patch_embedding"
_POOLING = f"{_TOWER}head.probe"
_WORDS = "text_model.embeddings.token_embedding.weight"


class SigLIPVision(VisionEncoder, Architecture):
    """The vision tower of a SigLIP (arXiv 2303.15343).

    Files without the pooling head are read too; their embedding is the mean of all patches.
    """

    title = "SigLIP vision"
    family = "siglip"

    def __init__(self, network: SiglipModel | SiglipVisionModel) -> None:
        super().__init__()
        self.network = network
        tower = tower_of(network)
        self.pooled = tower.use_head
        self.preprocess = Preprocess(tower.config.image_size, "stretch", HALF, HALF)
        recompute(tower.encoder.layers)

    @classmethod
    def matches(cls, shapes: Shapes) -> bool:
        """Whether these are the weights of the vision tower alone."""
        return _is_tower(with_tower(shapes)) and _WORDS not in shapes

    @classmethod
    def build(cls, state: Mapping[str, Tensor], config: Mapping | None = None) -> SigLIPVision:
        """The network with these weights; without a config its sizes are those of the weights."""
        state = with_tower(state)
        hf_config = _vision_config(state, (config or {}).get("vision_config", config))
        return cls(assemble(lambda: SiglipVisionModel(hf_config), without_tower(state), cls.title))

    @property
    def width(self) -> int:
        """D, the length of an embedding."""
        return tower_of(self.network).config.hidden_size

    def see(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Preprocessed (B,3,S,S) -> the embedding (B,D), and the middle layers' patches (B,N,C)."""
        tower = tower_of(self.network)

        def compute(given: Tensor) -> tuple[Tensor, ...]:
            with collecting(tower.encoder.layers) as middle:
                seen = tower(pixel_values=given)
            pooled = seen.pooler_output if self.pooled else seen.last_hidden_state.mean(dim=1)
            return pooled, *middle

        return encode(tower, pixels, compute)


class SigLIP(SigLIPVision):
    """Both towers of a SigLIP (arXiv 2303.15343)."""

    title = "SigLIP"
    tokenizer_name = "siglip"

    @classmethod
    def matches(cls, shapes: Shapes) -> bool:
        """Whether these are the weights of both towers."""
        return _is_tower(shapes) and {_WORDS, _POOLING, "text_model.head.weight"} <= shapes.keys()

    @classmethod
    def build(cls, state: Mapping[str, Tensor], config: Mapping | None = None) -> SigLIP:
        """The network with these weights; without a config its sizes are those of the weights."""
        if config:
            hf_config = SiglipConfig.from_dict(dict(config))
        else:
            vision = _vision_config(state, None).to_dict()
            hf_config = SiglipConfig(text_config=_text_sizes(state), vision_config=vision)
        return cls(assemble(lambda: SiglipModel(hf_config), state, cls.title))

    @torch.no_grad()
    def text_embed(self, prompts: Sequence[str]) -> Tensor:
        """Prompts -> (B,D) of unit length, fp32 on the CPU; beyond 64 tokens they are cut off.

        Raises ValueError where the weights came without their tokenizer.
        """
        if self.tokenizer is None:
            raise ValueError(
                "This SigLIP has no tokenizer, so it reads no text: load it as the Hugging Face "
                "folder with all files of its page, and pip install protobuf, which its words need."
            )
        tower, sizes = self.network.text_model, self.network.config.text_config
        tokens = read(self.tokenizer, prompts, sizes.max_position_embeddings).input_ids
        tokens = tokens.to(tower.head.weight.device)
        return unit(tower(input_ids=tokens).pooler_output.cpu().float())


def _is_tower(shapes: Shapes) -> bool:
    """A patch's embedding with a bias, and no class token: not CLIP."""
    lacking = f"{_TOWER}embeddings.class_embedding" not in shapes
    return lacking and {f"{_PATCHES}.weight", f"{_PATCHES}.bias"} <= shapes.keys()


def _vision_config(state: Mapping[str, Tensor], config: Mapping | None) -> SiglipVisionConfig:
    if config:
        hf_config = SiglipVisionConfig.from_dict(dict(config))
    else:
        width, _, patch, _ = state[f"{_PATCHES}.weight"].shape
        side = round(len(state[f"{_TOWER}embeddings.position_embedding.weight"]) ** 0.5)
        hf_config = SiglipVisionConfig(
            hidden_size=width,
            intermediate_size=len(state[f"{_TOWER}encoder.layers.0.mlp.fc1.bias"]),
            num_hidden_layers=layers(state, f"{_TOWER}encoder.layers."),
            num_attention_heads=_HEADS.get(width, max(width // 64, 1)),
            patch_size=patch,
            image_size=_SIZES.get((side, patch), side * patch),
        )
    hf_config.vision_use_head = _POOLING in state
    return hf_config


def _text_sizes(state: Mapping[str, Tensor]) -> dict[str, int]:
    words, width = state[_WORDS].shape
    return {
        "vocab_size": words,
        "hidden_size": width,
        "intermediate_size": len(state["text_model.encoder.layers.0.mlp.fc1.bias"]),
        "num_hidden_layers": layers(state, "text_model.encoder.layers."),
        "num_attention_heads": _HEADS.get(width, max(width // 64, 1)),
        "max_position_embeddings": len(state["text_model.embeddings.position_embedding.weight"]),
        "projection_size": len(state["text_model.head.weight"]),
    }
