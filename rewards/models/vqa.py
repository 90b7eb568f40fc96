"""CLIP-FlanT5: a CLIP that sees, and a T5 that reads the question and answers (VQAScore)."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, pad
from transformers import CLIPVisionConfig, CLIPVisionModel, T5Config, T5ForConditionalGeneration

from .building import Shapes, assemble, layers
from .network import Architecture
from .preprocess import CLIP_MEAN, Preprocess
from .running import encode, recompute

_TOWER, _PROJECTOR = "vision_tower.vision_tower.", "mm_projector."
_PATCHES = f"{_TOWER}vision_model.embeddings.patch_embedding.weight"
_VOCABULARY = 32100  # the tokenizer's; the original cuts T5's spare rows off
_BEFORE = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. USER:"
)
_AFTER = "{} ASSISTANT:"
_BACKGROUND = tuple(int(value * 255) / 255 for value in CLIP_MEAN)


class _Parts(nn.Module):
    """The tower without the layers after the one that is used, the projector, and T5."""

    def __init__(self, vision: CLIPVisionConfig, text: T5Config) -> None:
        super().__init__()
        tower = CLIPVisionModel(vision)
        self.vision = getattr(tower, "vision_model", tower)  # transformers 4, and 5
        sizes = [vision.hidden_size, text.d_model, text.d_model]
        self.projector = nn.Sequential(nn.Linear(*sizes[:2]), nn.GELU(), nn.Linear(*sizes[1:]))
        self.t5 = T5ForConditionalGeneration(text)


class VQA(Architecture):
    """Answers a question about a picture (arXiv 2404.01291; zhiqiulin/clip-flant5-xl and -xxl)."""

    title = "CLIP-FlanT5"
    tokenizer_name = "t5"
    half_precision = torch.bfloat16  # T5 overflows in fp16

    def __init__(self, network: _Parts) -> None:
        super().__init__()
        self.network = network
        for reader in (network.t5.encoder, network.t5.decoder):
            reader.embed_tokens = network.t5.shared  # transformers 5 would have copies
        size = network.vision.config.image_size
        self.preprocess = Preprocess(size, fit="stretch")
        for stack in (network.vision.encoder.layers, network.t5.encoder.block):
            recompute(stack)
        recompute(network.t5.decoder.block)

    @classmethod
    def matches(cls, shapes: Shapes) -> bool:
        """Whether these are a projector into a T5, and both."""
        names = set(map(_published, shapes))
        return {f"{_PROJECTOR}2.weight", "encoder.final_layer_norm.weight"} <= names

    @classmethod
    def build(cls, state: Mapping[str, Tensor], config: Mapping | None = None) -> VQA:
        """The network with these weights; sizes are those of the weights where no config is."""
        state = {_published(name): tensor for name, tensor in state.items()}
        if _PATCHES not in state:
            raise ValueError(
                "This CLIP-FlanT5 has no vision tower: get all files of zhiqiulin/clip-flant5-xl."
            )
        text = _t5_config(state, config or {})
        vision = _vision_config(state, (config or {}).get("mm_vision_select_layer", -2))
        state = _renamed(state)
        return cls(assemble(lambda: _Parts(vision, text), state, cls.title))

    @torch.no_grad()
    def tokenize(self, question: str, answer: str) -> tuple[Tensor, Tensor, Tensor]:
        """Token numbers of what comes before the picture, after it, and of the answer."""
        after = _AFTER.replace("{}", question)
        return self._tokens(_BEFORE), self._tokens(after), self._tokens(answer)

    def log_probability(self, image: Tensor, tokens: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """(B,3,H,W) in [0,1], of `tokenize` -> (B,), fp32: the mean over the answer's tokens."""
        before, after, answer = tokens

        def compute(seen: Tensor) -> Tensor:
            return self._logits(seen, before, after, answer)

        logits = encode(self.network, self.image_features(image), compute)
        logarithms = log_softmax(logits, dim=-1)[:, range(len(answer)), answer.tolist()]
        return logarithms.mean(dim=1)

    def image_features(self, image: Tensor) -> Tensor:
        """(B,3,H,W) in [0,1] -> (B,patches,D), as T5 reads them, fp32."""

        def compute(seen: Tensor) -> Tensor:
            return encode(self.network, self.preprocess(square(seen)), self._features)

        return self.shared(image, compute)

    def _features(self, pixels: Tensor) -> Tensor:
        seen = self.network.vision(pixel_values=pixels).last_hidden_state
        return self.network.projector(seen[:, 1:])

    def _logits(self, features: Tensor, before: Tensor, after: Tensor, answer: Tensor) -> Tensor:
        t5, count = self.network.t5, len(features)
        device = features.device
        words = [
            t5.shared(tokens.to(device)).expand(count, -1, -1).to(features)
            for tokens in (before, after)
        ]
        started = pad(answer[:-1], (1, 0), value=t5.config.decoder_start_token_id)
        return t5(
            inputs_embeds=torch.cat([words[0], features, words[1]], dim=1),
            decoder_input_ids=started.to(device).expand(count, -1),
            use_cache=False,
        ).logits

    def _tokens(self, text: str) -> Tensor:
        """T5's words know one kind of blank, and none at the ends; each part has its own end."""
        return torch.tensor(self.tokenizer(" ".join(text.split())).input_ids)


