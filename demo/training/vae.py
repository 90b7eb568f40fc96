"""Train the autoencoder on random crops of training pictures."""

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..vae import Decoder, Encoder, Residual
from ..weights import Weights
from .optimizers import BatchedMuon, exponential_average
from .pictures import SIZE
from .precision import autocast
from .progress import Session, load_part
from .scenes import random_scenes
from .stage import Stage

SESSION = "vae.session"
BATCH = 8
CROP = 64
LATENT_NOISE = 0.05
"""Standard deviation of the noise the decoder must put up with: diffusion is never exact."""


class Autoencoder(nn.Module):
    """Encoder and decoder, initialised for training."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        with torch.no_grad():
            for module in self.modules():
                if isinstance(module, Residual):
                    module.conv[4].weight.mul_(0.2)
            self.encoder[-1].weight.mul_(0.5)
            self.decoder[-1].weight.mul_(0.1)
            self.decoder[-1].bias.fill_(0.5)
        self.to(memory_format=torch.channels_last)


def loss_of(network: Autoencoder, picture: Tensor) -> tuple[Tensor, Tensor]:
    """The training loss, and the mean squared error to report.

    L1 on pixels and on their differences keeps edges sharp; the latents are held near mean 0,
    standard deviation 1 and within the decoder's clamp.
    """
    with autocast():
        latent = network.encoder(picture).float()
        noisy = latent + LATENT_NOISE * torch.randn_like(latent)
        restored = network.decoder(noisy.contiguous(memory_format=torch.channels_last)).float()
    error = restored - picture
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    square = error.square().mean()
    mean, deviation = latent.mean((0, 2, 3)), latent.std((0, 2, 3))
    statistics = mean.square().mean() + (deviation - 1).square().mean()
    outliers = F.relu(latent.abs() - 3).mean()
    loss = error.abs().mean() + 0.5 * edges + 2 * square + 0.02 * statistics + 1e-3 * outliers
    return loss, square.detach()


def crops(stage: Stage, count: int, generator: torch.Generator) -> Tensor:
    """Random squares of training pictures."""
    pictures = stage.draw(random_scenes(stage.studio, count, generator), generator)
    corners = torch.randint(SIZE - CROP + 1, (count, 2), generator=generator).tolist()
    cut = [
        picture[:, top : top + CROP, left : left + CROP]
        for picture, (top, left) in zip(pictures, corners, strict=True)
    ]
    return torch.stack(cut).contiguous(memory_format=torch.channels_last)


def train(
    stage: Stage, directory: Path, minutes: float, start: Autoencoder | None = None
) -> Autoencoder:
    """The trained autoencoder (an exponential average of the weights); resumes by itself.

    With a ``start`` it goes on from there, at half the rate.
    """
    torch.manual_seed(0)
    network, average = Autoencoder(), Autoencoder()
    if start is not None:
        network.load_state_dict(start.state_dict())
    average.load_state_dict(network.state_dict())
    kernels = [p for p in network.parameters() if p.ndim == 4 and p.shape[0] == p.shape[1]]
    chosen = {id(kernel) for kernel in kernels}
    others = [p for p in network.parameters() if id(p) not in chosen]
    muon = BatchedMuon(kernels)
    adam = torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=1e-4)
    session = Session(
        directory / SESSION, minutes, network=network, average=average, muon=muon, adam=adam
    )
    squares = 0.0
    while session.progress < 1:
        rate = _rate(session) * (1.0 if start is None else 0.5)
        generator = torch.Generator().manual_seed(1_000_000 + session.step)
        loss, square = loss_of(network, crops(stage, BATCH, generator))
        network.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(others, 1.0)
        for optimizer, peak in ((muon, 4e-3), (adam, 2.5e-3)):
            optimizer.param_groups[0]["lr"] = peak * rate
            optimizer.step()
        exponential_average(average, network, 0.005 if session.step > 300 else 0.1)
        session.advance()
        squares += square.item()
        if session.step % 200 == 0:
            decibels = -10 * math.log10(squares / 200)
            elapsed = f"vae {session.seconds:.0f} s step {session.step}"
            print(f"{elapsed} psnr {decibels:.2f}", flush=True)
            squares = 0.0
    session.save()
    return average.eval()


def _rate(session: Session) -> float:
    """Share of the full rate: up over 100 steps, then a cosine down to a hundredth."""
    cosine = 0.5 * (1 + math.cos(math.pi * session.progress))
    return min(1, (session.step + 1) / 100) * (0.01 + 0.99 * cosine)


def embedded(weights: Weights) -> Autoencoder:
    """The autoencoder of stored weights."""
    network = Autoencoder()
    network.encoder.load_state_dict(weights.encoder)
    network.decoder.load_state_dict(weights.decoder)
    return network.eval()


def stored(directory: Path) -> Autoencoder:
    """The autoencoder of the last checkpoint."""
    network = Autoencoder()
    network.load_state_dict(load_part(directory / SESSION, "average"))
    return network.eval()
