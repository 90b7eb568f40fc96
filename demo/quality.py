"""A second, independent judge: is a picture as well made as those that the demo learned from?

It knows nothing of prompts. It tells clean pictures (rendered, through the autoencoder, or drawn by
the demo checkpoint) from blurred, oversaturated, noisy, adversarially changed and melted ones, and,
apart from that, rendered from generated ones. So a hacked reward shows as lost quality even where
the subject can still be named. No reward of this pack sees it.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name("quality.safetensors")
SIDE = 128
FAULTS: tuple[str, ...] = ("blurred", "saturated", "noisy", "adversarial", "melted")
"""What may be wrong with a picture; *melted* pictures come from disturbed latents."""
SOURCES: tuple[str, ...] = ("rendered", "generated")

_WIDTHS = (3, 24, 48, 96, 128)


class Quality(nn.Module):
    """A small convolutional network; differentiable with respect to the picture."""

    def __init__(self) -> None:
        super().__init__()
        pairs = zip(_WIDTHS, _WIDTHS[1:], strict=False)
        self.features = nn.Sequential(*(_stage(i, o) for i, o in pairs))
        self.head = nn.Linear(2 * _WIDTHS[-1], len(FAULTS) + 1)

    @classmethod
    def load(cls, path: str | Path = WEIGHTS) -> Quality:
        """The trained judge, frozen."""
        judge = cls()
        judge.load_state_dict({k: v.float() for k, v in load_file(path).items()}, strict=False)
        return judge.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> logits (B, len(FAULTS) + 1); the last is *generated*."""
        if image.shape[-2:] != (SIDE, SIDE):
            image = F.interpolate(image, size=(SIDE, SIDE), mode="area")
        features = self.features(image * 2 - 1)
        return self.head(_pooled(features))

    def faults(self, image: Tensor) -> dict[str, Tensor]:
        """Probability (B,) of each fault by name."""
        return dict(zip(FAULTS, self(image)[:, :-1].sigmoid().unbind(1), strict=True))

    def clean(self, image: Tensor) -> Tensor:
        """Probability (B,) that the picture has none of the faults: its quality, in [0, 1]."""
        return (-F.softplus(self(image)[:, :-1])).sum(1).exp()

    def generated(self, image: Tensor) -> Tensor:
        """Probability (B,) that the picture was drawn by a denoiser, not rendered."""
        return self(image)[:, -1].sigmoid()


def _pooled(features: Tensor) -> Tensor:
    """Mean and largest value of each channel: faults are everywhere, or in one spot."""
    return torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())
