"""An independent judge: which concept, colour and background a picture shows.

It was trained on the training pictures, never on generated ones, under changes of light, tint,
place, blur and noise, so that it goes by the subject rather than by its setting. No reward
sees it, which makes it the measure of reward hacking: reward up, recognition down.
"""

from pathlib import Path

import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from .vocabulary import BACKGROUNDS, COLOURS, CONCEPTS

WEIGHTS = Path(__file__).with_name("classifier.safetensors")
SIDE = 64
NATURAL = "natural"
"""The colour class of a thing in its own colours, before those of COLOURS."""
COLOUR_CLASSES: tuple[str, ...] = (NATURAL, *COLOURS)

_WIDTHS = (3, 48, 96, 128, 160)
_SIZES = (len(CONCEPTS), len(COLOUR_CLASSES), len(BACKGROUNDS))


class Classifier(nn.Module):
    """A small convolutional network; differentiable with respect to the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(_stage(i, o) for i, o in zip(_WIDTHS, _WIDTHS[1:], strict=False)), nn.Flatten()
        )
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(_WIDTHS[-1] * (SIDE // 16) ** 2, sum(_SIZES))

    @classmethod
    def load(cls, path: str | Path = WEIGHTS) -> "Classifier":
        """The trained classifier, frozen."""
        classifier = cls()
        classifier.load_state_dict({k: v.float() for k, v in load_file(path).items()}, strict=False)
        return classifier.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, H, W) in [0, 1] -> logits of concept, colour and background."""
        small = F.interpolate(image, size=(SIDE, SIDE), mode="area")
        logits = self.head(self.dropout(self.features(small * 2 - 1)))
        return logits.split(_SIZES, 1)

    def concepts(self, image: Tensor) -> Tensor:
        """Log-probabilities (B, len(CONCEPTS))."""
        return self(image)[0].log_softmax(1)

    def colours(self, image: Tensor) -> Tensor:
        """Log-probabilities (B, len(COLOUR_CLASSES)): the subject's colour."""
        return self(image)[1].log_softmax(1)

    def backgrounds(self, image: Tensor) -> Tensor:
        """Log-probabilities (B, len(BACKGROUNDS))."""
        return self(image)[2].log_softmax(1)

    def recognised(self, image: Tensor, concept: str) -> Tensor:
        """Probability (B,) that the picture shows ``concept``."""
        return self.concepts(image)[:, CONCEPTS.index(concept)].exp()


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())
