"""MPS: a CLIP-H whose patches look at those words of the prompt that matter to people."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention, silu

from .building import Shapes, assemble, layers
from .clip import CLIP
from .network import Architecture
from .running import encode, recompute, unit

_STEMS = ("mps.", "")  # of RE-N-Y/mpsv1, and of Kwai-Kolors' own network
_CROSS = "cross_model.layers."
_TURNS = f"{_CROSS}0.1.fn.rotary_emb.inv_freq"
_UNSEEN = 0.01  # words whose likeness to the condition is less than this share of the best word's
_CONDITION = (
    "light, color, clarity, tone, style, ambiance, artistry, shape, face, hair, hands, limbs, "
    "structure, instance, texture, quantity, attributes, position, number, location, word, things."
)  # what people look at, as the published weights were trained on it


class Prompt(NamedTuple):
    """What is needed of a prompt, fp32 on the CPU."""

    words: Tensor  # (1,77,D)
    seen: Tensor  # (1,1,77), true for words that patches look at
    whole: Tensor  # (1,D) of unit length


class MPSModel(Architecture):
    """Judges a picture for a prompt (arXiv 2405.14705; Kwai-Kolors/MPS, RE-N-Y/mpsv1)."""

    title = "MPS"
    tokenizer_name = "clip"

    def __init__(self, clip: CLIP, cross: _Cross) -> None:
        super().__init__()
        self.clip, self.cross = clip, cross
        recompute(cross.layers)

    @classmethod
    def matches(cls, shapes: Shapes) -> bool:
        """Whether these are a CLIP and what lets its patches look at words."""
        return any(f"{stem}{_CROSS}0.0.fn.to_q.weight" in shapes for stem in _STEMS)

    @classmethod
    def build(cls, state: Mapping[str, Tensor], config: Mapping | None = None) -> MPSModel:
        """The network with these weights; its sizes are theirs: no published config has them."""
        stem = next(stem for stem in _STEMS if f"{stem}{_CROSS}0.0.fn.to_q.weight" in state)
        state = {n[len(stem) :]: t for n, t in state.items() if n.startswith(stem)}
        clip = {n.removeprefix("model."): t for n, t in state.items() if n.startswith("model.")}
        if not CLIP.matches({name: tuple(tensor.shape) for name, tensor in clip.items()}):
            raise ValueError("This MPS file is incomplete: it has no CLIP; get RE-N-Y/mpsv1.")
        sizes, turns = _Sizes.of(state), state.get(_TURNS)
        parts = {_rename(n): t for n, t in state.items() if n.startswith(_CROSS)}
        cross = assemble(lambda: _Cross(sizes, turns), parts, cls.title)
        return cls(CLIP.build(clip), cross)

    @torch.no_grad()
    def text_embed(self, prompt: str) -> Prompt:
        """The prompt's words, which of them matter, and its sense; beyond 77 tokens it is cut."""
        self.clip.tokenizer = self.tokenizer
        network = self.clip.network
        projection = network.text_projection
        read = network.text_model(
            input_ids=self.clip.tokenize([prompt, _CONDITION]).to(projection.weight.device)
        )
        words, condition = projection(read.last_hidden_state).cpu().float().split(1)
        likeness = (condition @ words.transpose(1, 2)).amax(dim=1, keepdim=True)
        whole = unit(projection(read.pooler_output[:1]).cpu().float())
        return Prompt(words, likeness / likeness.max() > _UNSEEN, whole)

    def reward(self, image: Tensor, prompt: Prompt) -> Tensor:
        """(B,3,H,W) in [0,1], a prompt -> (B,), fp32: exp(logit_scale) times a cosine."""

        def compute(patches: Tensor) -> Tensor:
            return self.cross(patches, prompt.words.to(patches), prompt.seen.to(patches.device))

        judged = unit(encode(self.cross, self.image_features(image), compute))
        return self.clip.scale * (judged * prompt.whole.to(judged)).sum(dim=1)

    def image_features(self, image: Tensor) -> Tensor:
        """(B,3,H,W) in [0,1] -> (B,1+patches,D) in the space of words, fp32."""
        network = self.clip.network

        def see(pixels: Tensor) -> Tensor:
            return network.visual_projection(network.vision_model(pixels).last_hidden_state)

        def compute(seen: Tensor) -> Tensor:
            return encode(network.vision_model, self.clip.preprocess(seen), see)

        return self.shared(image, compute)


