"""Train the denoiser by rectified flow (Liu et al. 2022; Esser et al. 2024, SD3)."""

from pathlib import Path

import torch
from torch import Tensor

from ..clip import WORD_WIDTH, Tokens
from ..mmdit import Denoiser
from .captions import Captions
from .latents import Data
from .optimizers import MuonAndAdam, exponential_average
from .precision import autocast
from .progress import Session, load_part

SESSION, SCENE_SESSION = "diffusion.session", "scenes.session"
BATCH = 48
RATE = 2e-3
SHIFT = 3.0
GUIDANCE, STEPS = 3.0, 20
_NEW_WORDS = 0.05
"""Standard deviation of the vectors that new words start with."""


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
    with autocast():
        velocity = network(level * noise + (1 - level) * latent, sigma, tokens)
    return (velocity.float() - (noise - latent)).square().mean()


class Trainer:
    """One training run of the denoiser; resumes by itself."""

    def __init__(
        self,
        data: Data,
        captions: Captions,
        path: Path,
        minutes: float,
        start: dict[str, Tensor] | None = None,
    ) -> None:
        """``start``: weights to go on from, at half the rate."""
        torch.manual_seed(0)
        self._data, self._captions = data, captions
        rows = len(captions.identifiers) + 1
        self._network, self.average = Denoiser(rows), Denoiser(rows)
        if start is not None:
            self._network.load_state_dict(start)
        self.average.load_state_dict(self._network.state_dict())
        matrices = [p for p in self._network.blocks.parameters() if p.ndim == 2]
        rate = RATE if start is None else RATE / 2
        self._optimizer = MuonAndAdam(self._network, matrices, rate, weight_decay=0.01)
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
        step = self.session.step
        generator = torch.Generator().manual_seed(2_000_000 + step)
        latent, sentences = self._data.batch(step, BATCH, generator)
        loss = loss_of(self._network, latent, self._captions.tokens(sentences), generator)
        self._optimizer.step(loss, self.session.pace(warm=150))
        exponential_average(self.average, self._network, max(0.001, 9 / (step + 10)))
        self.session.advance()
        return loss.item()

    @torch.no_grad()
    def held_out_loss(self) -> float:
        """The averaged network on pictures that it was not trained on."""
        generator = torch.Generator().manual_seed(1)
        losses = [
            loss_of(self.average, latent, self._captions.tokens(sentences), generator).item()
            for latent, sentences in self._data.held_out(BATCH)
        ]
        return sum(losses) / len(losses)


def train(
    data: Data,
    captions: Captions,
    path: Path,
    minutes: float,
    start: dict[str, Tensor] | None = None,
) -> Denoiser:
    """The trained denoiser (an exponential average of the weights)."""
    trainer = Trainer(data, captions, path, minutes, start)
    session, losses = trainer.session, []
    while session.progress < 1:
        losses.append(trainer.step())
        if session.step % 100 == 0:
            mean = sum(losses) / len(losses)
            losses.clear()
            line = f"{path.stem} {session.seconds:.0f} s step {session.step} loss {mean:.4f}"
            if session.step % 500 == 0:
                line += f" held-out {trainer.held_out_loss():.4f}"
            print(line, flush=True)
    session.save()
    return trainer.average.eval()


def with_words(state: dict[str, Tensor], identifiers: Tensor, captions: Captions) -> dict:
    """Trained weights for a larger vocabulary.

    A plural starts as its singular; other new words start near zero, where unknown words are, which
    the network knows to ignore. Large random vectors would raise the loss a hundredfold at first.
    """
    old = {int(token): row + 1 for row, token in enumerate(identifiers)}
    shape = len(captions.identifiers) + 1, WORD_WIDTH
    rows = _NEW_WORDS * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    rows[0] = 0
    starts = captions.plurals()
    for row, token in enumerate(captions.identifiers.tolist(), start=1):
        known = old.get(token) or old.get(starts.get(token, token))
        if known:
            rows[row] = state["text.table.weight"][known]
    return state | {"text.table.weight": rows}


def stored(directory: Path) -> dict[str, Tensor]:
    """The averaged weights of the last checkpoint: of rich pictures where there is one."""
    rich = directory / SCENE_SESSION
    return load_part(rich if rich.exists() else directory / SESSION, "average")


@torch.no_grad()
def sample(
    network: Denoiser, tokens: Tokens, empty: Tokens, noise: Tensor, steps: int = STEPS
) -> Tensor:
    """Latents for prompts by Euler steps under classifier-free guidance."""
    latent = noise
    sigmas = noise_levels(torch.linspace(1, 0, steps + 1))
    both = Tokens.cat([tokens, *[empty] * len(noise)])
    for sigma, following in zip(sigmas, sigmas[1:], strict=False):
        with autocast():
            velocity = network(latent.repeat(2, 1, 1, 1), sigma.expand(2 * len(noise)), both)
        conditional, unconditional = velocity.float().chunk(2)
        guided = unconditional + GUIDANCE * (conditional - unconditional)
        latent = latent + guided * (following - sigma)
    return latent
