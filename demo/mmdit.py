"""The denoiser: Stable Diffusion 3's transformer, small, in a compact form that is cheap to train.

Every parameter has its place in the ordinary SD3 state dict (``host_state_dict``). What is
missing there is zero: the text is never rewritten by the blocks, only read, so each block keeps
just the keys and values of its text half. The 61 padding tokens of a prompt are all alike, so
here they are one token whose attention logit is raised by log 61.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .clip import PADDING, POSITIONS, TEXT_WIDTH, Text, Tokens

DEPTH = 4
"""Blocks, and heads too; the width is 64 times this. ComfyUI reads it off the weights."""
WIDTH = 64 * DEPTH
HEAD_WIDTH = 64
CHANNELS = 16
PATCH = 2
GRID = 8
"""Patches along one side of a 128 pixel picture, the only size that is trained."""

_POOLED_WIDTH, _CONTEXT_WIDTH = 2048, 4096  # what ComfyUI's SD3 expects, zero beyond TEXT_WIDTH
_TIME_WIDTH = 256


class Denoiser(nn.Module):
    """Noisy latents, noise levels and prompts -> velocities (noise minus picture)."""

    def __init__(self, words: int) -> None:
        """``words``: rows of the token table."""
        super().__init__()
        self.text = Text(words)
        self.patches_in = nn.Linear(CHANNELS * PATCH**2, WIDTH)
        self.time = _two_layers(_TIME_WIDTH)
        self.pooled = _two_layers(TEXT_WIDTH)
        self.context = nn.Linear(TEXT_WIDTH, WIDTH)
        self.modulation = nn.Linear(WIDTH, 6 * WIDTH, bias=False)
        self.blocks = nn.ModuleList(Block() for _ in range(DEPTH))
        self.last_modulation = nn.Linear(WIDTH, 2 * WIDTH)
        self.patches_out = nn.Linear(WIDTH, CHANNELS * PATCH**2)
        self.register_buffer("places", _sine_places(), persistent=False)
        bias = torch.zeros(POSITIONS + GRID**2)
        bias[POSITIONS - 1] = math.log(PADDING)
        self.register_buffer("bias", bias, persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for layer in (self.modulation, self.last_modulation, self.patches_out):
            nn.init.zeros_(layer.weight)
        for layer in (self.time[0], self.time[2]):
            nn.init.normal_(layer.weight, std=0.02)

    def forward(self, latent: Tensor, sigma: Tensor, tokens: Tokens) -> Tensor:
        """latent (B, 16, 16, 16), sigma (B,) in [0, 1] -> velocity like the latent."""
        hidden, pooled = self.text(tokens)
        signal = F.silu(self.time(_time_features(sigma * 1000)) + self.pooled(pooled))
        context = _normalised(self.context(hidden))
        modulation = self.modulation(signal)
        image = self.patches_in(_to_patches(latent)) + self.places
        for block in self.blocks:
            image = block(image, context, modulation, self.bias)
        shift, scale = self.last_modulation(signal)[:, None].chunk(2, -1)
        return _from_patches(self.patches_out(_modulated(image, scale, shift)))


class Block(nn.Module):
    """Attention of the image to text and image, then a perceptron, both modulated."""

    def __init__(self) -> None:
        super().__init__()
        self.image_qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.text_kv = nn.Linear(WIDTH, 2 * WIDTH)
        self.attention_out = nn.Linear(WIDTH, WIDTH)
        self.expand = nn.Linear(WIDTH, 4 * WIDTH)
        self.contract = nn.Linear(4 * WIDTH, WIDTH)
        self.image_q_norm = nn.Parameter(torch.ones(HEAD_WIDTH))
        self.image_k_norm = nn.Parameter(torch.ones(HEAD_WIDTH))
        self.text_k_norm = nn.Parameter(torch.ones(HEAD_WIDTH))
        self.modulation_bias = nn.Parameter(torch.zeros(6 * WIDTH))

    def forward(self, image: Tensor, context: Tensor, modulation: Tensor, bias: Tensor) -> Tensor:
        modulation = modulation + self.modulation_bias.to(modulation.dtype)
        parts = modulation[:, None].chunk(6, -1)
        shift, scale, gate, shift_2, scale_2, gate_2 = parts
        attended = self._attend(_modulated(image, scale, shift), context, bias)
        image = image + gate * self.attention_out(attended)
        hidden = self.expand(_modulated(image, scale_2, shift_2))
        return image + gate_2 * self.contract(F.gelu(hidden, approximate="tanh"))

    def _attend(self, image: Tensor, context: Tensor, bias: Tensor) -> Tensor:
        query, key, value = _heads(self.image_qkv(image), 3)
        text_key, text_value = _heads(self.text_kv(context), 2)
        query = _root_mean_square_norm(query, self.image_q_norm) * HEAD_WIDTH**-0.5
        key = _root_mean_square_norm(key, self.image_k_norm)
        text_key = _root_mean_square_norm(text_key, self.text_k_norm)
        key, value = torch.cat([text_key, key], 2), torch.cat([text_value, value], 2)
        attention = torch.softmax(query @ key.transpose(-1, -2) + bias, -1)
        return (attention @ value).transpose(1, 2).flatten(2)


def host_state_dict(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a ``Denoiser`` under ComfyUI's names for an SD3 model."""
    host = {"x_embedder.proj.bias": state["patches_in.bias"]}
    host["x_embedder.proj.weight"] = state["patches_in.weight"].view(WIDTH, CHANNELS, PATCH, PATCH)
    for ours, theirs in (("time", "t_embedder"), ("pooled", "y_embedder")):
        for part in ("0.weight", "0.bias", "2.weight", "2.bias"):
            host[f"{theirs}.mlp.{part}"] = state[f"{ours}.{part}"]
    host["y_embedder.mlp.0.weight"] = _widened(state["pooled.0.weight"], _POOLED_WIDTH)
    host["context_embedder.weight"] = _widened(state["context.weight"], _CONTEXT_WIDTH)
    host["context_embedder.bias"] = state["context.bias"]
    for part in ("weight", "bias"):
        host[f"final_layer.linear.{part}"] = state[f"patches_out.{part}"]
        host[f"final_layer.adaLN_modulation.1.{part}"] = state[f"last_modulation.{part}"]
    for index in range(DEPTH):
        prefix = f"blocks.{index}."
        block = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        image = _image_half(block, state["modulation.weight"])
        text = _text_half(block, last=index == DEPTH - 1)
        host |= {f"joint_blocks.{index}.x_block.{k}": v for k, v in image.items()}
        host |= {f"joint_blocks.{index}.context_block.{k}": v for k, v in text.items()}
    return {f"model.diffusion_model.{name}": weight for name, weight in host.items()}