class _Sizes(NamedTuple):
    """Of each layer."""

    width: int
    heads: int
    head: int  # the width of each; keys and values have only one
    inner: int  # the width within feed-forward
    depth: int

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> _Sizes:
        queries, width = state[f"{_CROSS}0.0.fn.to_q.weight"].shape
        head = len(state[f"{_CROSS}0.0.fn.to_kv.weight"]) // 2
        inner = state[f"{_CROSS}0.0.fn.ff.2.weight"].shape[1]
        return cls(width, queries // head, head, inner, layers(state, _CROSS))


class _Cross(nn.Module):
    """Patches (B,N,D), words (1,M,D), which of them are seen (1,1,M) -> (B,D)."""

    def __init__(self, sizes: _Sizes, turns: Tensor | None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(sizes) for _ in range(sizes.depth))
        if turns is None:
            turns = 10000 ** -(torch.arange(0, sizes.head, 2) / sizes.head)
        self.turns = turns.float()  # radians per position; no buffer: it is never in half precision

    def forward(self, patches: Tensor, words: Tensor, seen: Tensor) -> Tensor:
        positions = torch.arange(patches.shape[1], device=patches.device)
        angles = (positions[:, None] * self.turns.to(positions.device)).repeat(1, 2)
        turn = torch.stack([angles.cos(), angles.sin()]).to(patches)
        for layer in self.layers:
            patches = layer(patches, words, seen, turn)
        return patches[:, 0]


class _Layer(nn.Module):
    """Patches look at words, then at each other."""

    def __init__(self, sizes: _Sizes) -> None:
        super().__init__()
        self.at_words = _AtWords(sizes)
        self.at_patches = _AtPatches(sizes)

    def forward(self, patches: Tensor, words: Tensor, seen: Tensor, turn: Tensor) -> Tensor:
        patches = patches + self.at_words(patches, words, seen)
        return patches + self.at_patches(patches, turn)


class _AtWords(nn.Module):
    def __init__(self, sizes: _Sizes) -> None:
        super().__init__()
        width, inner, queries = sizes.width, sizes.inner, sizes.heads * sizes.head
        self.heads = sizes.heads
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, queries, bias=False)
        self.to_kv = nn.Linear(width, 2 * sizes.head, bias=False)
        self.to_out = nn.Linear(queries, width, bias=False)
        into, out = nn.Linear(width, 2 * inner, bias=False), nn.Linear(inner, width, bias=False)
        self.ff = nn.Sequential(into, _SwiGLU(), out)

    def forward(self, patches: Tensor, words: Tensor, seen: Tensor) -> Tensor:
        patches = self.norm(patches)
        queries = self.to_q(patches).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        keys, values = self.to_kv(words).chunk(2, dim=-1)
        return self.to_out(_attend(queries, keys, values, seen[:, None])) + self.ff(patches)


class _AtPatches(nn.Module):
    def __init__(self, sizes: _Sizes) -> None:
        super().__init__()
        width, inner, queries = sizes.width, sizes.inner, sizes.heads * sizes.head
        self.heads = sizes.heads
        self.norm = nn.LayerNorm(width)
        self.parts = (queries, sizes.head, sizes.head, 2 * inner)
        self.fused_attn_ff_proj = nn.Linear(width, sum(self.parts), bias=False)
        self.attn_out = nn.Linear(queries, width, bias=False)
        self.ff_out = nn.Sequential(_SwiGLU(), nn.Linear(inner, width, bias=False))

    def forward(self, patches: Tensor, turn: Tensor) -> Tensor:
        parts = self.fused_attn_ff_proj(self.norm(patches)).split(self.parts, dim=-1)
        queries, keys, values, wide = parts
        queries = queries.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        attended = _attend(_turned(queries, turn), _turned(keys, turn), values)
        return self.attn_out(attended) + self.ff_out(wide)


class _SwiGLU(nn.Module):
    """arXiv 2002.05202"""

    def forward(self, wide: Tensor) -> Tensor:
        value, gate = wide.chunk(2, dim=-1)
        return silu(gate) * value


def _attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Queries (B,H,N,D) of several heads, keys and values (B or 1,M,D) of one -> (B,N,H*D)."""
    batch, heads = queries.shape[:2]
    keys, values = (part[:, None].expand(batch, heads, -1, -1) for part in (keys, values))
    attended = scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
    return attended.transpose(1, 2).flatten(2)


def _turned(vectors: Tensor, turn: Tensor) -> Tensor:
    """(...,N,D) turned by their positions (arXiv 2104.09864); `turn`: cosines and sines (2,N,D)."""
    first, second = vectors.chunk(2, dim=-1)
    return vectors * turn[0] + torch.cat([-second, first], dim=-1) * turn[1]


def _rename(name: str) -> str:
    kinds = {"0": "at_words", "1": "at_patches"}
    return re.sub(
        r"^cross_model\.layers\.(\d+)\.([01])\.fn\.",
        lambda match: f"layers.{match[1]}.{kinds[match[2]]}.",
        name,
    )
