"""LRM: the first half of a Stable Diffusion's UNet, which scores latents without decoding them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from .building import Shapes, assemble
from .network import Architecture
from .running import encode, recompute, unit

_GUIDANCE = 7.5  # of what the middle of the UNet says, as it was trained
_STEPS, _BETAS = 1000, (0.00085, 0.012)  # Stable Diffusion's noise schedule, "scaled linear"
_PIXELS = 8  # a latent's


@dataclass(frozen=True)
class Words:
    """A prompt and the empty one, (2,...) each, on the CPU: what the UNet reads."""

    states: Tensor
    pooled: Tensor | None
    embed: Tensor  # (1,D), of unit length, fp32: what the UNet's answer is compared with


class _Parts(nn.Module):
    """The UNet without its way up, one text encoder or two, and the projections."""

    unet: Any

    def __init__(self, config: Mapping, shapes: Shapes) -> None:
        super().__init__()
        self.unet = _unet(config["unet"])
        reader = CLIPTextModel(CLIPTextConfig.from_dict(config["text_encoder"]))
        self.text_encoder = getattr(reader, "text_model", reader)  # transformers 4, and 5
        second = config.get("text_encoder_2")
        if second:
            hf_config = CLIPTextConfig.from_dict(second)
            self.text_encoder_2 = CLIPTextModelWithProjection(hf_config)
        else:
            self.text_projection = _linear(shapes["text_projection.weight"])
        self.visual_projection = _linear(shapes["visual_projection.weight"])
        self.logit_scale = nn.Parameter(torch.empty(()))


class LRM(Architecture):
    """Scores noisy latents for a prompt (arXiv 2502.01051; casiatao/LRM, for SD 1.5 and SDXL)."""

    title = "LRM"
    tokenizer_name = "clip"

    def __init__(self, network: _Parts) -> None:
        super().__init__()
        self.network = network
        self._scale = network.logit_scale.float().exp().item()
        recompute(_layers(network.unet))

    @classmethod
    def matches(cls, shapes: Shapes) -> bool:
        """Whether these are a UNet and a projection of what it sees."""
        return {"unet.conv_in.weight", "visual_projection.weight", "logit_scale"} <= shapes.keys()

    @classmethod
    def build(cls, state: Mapping[str, Tensor], config: Mapping | None = None) -> LRM:
        """The network with these weights; config: of each part, by its name.

        Raises ModuleNotFoundError, one sentence, where diffusers is missing.
        """
        if not config or "unet" not in config:
            raise ValueError("LRM is read from its folder: get all files of casiatao/LRM's lrm_...")
        reader = "text_encoder."
        state = {n.replace(f"{reader}text_model.", reader, 1): t for n, t in state.items()}
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        return cls(assemble(lambda: _Parts(config, shapes), state, cls.title))

    @torch.no_grad()
    def text_embed(self, prompt: str) -> Words:
        """What the UNet reads, with and without the prompt."""
        network, prompts = self.network, (prompt, "")
        if not hasattr(network, "text_encoder_2"):
            read = network.text_encoder(self._tokens(prompts))
            embed = network.text_projection(read.pooler_output[:1])
            return Words(read.last_hidden_state.cpu(), None, unit(embed.cpu().float()))
        first = network.text_encoder(self._tokens(prompts), output_hidden_states=True)
        second = network.text_encoder_2(self._tokens(prompts, 0), output_hidden_states=True)
        states = [read.hidden_states[-2] for read in (first, second)]
        pooled = second.text_embeds.cpu()
        return Words(torch.cat(states, -1).cpu(), pooled, unit(pooled[:1].float()))

    def reward(self, latent: Tensor, words: Words, timestep: int) -> Tensor:
        """(B,4,h,w) as the UNet knows it -> (B,), fp32: the scaled cosine at that timestep.

        The noise of the timestep is the same at every call and for every image.
        """
        channels = self.network.unet.config.in_channels
        if latent.ndim != 4 or latent.shape[1] != channels:
            raise ValueError(
                f"LRM scores latents of {channels} channels of the Stable Diffusion that it was "
                f"made of, not {tuple(latent.shape[1:])}; take another reward for this model"
            )
        seen = encode(
            self.network, noisy(latent, timestep), lambda given: self._see(given, words, timestep)
        )
        return self._scale * (unit(seen) * words.embed.to(seen)).sum(dim=1)

    def _see(self, latent: Tensor, words: Words, timestep: int) -> Tensor:
        """(B,4,h,w) -> (B,D): the mean of every stage, of the last one with guidance."""
        unet, count = self.network.unet, len(latent)
        states, pooled = (
            None if part is None else part.to(latent).repeat_interleave(count, dim=0)
            for part in (words.states, words.pooled)
        )
        at = torch.full((2 * count,), timestep, device=latent.device)
        both = torch.cat([latent, latent])
        stages = _way_down(unet, both, at, states, self._added(pooled))
        means = [stage.mean(dim=(2, 3)) for stage in stages]
        prompted, empty = means[-1].chunk(2)
        guided = empty + _GUIDANCE * (prompted - empty)
        seen = torch.cat([*(mean[:count] for mean in means[:-1]), guided], dim=1)
        return self.network.visual_projection(seen)

    def _added(self, pooled: Tensor | None) -> dict[str, Tensor]:
        """What SDXL's UNet is told besides: the pooled words, sizes and crop."""
        if pooled is None:
            return {}
        side = float(self.network.unet.config.sample_size * _PIXELS)
        times = pooled.new_tensor([[side, side, 0, 0, side, side]]).expand(len(pooled), -1)
        return {"text_embeds": pooled, "time_ids": times}

    def _tokens(self, prompts: Sequence[str], filler: int | None = None) -> Tensor:
        """(P,77) token numbers; filler: what follows the end, or the end itself."""
        length = self.network.text_encoder.config.max_position_embeddings
        tokens = self.tokenizer(list(prompts), truncation=True, max_length=length).input_ids
        rows = [
            ids + [ids[-1] if filler is None else filler] * (length - len(ids)) for ids in tokens
        ]
        return torch.tensor(rows, device=self.network.logit_scale.device)