def _image_half(block: dict[str, Tensor], modulation: Tensor) -> dict[str, Tensor]:
    half = {
        "adaLN_modulation.1.weight": modulation,
        "adaLN_modulation.1.bias": block["modulation_bias"],
        "attn.ln_q.weight": block["image_q_norm"],
        "attn.ln_k.weight": block["image_k_norm"],
    }
    names = {
        "image_qkv": "attn.qkv",
        "attention_out": "attn.proj",
        "expand": "mlp.fc1",
        "contract": "mlp.fc2",
    }
    for ours, theirs in names.items():
        for part in ("weight", "bias"):
            half[f"{theirs}.{part}"] = block[f"{ours}.{part}"]
    return half


def _text_half(block: dict[str, Tensor], last: bool) -> dict[str, Tensor]:
    """Keys and values only: no queries, and gates of zero, so the text stays as it is."""
    half = {
        "attn.ln_q.weight": torch.ones(HEAD_WIDTH),
        "attn.ln_k.weight": block["text_k_norm"],
        "adaLN_modulation.1.weight": torch.zeros((2 if last else 6) * WIDTH, WIDTH),
        "adaLN_modulation.1.bias": torch.zeros((2 if last else 6) * WIDTH),
    }
    for part in ("weight", "bias"):
        keys_values = block[f"text_kv.{part}"]
        half[f"attn.qkv.{part}"] = torch.cat([torch.zeros_like(keys_values[:WIDTH]), keys_values])
    if not last:
        sizes = {"attn.proj": (WIDTH, WIDTH)}
        sizes |= {"mlp.fc1": (4 * WIDTH, WIDTH), "mlp.fc2": (WIDTH, 4 * WIDTH)}
        for name, size in sizes.items():
            half[f"{name}.weight"], half[f"{name}.bias"] = torch.zeros(size), torch.zeros(size[0])
    return half


def _two_layers(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH))


def _widened(weight: Tensor, inputs: int) -> Tensor:
    return F.pad(weight, (0, inputs - weight.shape[1]))


def _normalised(features: Tensor) -> Tensor:
    return F.layer_norm(features, (WIDTH,), eps=1e-6)


def _modulated(features: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.addcmul(shift, _normalised(features).to(shift.dtype), 1 + scale)


def _root_mean_square_norm(heads: Tensor, weight: Tensor) -> Tensor:
    square = heads.square().mean(-1, keepdim=True, dtype=torch.float32)
    return heads * torch.rsqrt(square + 1e-6).to(heads.dtype) * weight.to(heads.dtype)


def _heads(features: Tensor, parts: int) -> tuple[Tensor, ...]:
    """(B, N, parts * WIDTH) -> ``parts`` tensors (B, heads, N, HEAD_WIDTH)."""
    split = features.unflatten(-1, (parts, DEPTH, HEAD_WIDTH))
    return tuple(part.transpose(1, 2) for part in split.unbind(2))


def _to_patches(latent: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, patches, C * 4)."""
    tiles = latent.unflatten(3, (GRID, PATCH)).unflatten(2, (GRID, PATCH))
    return tiles.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def _from_patches(patches: Tensor) -> Tensor:
    """(B, patches, 4 * C) -> (B, C, H, W); SD3 writes the channel last."""
    tiles = patches.unflatten(2, (PATCH, PATCH, CHANNELS)).unflatten(1, (GRID, GRID))
    return tiles.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


def _time_features(time: Tensor) -> Tensor:
    half = _TIME_WIDTH // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, device=time.device) / half)
    angles = time[:, None].float() * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)


def _sine_places() -> Tensor:
    """ComfyUI's position code for a model without ``pos_embed``, (patches, WIDTH)."""
    places = torch.linspace(0, 15, GRID)
    frequencies = 10000.0 ** -(torch.arange(WIDTH // 4) / (WIDTH / 4))
    angles = places[:, None] * frequencies
    code = torch.cat([angles.sin(), angles.cos()], 1)
    columns, rows = code.repeat(GRID, 1), code.repeat_interleave(GRID, 0)
    return torch.cat([columns, rows], 1)
