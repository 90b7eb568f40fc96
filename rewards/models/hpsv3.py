"""HPSv3: a Qwen2-VL that reads picture and prompt, and a head that gives a reward."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from transformers import Qwen2VLConfig, Qwen2VLModel

from .building import Shapes, assemble, layers
from .hpsv3_question import QUESTION
from .network import Architecture
from .qwen import grids, prepare
from .running import encode, recompute

_PIXELS = 256 * 28 * 28
_REWARD = 151657  # the token that was added to Qwen2-VL's and at which the head reads
_BEFORE = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n<|vision_start|>"
)
_AFTER = "<|vision_end|>" + QUESTION
_HEAD_WIDTH, _TOWER_HEAD_WIDTH = 128, 80  # of one attention head, in every size of Qwen2-VL
_WORDS = "language_model.embed_tokens.weight"


class _Parts(nn.Module):
    """Qwen2-VL without its word head, and the reward's head."""

    def __init__(self, config: Qwen2VLConfig, widths: list[int]) -> None:
        super().__init__()
        self.model = Qwen2VLModel(config)
        inner = [nn.Linear(before, after) for before, after in pairwise(widths)]
        self.rm_head = nn.Sequential(
            inner[0], nn.ReLU(), nn.Dropout(0.05), inner[1], nn.ReLU(), inner[2]
        )


class HPSv3(Architecture):
    """Scores a picture for a prompt (arXiv 2508.03789; MizzenAI/HPSv3)."""

    title = "HPSv3"
    tokenizer_name = "qwen2"
    half_precision = torch.bfloat16  # as it was trained; fp16 overflows
    as_stored = ("network.rm_head.",)  # prefixes of weights that no half precision makes coarser

    def __init__(self, network: _Parts) -> None:
        super().__init__()
        self.network = network
        recompute(network.model.visual.blocks)
        recompute(network.model.language_model.layers)
        _hold(network.rm_head, torch.promote_types)
        # It was trained with bf16 angles, an error that its weights have learned to live with.
        for rotary in (
            network.model.visual.rotary_pos_emb,
            network.model.language_model.rotary_emb,
        ):
            rotary.inv_freq = rotary.inv_freq.bfloat16()
            _hold(rotary, lambda own, wanted: own)

    @classmethod
    def matches(cls, shapes: Shapes) -> bool:
        """Whether these are a Qwen2-VL with HPSv3's head."""
        names = {_rename(name) for name in shapes}
        return {"rm_head.5.weight", "model.visual.patch_embed.proj.weight"} <= names

    @classmethod
    def build(cls, state: Mapping[str, Tensor], config: Mapping | None = None) -> HPSv3:
        """The network with these weights; sizes are those of the weights where no config is."""
        state = {_rename(name): tensor for name, tensor in state.items()}
        words = len(state[f"model.{_WORDS}"])
        if words <= _REWARD:
            raise ValueError("This HPSv3 file lacks the word <|Reward|>: get MizzenAI/HPSv3.")
        given = dict(config or {})
        full = {"text_config", "num_attention_heads"} & given.keys()
        hf_config = Qwen2VLConfig.from_dict(given) if full else _config_of(state)
        hf_config.text_config.vocab_size = words
        heads = [state[f"rm_head.{i}.weight"] for i in (0, 3, 5)]
        widths = [heads[0].shape[1], *(len(head) for head in heads)]
        return cls(assemble(lambda: _Parts(hf_config, widths), state, cls.title))

    def tokenize(self, prompt: str) -> tuple[Tensor, Tensor]:
        """Token numbers of what comes before the picture and after it, up to where it is judged."""
        after = [*self.tokenizer(_AFTER.replace("{}", prompt)).input_ids, _REWARD]
        return torch.tensor(self.tokenizer(_BEFORE).input_ids), torch.tensor(after)

    def reward(self, image: Tensor, tokens: tuple[Tensor, Tensor]) -> Tensor:
        """(B,3,H,W) in [0,1], what `tokenize` gave -> (B,2): the reward's mean and spread, fp32."""

        def compute(features: Tensor) -> Tensor:
            return self._read(features, *tokens)

        return encode(self.network, self.image_features(image), compute)

    def image_features(self, image: Tensor) -> Tensor:
        """(B,3,H,W) in [0,1] -> (B,tokens,D), as the language model reads them, fp32."""

        def compute(seen: Tensor) -> Tensor:
            patches, shape = prepare(seen, _PIXELS)
            return encode(self.network, patches, lambda given: self._look(given, shape))

        return self.shared(image, compute)

    def _look(self, patches: Tensor, shape: tuple[int, int]) -> Tensor:
        grid = grids(len(patches), shape, patches.device)
        tokens = self.network.model.visual(patches.flatten(0, 1), grid_thw=grid)
        tokens = getattr(tokens, "pooler_output", tokens)  # transformers 5, and 4
        return tokens.unflatten(0, (len(patches), -1))

    def _read(self, features: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """Words see only what is before them, so nothing is read after the reward's own."""
        model, count = self.network.model.language_model, len(features)
        words = [
            model.embed_tokens(tokens.to(features.device)).expand(count, -1, -1)
            for tokens in (before, after)
        ]
        # Positions are numbered through, pictures too, as in the original and unlike in Qwen2-VL.
        read = model(inputs_embeds=torch.cat([words[0], features, words[1]], 1), use_cache=False)
        last = read.last_hidden_state[:, -1]
        return self.network.rm_head(last.to(self.network.rm_head[0].weight.dtype))


def _rename(name: str) -> str:
    """The names of transformers until 4.51, which the file has, or the newer ones -> our own."""
    if name.startswith("visual."):
        return f"model.{name}"
    return re.sub(r"^model\.(?!visual\.|language_model\.)", "model.language_model.", name)


def _config_of(state: Mapping[str, Tensor]) -> Qwen2VLConfig:
    layer, tower = "model.language_model.layers.", "model.visual."
    width = state[f"model.{_WORDS}"].shape[1]
    sight = len(state[f"{tower}patch_embed.proj.weight"])
    text = {
        "vocab_size": len(state[f"model.{_WORDS}"]),
        "hidden_size": width,
        "intermediate_size": len(state[f"{layer}0.mlp.gate_proj.weight"]),
        "num_hidden_layers": layers(state, layer),
        "num_attention_heads": len(state[f"{layer}0.self_attn.q_proj.bias"]) // _HEAD_WIDTH,
        "num_key_value_heads": len(state[f"{layer}0.self_attn.k_proj.bias"]) // _HEAD_WIDTH,
        "rope_theta": 1e6,
        "rms_norm_eps": 1e-6,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    }
    vision = {
        "depth": layers(state, f"{tower}blocks."),
        "embed_dim": sight,
        "hidden_size": width,
        "num_heads": sight // _TOWER_HEAD_WIDTH,
        "mlp_ratio": len(state[f"{tower}blocks.0.mlp.fc1.bias"]) // sight,
    }
    return Qwen2VLConfig(text_config=text, vision_config=vision)


def _hold(part: nn.Module, precision: Callable[[torch.dtype, torch.dtype], torch.dtype]) -> None:
    """From now on `part.to(...)` gives its tensors `precision(own, wanted)`."""
    apply = part._apply

    def held(change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        def moved(tensor: Tensor) -> Tensor:
            wanted = change(tensor.new_empty(0))
            return tensor.to(wanted.device, precision(tensor.dtype, wanted.dtype))

        return apply(moved, recurse)

    part._apply = held  # type: ignore[method-assign]
