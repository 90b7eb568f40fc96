"""ImageReward: a BLIP whose reader looks at the picture, and a head that judges."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from .building import Shapes, assemble, dense, layers
from .network import Architecture
from .preprocess import Preprocess
from .running import encode, read, recompute

_VISION, _TEXT, _HEAD = "blip.visual_encoder.", "blip.text_encoder.", "mlp.layers."
_POSITIONS, _PATCHES = f"{_VISION}pos_embed", f"{_VISION}patch_embed.proj.weight"
_WORDS = f"{_TEXT}embeddings.word_embeddings.weight"
_LENGTH = 35  # words and parts of words that are read
_MEAN, _DEVIATION = 0.16717362830052426, 1.0333394966054072  # of the raw rewards in training


class _Parts(nn.Module):
    """The two encoders, and the head without the dropout of its training."""

    def __init__(self, vision: BlipVisionConfig, text: BlipTextConfig, head: list[int]) -> None:
        super().__init__()
        self.vision = BlipVisionModel(vision)
        self.text = BlipTextModel(text, add_pooling_layer=False)
        pairs = pairwise(head)
        self.head = nn.ModuleList(nn.Linear(inner, outer) for inner, outer in pairs)


class ImageRewardModel(Architecture):
    """Judges a picture for a prompt (arXiv 2304.05977; THUDM/ImageReward, RE-N-Y/ImageReward)."""

    title = "ImageReward"
    tokenizer_name = "bert"

    def __init__(self, network: _Parts) -> None:
        super().__init__()
        self.network = network
        self.preprocess = Preprocess(network.vision.config.image_size)
        recompute(network.vision.encoder.layers)
        recompute(network.text.encoder.layer)

    @classmethod
    def matches(cls, shapes: Shapes) -> bool:
        """Whether these are both encoders of a BLIP, and a head."""
        return {_PATCHES, _WORDS, f"{_HEAD}0.weight"} <= shapes.keys()

    @classmethod
    def build(cls, state: Mapping[str, Tensor], config: Mapping | None = None) -> ImageRewardModel:
        """The network with these weights; its sizes are theirs: no published config has them."""
        vision, text = _vision_config(state), _text_config(state)
        state, sizes = _renamed(state)
        return cls(assemble(lambda: _Parts(vision, text, sizes), state, cls.title))

    @property
    def vocabulary(self) -> int:
        """How many words its tokenizer has; two more were added in training, and are not used."""
        return self.network.text.config.vocab_size - 2

    @torch.no_grad()
    def tokenize(self, prompt: str) -> tuple[Tensor, Tensor]:
        """(1,35) token numbers, and 1 where there is one; what is beyond is cut off."""
        encoded = read(self.tokenizer, [prompt], _LENGTH)
        return encoded.input_ids, encoded.attention_mask

    def reward(self, image: Tensor, tokens: tuple[Tensor, Tensor]) -> Tensor:
        """(B,3,H,W) in [0,1], what `tokenize` gave -> (B,), fp32."""

        def compute(seen: Tensor) -> Tensor:
            return self._judge(seen, *(part.to(seen.device) for part in tokens))

        raw = encode(self.network, self.image_features(image), compute)
        return (raw - _MEAN) / _DEVIATION

    def image_features(self, image: Tensor) -> Tensor:
        """(B,3,H,W) in [0,1] -> (B,1+patches,D), fp32: all that the reader sees of it."""

        def compute(seen: Tensor) -> Tensor:
            return encode(self.network, self.preprocess(seen), self._see)

        return self.shared(image, compute)

    def _see(self, pixels: Tensor) -> Tensor:
        return self.network.vision(pixel_values=pixels).last_hidden_state

    def _judge(self, seen: Tensor, words: Tensor, mask: Tensor) -> Tensor:
        count = len(seen)
        read = self.network.text(
            input_ids=words.expand(count, -1),
            attention_mask=mask.expand(count, -1),
            encoder_hidden_states=seen,
        ).last_hidden_state[:, 0]
        precision = torch.promote_types(read.dtype, torch.float32)
        return dense(self.network.head, read.to(precision))[:, 0]


def _vision_config(state: Mapping[str, Tensor]) -> BlipVisionConfig:
    width, _, patch, _ = state[_PATCHES].shape
    return BlipVisionConfig(
        hidden_size=width,
        intermediate_size=len(state[f"{_VISION}blocks.0.mlp.fc1.bias"]),
        num_hidden_layers=layers(state, f"{_VISION}blocks."),
        num_attention_heads=max(width // 64, 1),
        patch_size=patch,
        image_size=round((state[_POSITIONS].shape[1] - 1) ** 0.5) * patch,
        hidden_act="gelu",
        layer_norm_eps=1e-6,
        attention_dropout=0.0,
    )


def _text_config(state: Mapping[str, Tensor]) -> BlipTextConfig:
    words, width = state[_WORDS].shape
    layer = f"{_TEXT}encoder.layer.0."
    return BlipTextConfig(
        vocab_size=words,
        hidden_size=width,
        encoder_hidden_size=state[f"{layer}crossattention.self.key.weight"].shape[1],
        intermediate_size=len(state[f"{layer}intermediate.dense.bias"]),
        num_hidden_layers=layers(state, f"{_TEXT}encoder.layer."),
        num_attention_heads=max(width // 64, 1),
        max_position_embeddings=len(state[f"{_TEXT}embeddings.position_embeddings.weight"]),
        hidden_act="gelu",
        layer_norm_eps=1e-12,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        pad_token_id=0,
        is_decoder=True,  # to transformers: with cross-attention; nothing is masked by its position
    )


_RENAMED = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.", "encoder.layers."),
    (r"\.attn\.qkv\.", ".self_attn.qkv."),
    (r"\.attn\.proj\.", ".self_attn.projection."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
)


def _renamed(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[int]]:
    """By our names, and the head's widths; the head's numbers count the dropouts between."""
    numbers = sorted({int(n[len(_HEAD) :].split(".")[0]) for n in state if n.startswith(_HEAD)})
    weights = [state[f"{_HEAD}{number}.weight"] for number in numbers]
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith(_VISION):
            name = name[len(_VISION) :]
            for pattern, replacement in _RENAMED:
                name = re.sub(pattern, replacement, name)
            renamed[f"vision.{name}"] = tensor
        elif name.startswith(_TEXT):
            renamed[f"text.{name[len(_TEXT) :]}"] = tensor
        elif name.startswith(_HEAD):
            number, kind = name[len(_HEAD) :].split(".")
            renamed[f"head.{numbers.index(int(number))}.{kind}"] = tensor
    return renamed, [weights[0].shape[1], *(len(weight) for weight in weights)]
