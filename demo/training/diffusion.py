"""Train the denoiser by rectified flow (Liu et al. 2022; Esser et al. 2024, SD3)."""

from pathlib import Path

import torch
from torch import Tensor

from ..clip import Tokens
from ..mmdit import Denoiser
from .captions import Captions
from .latents import LatentSet
from .optimizers import MuonAndAdam, exponential_average
from .progress import Session, load_part

SESSION = "diffusion.session"
BATCH = 48
RATE = 2e-3
SHIFT = 3.0
HELD_OUT = 240
GUIDANCE, STEPS = 3.0, 20


def noise_levels(uniform: Tensor) -> Tensor:
    """SD3's shifted schedule: u in [0, 1] -> sigma in [0, 1]."""
    return SHIFT * uniform / (1 + (SHIFT - 1) * uniform)


def loss_of(
    network: Denoiser, latent: Tensor, tokens: Tokens, generator: torch.Generator
) -> Tensor:
    """Mean squared error of the velocity at a random noise level."""
    normal = torch.randn(len(latent), generator=generator)
    sigma = noise_levels(torch.sigmoid(1.2 * normal))
    noise = torch.randn(latent.shape, generator=generator)
    level = sigma[:, None, None, None]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        velocity = network(level * noise + (1 - level) * latent, sigma, tokens)
    return (velocity.float() - (noise - latent)).square().mean()


class Trainer:
    """One training run of the denoiser; resumes by itself."""

    def __init__(self, data: LatentSet, captions: Captions, path: Path, minutes: float) -> None:
        torch.manual_seed(0)
        self._data, self._captions = data, captions
        rows = len(captions.identifiers) + 1
        self._network, self.average = Denoiser(rows), Denoiser(rows)
        self.average.load_state_dict(self._network.state_dict())
        matrices = [p for p in self._network.blocks.parameters() if p.ndim == 2]
        self._optimizer = MuonAndAdam(self._network, matrices, RATE, weight_decay=0.01)
        self.session = Session(
            path,
            minutes,
            network=self._network,
            average=self.average,
            muon=self._optimizer.muon,
            adam=self._optimizer.adam,
        )

    def step(self) -> float:
        """One batch; returns its loss."""
        generator = torch.Generator().manual_seed(2_000_000 + self.session.step)
        chosen = torch.randint(len(self._data) - HELD_OUT, (BATCH,), generator=generator)
        labels = self._data.labels[chosen]
        tokens = self._captions.tokens(self._captions.sentences(labels, generator))
        loss = loss_of(self._network, self._data.latents[chosen].float(), tokens, generator)
        self._optimizer.step(loss, self.session.pace(warm=150))
        steps = self.session.step
        exponential_average(self.average, self._network, max(0.001, 9 / (steps + 10)))
        self.session.advance()
        return loss.item()

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """The averaged network on pictures that it was not trained on."""
        generator = torch.Generator().manual_seed(1)
        total = 0.0
        for start in range(len(self._data) - HELD_OUT, len(self._data), BATCH):
            labels = self._data.labels[start : start + BATCH]
            tokens = self._captions.tokens(self._captions.sentences(labels, generator))
            latent = self._data.latents[start : start + BATCH].float()
            total += loss_of(self.average, latent, tokens, generator).item()
        return total * BATCH / HELD_OUT


def train(data: LatentSet, captions: Captions, directory: Path, minutes: float) -> Denoiser:
    """The trained denoiser (an exponential average of the weights)."""
    trainer = Trainer(data, captions, directory / SESSION, minutes)
    session, losses = trainer.session, []
    while session.progress < 1:
        losses.append(trainer.step())
        if session.step % 100 == 0:
            mean = sum(losses) / len(losses)
            losses.clear()
            line = f"diffusion {session.seconds:.0f} s step {session.step} loss {mean:.4f}"
            if session.step % 500 == 0:
                line += f" held-out {trainer.held_out_loss():.4f}"
            print(line, flush=True)
    session.save()
    return trainer.average.eval()


def stored(directory: Path) -> dict[str, Tensor]:
    """The averaged weights of the last checkpoint."""
    return load_part(directory / SESSION, "average")


@torch.no_grad()
def sample(
    network: Denoiser, tokens: Tokens, empty: Tokens, noise: Tensor, steps: int = STEPS
) -> Tensor:
    """Latents for prompts by Euler steps under classifier-free guidance."""
    latent = noise
    sigmas = noise_levels(torch.linspace(1, 0, steps + 1))
    both = Tokens.cat([tokens, *[empty] * len(noise)])
    for sigma, following in zip(sigmas, sigmas[1:], strict=False):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            velocity = network(latent.repeat(2, 1, 1, 1), sigma.expand(2 * len(noise)), both)
        conditional, unconditional = velocity.float().chunk(2)
        guided = unconditional + GUIDANCE * (conditional - unconditional)
        latent = latent + guided * (following - sigma)
    return latent
