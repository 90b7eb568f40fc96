"""The rewards of presets.py: what plain seeds have, and three kinds that they hardly draw."""

from __future__ import annotations

import inspect
from pathlib import Path

from demo_runs import CFG, SCHEDULER, SIZE, Demo


class Halves:
    """The left half dark and the right half bright: 1 if it is all black and white."""

    differentiable = True

    def __call__(self, image):
        middle = image.shape[-1] // 2
        return image[..., middle:].mean((1, 2, 3)) - image[..., :middle].mean((1, 2, 3))


def rewards_of(demo: Demo) -> dict:
    """Name -> {term: Weighted}, built once."""
    import torch

    from ComfyUI_DNO import rewards
    from ComfyUI_DNO.dno.objective import Weighted
    from ComfyUI_DNO.rewards import models
    from ComfyUI_DNO.rewards.models.files import Stored
    from demo import reward_model

    stored = {name: value.float() for name, value in reward_model.state_dict().items()}
    clip = models.build(Stored(reward_model.WEIGHTS, stored)).float().eval().requires_grad_(False)
    import comfy.utils
    from transformers import CLIPTokenizer

    shipped = Path(inspect.getfile(comfy.utils)).parent
    clip.tokenizer = CLIPTokenizer.from_pretrained(shipped / "sd1_tokenizer")
    shown = [reference(demo, text, seed) for text, seed in (
        ("a sunflower on a purple background", 501), ("a castle on an orange background", 502),
    )]  # fmt: skip

    def text(words: str):
        return rewards.CLIPTextSimilarity(clip, words)

    def one(score) -> dict:
        return {"reward": Weighted(1.0, score)}

    with torch.inference_mode(False), torch.no_grad():
        return {
            "darkness": one(rewards.Darkness()),
            "text": one(text("an icon on a blue background")),
            "palette": one(rewards.Palette(shown[0])),
            "style": one(rewards.StyleSimilarity(clip, shown[1])),
            "combination": {
                "darkness": Weighted(1.0, rewards.Darkness()),
                "text": Weighted(1.0, text("an icon on a red background")),
            },
            "halves": one(Halves()),
        }


def reference(demo: Demo, prompt: str, seed: int):
    """A plain picture (1,3,H,W) to be like."""
    import nodes
    import torch

    with torch.inference_mode():
        latent = nodes.common_ksampler(
            demo.model, seed, 20, CFG, "euler_ancestral", SCHEDULER, demo.encode(prompt),
            demo.encode(""), {"samples": torch.zeros(1, 16, SIZE, SIZE)},
        )[0]  # fmt: skip
        picture = demo.vae.decode(latent["samples"]).movedim(-1, 1)
    with torch.inference_mode(False):
        return picture.clone().float().clamp(0, 1)