def noisy(latent: Tensor, timestep: int) -> Tensor:
    """(B,C,h,w) -> the same with the noise that Stable Diffusion has at this timestep.

    >>> noisy(torch.zeros(1, 4, 8, 8), 999).std() > 0.9
    tensor(True)
    """
    low, high = (math.sqrt(beta) for beta in _BETAS)
    betas = torch.linspace(low, high, _STEPS, dtype=torch.float64).square()
    kept = (1 - betas)[: timestep + 1].prod().item()
    drawn = torch.randn(latent.shape[1:], generator=torch.Generator().manual_seed(0))
    return math.sqrt(kept) * latent + math.sqrt(1 - kept) * drawn.to(latent)


def _way_down(
    unet: Any, x: Tensor, timestep: Tensor, states: Tensor | None, added: dict[str, Tensor]
) -> list[Tensor]:
    """What each stage of the UNet gives before it is made smaller, and what the middle gives."""
    time = unet.time_embedding(unet.get_time_embed(sample=x, timestep=timestep))
    more = unet.get_aug_embed(emb=time, encoder_hidden_states=states, added_cond_kwargs=added)
    time = time if more is None else time + more
    x, stages = unet.conv_in(x), []
    for block in unet.down_blocks:
        reads = {"encoder_hidden_states": states} if hasattr(block, "attentions") else {}
        x, outputs = block(hidden_states=x, temb=time, **reads)
        stages.append(outputs[1])
    return [*stages, unet.mid_block(x, time, encoder_hidden_states=states)]


def _unet(config: Mapping) -> Any:
    from_diffusers = _diffusers()
    unet = from_diffusers.UNet2DConditionModel.from_config(dict(config))
    unet.up_blocks = nn.ModuleList()
    unet.conv_norm_out = unet.conv_out = None
    return unet


def _layers(unet: nn.Module) -> list[nn.Module]:
    from diffusers.models.attention import BasicTransformerBlock
    from diffusers.models.resnet import ResnetBlock2D

    kinds = BasicTransformerBlock, ResnetBlock2D
    return [layer for layer in unet.modules() if isinstance(layer, kinds)]


def _diffusers():
    try:
        import diffusers
    except ImportError as error:
        raise ModuleNotFoundError(
            "LRM runs in diffusers, which is not installed: run `pip install diffusers` in "
            "ComfyUI's Python, then start ComfyUI again."
        ) from error
    return diffusers


def _linear(shape: tuple[int, ...]) -> nn.Linear:
    return nn.Linear(shape[1], shape[0], bias=False)
