"""The text encoder: a CLIP-L that is written down rather than trained.

Only its token table is learned. Of its twelve layers, the first does two things with hand-set
attention heads, the rest do nothing: every word is joined by the word before it, so that a
colour binds to its noun, and by the mean of all words so far, so that the vector pooled at the
end of the prompt holds the whole prompt. Unknown words are the zero vector.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

TEXT_WIDTH = 768
WORD_WIDTH = 128
"""Width of the learned word vectors; the rest of the 768 is bookkeeping."""
POSITIONS = 17
"""Distinct positions: tokens 16 to 76 share the last one."""
LENGTH = 77
PADDING = LENGTH - POSITIONS + 1
"""How many tokens a short prompt's last position stands for."""
BEGIN, END = 49406, 49407

_VOCABULARY, _LAYERS = 49408, 12
_POSITION = WORD_WIDTH  # first of the dimensions that hold the position, one-hot
_FLAG = WORD_WIDTH + POSITIONS  # 1 on the begin and end tokens, 0 on words
_PREVIOUS = _FLAG + 1  # first of those that receive the previous word
_MEAN = _PREVIOUS + WORD_WIDTH  # first of those that receive the mean of the words so far
_POSITION_SIZE, _FLAG_SIZE = 2.0, 4.0
_PREFIX = "text_encoders.clip_l.transformer.text_model."


@dataclass(frozen=True)
class Tokens:
    """Prompts as ``POSITIONS`` tokens each."""

    rows: Tensor
    """(B, POSITIONS) rows of the token table; row 0 is zero: unknown words, begin, end."""
    special: Tensor
    """(B, POSITIONS) true on the begin and end tokens."""
    end: Tensor
    """(B,) position of the first end token, where the prompt is pooled."""

    def __getitem__(self, index) -> "Tokens":
        return Tokens(self.rows[index], self.special[index], self.end[index])

    @staticmethod
    def cat(parts: "list[Tokens]") -> "Tokens":
        """Several batches as one."""
        return Tokens(
            torch.cat([part.rows for part in parts]),
            torch.cat([part.special for part in parts]),
            torch.cat([part.end for part in parts]),
        )


class Text(nn.Module):
    """What the assembled CLIP-L computes, for training."""

    def __init__(self, words: int) -> None:
        super().__init__()
        self.table = nn.Embedding(words, WORD_WIDTH, padding_idx=0)
        nn.init.normal_(self.table.weight, std=0.5)
        with torch.no_grad():
            self.table.weight[0] = 0
        self.register_buffer("places", _position_table()[:POSITIONS], persistent=False)

    def forward(self, tokens: Tokens) -> tuple[Tensor, Tensor]:
        """Token states (B, POSITIONS, 768) and pooled states (B, 768)."""
        batch = len(tokens.end)
        words = self.table(tokens.rows)
        flag = _FLAG_SIZE * tokens.special[..., None].float()
        places = self.places[:, _POSITION:_FLAG].expand(batch, -1, -1)
        rest = torch.zeros(batch, POSITIONS, TEXT_WIDTH - _PREVIOUS, device=words.device)
        state = torch.cat([words, places, flag, rest], -1)
        value = F.layer_norm(state, (TEXT_WIDTH,))[..., :WORD_WIDTH]
        previous = torch.cat([value[:, :1], value[:, :-1]], 1)
        mean = _causal_mean(value, ~tokens.special)
        state = torch.cat([state[..., :_PREVIOUS], previous, mean, rest[..., 2 * WORD_WIDTH :]], -1)
        pooled = state[torch.arange(batch, device=words.device), tokens.end]
        return state, F.layer_norm(pooled, (TEXT_WIDTH,))


def host_state_dict(table: Tensor, identifiers: Tensor) -> dict[str, Tensor]:
    """A CLIP-L for ComfyUI in which token ``identifiers[i]`` has the vector ``table[i + 1]``."""
    tokens = torch.zeros(_VOCABULARY, TEXT_WIDTH, dtype=torch.half)
    tokens[identifiers.long(), :WORD_WIDTH] = table[1:].half()
    for special in (BEGIN, END):
        tokens[special] = 0
        tokens[special, _FLAG] = _FLAG_SIZE
    state = {
        "embeddings.token_embedding.weight": tokens,
        "embeddings.position_embedding.weight": _position_table(),
        "final_layer_norm.weight": torch.ones(TEXT_WIDTH),
        "final_layer_norm.bias": torch.zeros(TEXT_WIDTH),
    }
    for index in range(_LAYERS):
        layer = _silent_layer()
        if index == 0:
            _set_heads(layer)
        state |= {f"encoder.layers.{index}.{name}": weight for name, weight in layer.items()}
    return {_PREFIX + name: weight for name, weight in state.items()}


def _position_table() -> Tensor:
    table = torch.zeros(LENGTH, TEXT_WIDTH)
    places = torch.arange(LENGTH)
    table[places, _POSITION + places.clamp(max=POSITIONS - 1)] = _POSITION_SIZE
    return table


def _causal_mean(value: Tensor, is_word: Tensor) -> Tensor:
    """Mean of the words up to each token; of all tokens where there is no word yet."""
    weight = is_word.float()
    count = weight.cumsum(1)
    words = (value * weight[..., None]).cumsum(1) / count.clamp(min=1)[..., None]
    position = torch.arange(1, value.shape[1] + 1, device=value.device)
    everything = value.cumsum(1) / position[:, None]
    return torch.where((count == 0)[..., None], everything, words)


def _silent_layer() -> dict[str, Tensor]:
    """A transformer layer that adds nothing."""
    sizes = {f"self_attn.{part}_proj": (TEXT_WIDTH, TEXT_WIDTH) for part in ("q", "k", "v", "out")}
    sizes |= {"mlp.fc1": (4 * TEXT_WIDTH, TEXT_WIDTH), "mlp.fc2": (TEXT_WIDTH, 4 * TEXT_WIDTH)}
    layer = {f"{name}.weight": torch.zeros(size, dtype=torch.half) for name, size in sizes.items()}
    layer |= {f"{name}.bias": torch.zeros(size[0]) for name, size in sizes.items()}
    for norm in ("layer_norm1", "layer_norm2"):
        layer |= {f"{norm}.{part}": torch.zeros(TEXT_WIDTH) for part in ("weight", "bias")}
    return layer


def _set_heads(layer: dict[str, Tensor]) -> None:
    """Heads 0 and 1 copy the previous word, heads 2 and 3 average the words so far.

    A head is 64 wide, a word vector 128: each job takes two heads. The layer norm shifts every
    dimension by the same small mean; an unused dimension carries it, and is subtracted.
    """
    layer["layer_norm1.weight"][:] = 1
    query, key, value, out = (layer[f"self_attn.{p}_proj.weight"] for p in ("q", "k", "v", "out"))
    unused, sharpness = TEXT_WIDTH - 1, 3.0
    for head in (0, 1):
        for place in range(POSITIONS):
            row = 64 * head + place
            if place + 1 < POSITIONS:
                query[row, _POSITION + place + 1] = sharpness
                query[row, unused] = -sharpness
            key[row, _POSITION + place] = sharpness
            key[row, unused] = -sharpness
    for head in (2, 3):
        row = 64 * head
        layer["self_attn.q_proj.bias"][row] = 8.0
        key[row, _FLAG] = -4.0
        key[row, unused] = 4.0
    word = torch.arange(WORD_WIDTH)
    value[word, word] = 1
    value[WORD_WIDTH + word, word] = 1
    out[_PREVIOUS + word, word] = 1
    out[_MEAN + word, WORD_WIDTH + word] = 1
