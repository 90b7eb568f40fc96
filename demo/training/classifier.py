"""Train the classifier on training pictures under changes of light, place and sharpness."""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from ..classifier import Classifier
from .fitting import fit
from .pictures import Labels, Studio
from .precision import autocast

BATCH = 64


def scenes(studio: Studio, labels: Labels, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures at the classifier's size, and which of them keep their true colours.

    Half are training pictures, a little shifted and noisy. The others are relit: any ground,
    subject and ground dimmed apart, tinted, with less contrast.
    """
    count = len(labels)
    icons = F.avg_pool2d(studio.place(labels, generator, largest=0.95, shift=0.2), 2)
    ground = studio.grounds(labels, generator)
    relit = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    anywhere = torch.rand(count, 3, 1, 1, generator=generator)
    anywhere = anywhere * torch.rand(count, 1, 1, 1, generator=generator)
    other = torch.where(torch.rand(count, 1, 1, 1, generator=generator) < 0.6, anywhere, ground)
    light = _between(0.25, 1.0, (count, 1, 1, 1), generator)
    tint = light * _between(0.7, 1.0, (count, 3, 1, 1), generator)
    alpha = icons[:, 3:]
    subject = torch.where(relit, icons[:, :3] * tint, icons[:, :3])
    picture = subject + torch.where(relit, other, ground) * (1 - alpha)
    contrast = _between(0.6, 1.15, (count, 1, 1, 1), generator)
    lift = _between(-0.1, 0.15, (count, 1, 1, 1), generator)
    picture = torch.where(relit, (picture - 0.5) * contrast + 0.5 + lift, picture)
    return soften(picture, generator).clamp(0, 1), ~relit.flatten()


def soften(picture: Tensor, generator: torch.Generator) -> Tensor:
    """Blur half of the pictures, and add a little noise to all."""
    blurred = F.avg_pool2d(F.pad(picture, (1, 1, 1, 1), mode="replicate"), 3, 1)
    amount = _between(-1, 1, (len(picture), 1, 1, 1), generator).clamp(min=0)
    noise = torch.randn(picture.shape, generator=generator)
    level = _between(0, 0.06, (len(picture), 1, 1, 1), generator)
    return torch.lerp(picture, blurred, amount) + noise * level


def loss_of(network: Classifier, picture: Tensor, labels: Labels, true_colours: Tensor) -> Tensor:
    """Cross entropy; colours count only where the light is true."""
    with autocast():
        concept, colour, background = (logits.float() for logits in network(picture))
    loss = F.cross_entropy(concept, labels.concept, label_smoothing=0.02)
    plain = labels[true_colours]
    loss = loss + 0.5 * F.cross_entropy(colour[true_colours], plain.colour)
    return loss + 0.5 * F.cross_entropy(background[true_colours], plain.background)


def train(studio: Studio, directory: Path, minutes: float) -> Classifier:
    """The trained classifier; resumes by itself."""
    torch.manual_seed(0)
    network = Classifier()

    def loss_at(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(3_000_000 + step)
        labels = studio.labels(BATCH, generator)
        picture, true_colours = scenes(studio, labels, generator)
        picture = picture.contiguous(memory_format=torch.channels_last)
        return loss_of(network, picture, labels, true_colours)

    return fit(network, loss_at, directory / "classifier.session", minutes, every=200)


@torch.no_grad()
def accuracy(network: Classifier, studio: Studio, relit: bool, count: int = 2048) -> list[float]:
    """Share right of concept, colour and background on new pictures, relit ones or plain ones."""
    generator = torch.Generator().manual_seed(9)
    right, total = torch.zeros(3), 0
    for _ in range(count // BATCH):
        labels = studio.labels(BATCH, generator)
        picture, true_colours = scenes(studio, labels, generator)
        chosen = true_colours ^ relit
        truth = labels[chosen]
        logits = network(picture[chosen])
        truths = (truth.concept, truth.colour, truth.background)
        for index, (guess, answer) in enumerate(zip(logits, truths, strict=True)):
            right[index] += (guess.argmax(1) == answer).sum()
        total += len(truth)
    return (right / total).tolist()


def store(network: Classifier, path: Path) -> None:
    """Write the weights in half precision."""
    state = network.state_dict()
    floats = {name: weight.half() for name, weight in state.items() if weight.is_floating_point()}
    save_file({name: weight.contiguous() for name, weight in floats.items()}, str(path))


def _between(low: float, high: float, shape: tuple, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)