def square(image: Tensor) -> Tensor:
    """(B,3,H,W) -> (B,3,S,S), the longer side long, filled up with CLIP's mean colour.

    >>> square(torch.rand(1, 3, 4, 6)).shape
    torch.Size([1, 3, 6, 6])
    """
    height, width = image.shape[-2:]
    side = max(height, width)
    if height == width:
        return image
    colour = image.new_tensor(_BACKGROUND)[:, None, None]
    top, left = (side - height) // 2, (side - width) // 2
    edges = (left, side - width - left, top, side - height - top)
    return pad(image - colour, edges) + colour


def _t5_config(state: Mapping[str, Tensor], config: Mapping) -> T5Config:
    if "d_model" in config:
        hf_config = T5Config.from_dict(dict(config))
        hf_config.vocab_size = min(len(state["lm_head.weight"]), _VOCABULARY)
        return hf_config
    attention = "encoder.block.0.layer.0.SelfAttention."
    buckets, heads = state[f"{attention}relative_attention_bias.weight"].shape
    width = state[f"{attention}q.weight"].shape
    return T5Config(
        vocab_size=min(len(state["lm_head.weight"]), _VOCABULARY),
        d_model=width[1],
        d_kv=width[0] // heads,
        num_heads=heads,
        d_ff=len(state["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"]),
        num_layers=layers(state, "encoder.block."),
        num_decoder_layers=layers(state, "decoder.block."),
        relative_attention_num_buckets=buckets,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )


def _vision_config(state: Mapping[str, Tensor], layer: int) -> CLIPVisionConfig:
    """The tower up to hidden state number `layer`, which is counted from the end."""
    model = f"{_TOWER}vision_model."
    width, _, patch, _ = state[_PATCHES].shape
    patches = len(state[f"{model}embeddings.position_embedding.weight"]) - 1
    depth = layers(state, f"{model}encoder.layers.")
    return CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=len(state[f"{model}encoder.layers.0.mlp.fc1.bias"]),
        num_hidden_layers=range(depth + 1)[layer],
        num_attention_heads=max(width // 64, 1),
        patch_size=patch,
        image_size=round(patches**0.5) * patch,
        hidden_act="quick_gelu",
    )


def _published(name: str) -> str:
    """The names of RE-N-Y/clip-t5-xxl -> those of zhiqiulin's files."""
    return re.sub("^t5[.]", "", re.sub("^v[.]", _TOWER, name))


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefixes = {f"{_TOWER}vision_model.": "vision.", _PROJECTOR: "projector."}
    ours: dict[str, Tensor] = {}
    for name, tensor in state.items():
        prefix = next((p for p in prefixes if name.startswith(p)), "")
        renamed = prefixes.get(prefix, "t5.") + name[len(prefix) :]
        words = renamed.endswith(("shared.weight", "embed_tokens.weight", "lm_head.weight"))
        ours[renamed] = tensor[:_VOCABULARY] if words else tensor
    if "t5.shared.weight" not in ours and "t5.encoder.embed_tokens.weight" in ours:
        ours["t5.shared.weight"] = ours["t5.encoder.embed_tokens.weight"]
    for stack in ("encoder", "decoder"):
        ours[f"t5.{stack}.embed_tokens.weight"] = ours["t5.shared.weight"]
    return ours
