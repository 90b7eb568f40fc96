"""Train the demo's CLIP (arXiv 2103.00020): each picture to the sentences that fit it.

Labels are known, so a pair is not right because it was drawn together, but because the sentence
fits the picture. The first half of the training sees only half of each picture's patches, which is
faster (arXiv 2212.00794). In the second half every other picture is changed by a step up the
gradient of the loss (arXiv 1412.6572): a network that withstands it has gradients that look like
what is asked for, which is what a reward is used for.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel

from .. import reward_model
from ..reward_model import PATCH, SIDE
from ..vocabulary import CONCEPTS
from .captions import Captions
from .optimizers import MuonAndAdam, exponential_average
from .phrases import Phrases, alike, every_thing, fits, phrases, rows_of
from .pictures import Labels, Studio
from .precision import autocast
from .progress import Session
from .scene_phrases import fits as scene_fits
from .scene_phrases import wishes_of
from .scenes import random_scenes
from .stage import Stage
from .views import Pool, drawn, rendered, worsen

SESSION = "contrastive.session"
RATE = 2e-3
RENDERED, OWN = 48, 24
"""Pictures of a batch: rendered ones, and ones from each of the two pools."""
FEW = 32
"""Every other batch has this many things only, so that colours and backgrounds matter."""
STEP = 2.0
"""Largest length of the adversarial step, over all values in [0, 1] of a picture."""
FAST = 0.5
"""Part of the training that sees ``KEPT`` patches of a picture, without adversarial steps."""
KEPT = (SIDE // PATCH) ** 2 // 2
_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
_DEVIATION = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
_SCALE = 10.0, 40.0  # of the logits: at first, at most


def image_embed(network: CLIPModel, picture: Tensor, kept: Tensor | None = None) -> Tensor:
    """(B, 3, SIDE, SIDE) in [0, 1] -> (B, D) of unit length; from the patches ``kept`` (B, n)."""
    tower = network.vision_model
    states = tower.embeddings((picture - _MEAN) / _DEVIATION)
    if kept is not None:
        index = F.pad(kept + 1, (1, 0))  # and the class token, which is the first
        states = states.gather(1, index[..., None].expand(-1, -1, states.shape[-1]))
    states = tower.encoder(inputs_embeds=tower.pre_layrnorm(states)).last_hidden_state
    pooled = tower.post_layernorm(states[:, 0])
    return F.normalize(network.visual_projection(pooled).float(), dim=1)


def text_embed(network: CLIPModel, rows: Tensor) -> Tensor:
    """(N, POSITIONS) rows of the token table -> (N, D) of unit length."""
    pooled = network.text_model(input_ids=rows).pooler_output
    return F.normalize(network.text_projection(pooled).float(), dim=1)


def loss_of(logits: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
    """Every right pair against the wrong pairs of its picture, and of its sentence.

    logits, right, wrong: (pictures, sentences).
    """
    against = logits.masked_fill(~wrong, float("-inf"))
    losses = []
    for dim in (1, 0):
        pair = F.softplus(torch.logsumexp(against, dim, keepdim=True) - logits)
        share = right / right.sum(dim, keepdim=True).clamp(min=1)
        losses.append((pair.masked_fill(~right, 0) * share).sum() / right.any(dim).sum())
    return losses[0] + losses[1]


class Trainer:
    """One training run; resumes by itself."""

    def __init__(
        self,
        studio: Studio,
        captions: Captions,
        pools: tuple[Pool, ...],
        path: Path,
        minutes: float,
    ) -> None:
        torch.manual_seed(0)
        self._studio, self._captions, self._pools = studio, captions, pools
        self._same, self._stage = alike(studio), Stage(studio, SIDE)
        known = len(captions.identifiers)
        self._network, self.average = (reward_model.compact(known) for _ in range(2))
        with torch.no_grad():
            self._network.logit_scale.fill_(_SCALE[0]).log_()
        self.average.load_state_dict(self._network.state_dict())
        layers = (self._network.vision_model.encoder, self._network.text_model.encoder)
        matrices = [p for part in layers for p in part.parameters() if p.ndim == 2]
        self._optimizer = MuonAndAdam(self._network, matrices, RATE, weight_decay=0.02)
        self.session = Session(
            path,
            minutes,
            network=self._network,
            average=self.average,
            muon=self._optimizer.muon,
            adam=self._optimizer.adam,
        )

    def step(self) -> tuple[float, float]:
        """One batch; returns its loss, and the share of pictures whose best sentence may fit."""
        generator = torch.Generator().manual_seed(5_000_000 + self.session.step)
        rich = self.session.step % 3 == 2
        picture, rows, right, wrong = (self._rich if rich else self._plain)(generator)
        with autocast():
            text = text_embed(self._network, rows)
        kept = None
        if self.session.progress < FAST:
            places = torch.rand(len(picture), (SIDE // PATCH) ** 2, generator=generator)
            kept = places.argsort(1)[:, :KEPT]
        else:
            picture = self._attack(picture, text.detach(), right, wrong, generator)
        logits = self._logits(picture, text, kept)
        loss = loss_of(logits, right, wrong)
        self._optimizer.step(loss, self.session.pace(warm=100))
        with torch.no_grad():
            self._network.logit_scale.clamp_(max=torch.tensor(_SCALE[1]).log())
        exponential_average(self.average, self._network, max(0.003, 9 / (self.session.step + 10)))
        self.session.advance()
        best = logits.argmax(1, keepdim=True)
        return loss.item(), 1 - wrong.gather(1, best).float().mean().item()

    def _plain(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Pictures of the first stage, token rows of sentences, and which fit and do not."""
        picture, labels, true_colours = self._pictures(generator)
        texts = [phrases(self._captions, labels, bad, generator) for bad in (False, True)]
        texts.append(every_thing(self._captions, generator))
        said = Labels(*(torch.cat(column) for column in zip(*map(_columns, texts), strict=True)))
        rows = torch.cat([part.rows for part in texts])
        return picture, rows, *fits(labels, true_colours, said, self._same)

    def _rich(self, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same of rich pictures."""
        scenes = random_scenes(self._studio, RENDERED + 2 * OWN, generator)
        picture = worsen(self._stage.draw(scenes, generator), generator)
        wishes = [w for bad in (False, True) for w in wishes_of(scenes, bad, generator)]
        tokens = self._captions.tokens([wish.prompt for wish in wishes])
        rows = rows_of(tokens, len(self._captions.identifiers))
        return picture, rows, *scene_fits(scenes, wishes, self._same)

    def _pictures(self, generator: torch.Generator) -> tuple[Tensor, Labels, Tensor]:
        labels = self._studio.labels(RENDERED, generator)
        if self.session.step % 2:
            labels = self._studio.labels(20 * RENDERED, generator)
            few = torch.randperm(len(CONCEPTS), generator=generator)[:FEW]
            labels = labels[torch.isin(labels.concept, few)][:RENDERED]
        picture, true_colours = rendered(self._studio, labels, generator)
        parts = [(picture, labels), *(drawn(pool, OWN, generator) for pool in self._pools)]
        picture = worsen(torch.cat([part[0] for part in parts]), generator)
        columns = zip(*((p[1].concept, p[1].colour, p[1].background) for p in parts), strict=True)
        own = torch.ones(len(picture) - len(true_colours), dtype=torch.bool)
        return picture, Labels(*map(torch.cat, columns)), torch.cat([true_colours, own])

    def _logits(self, picture: Tensor, text: Tensor, kept: Tensor | None = None) -> Tensor:
        with autocast():
            seen = image_embed(self._network, picture, kept)
        return self._network.logit_scale.exp() * seen @ text.T

    def _attack(
        self,
        picture: Tensor,
        text: Tensor,
        right: Tensor,
        wrong: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        """Every other picture a step up its loss's gradient."""
        chosen = slice(self.session.step % 2, None, 2)
        start = picture[chosen].clone().requires_grad_()
        loss = loss_of(self._logits(start, text), right[chosen], wrong[chosen])
        (gradient,) = torch.autograd.grad(loss, start)
        length = STEP * torch.rand(len(start), 1, 1, 1, generator=generator)
        norm = gradient.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]
        picture = picture.clone()
        picture[chosen] = (start.detach() + length * gradient / norm).clamp(0, 1)
        return picture


def train(
    studio: Studio, captions: Captions, pools: tuple[Pool, ...], directory: Path, minutes: float
) -> CLIPModel:
    """The trained network (an exponential average of the weights)."""
    trainer = Trainer(studio, captions, pools, directory / SESSION, minutes)
    session, figures = trainer.session, []
    while session.progress < 1:
        figures.append(trainer.step())
        if session.step % 50 == 0:
            loss, share = torch.tensor(figures).mean(0).tolist()
            figures.clear()
            scale = trainer.average.logit_scale.exp().item()
            line = f"contrastive {session.seconds:.0f} s step {session.step} loss {loss:.3f}"
            print(f"{line} right {share:.3f} scale {scale:.1f}", flush=True)
    session.save()
    return trainer.average.eval()


def _columns(part: Phrases) -> tuple[Tensor, Tensor, Tensor]:
    return part.said.concept, part.said.colour, part.said.background
