from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from ..dno.declared import prepared
from ..dno.fields import Image
from ..dno.objective import Reward
from ._fields import EncoderField

_TINY = 1e-12


@dataclass(frozen=True, eq=False)
class StyleSimilarity(Reward):
    """Gives the picture the style of a reference picture, not its content.

    Style is which features there are and which come together, wherever in the picture, as in Gatys
    et al. (arXiv 1508.06576): mean m and covariance C of an encoder's patches, each normalised,
    after a quarter, a half and three quarters of its layers. Score: minus the mean over layers of
    |m - m'|^2 / 2(|m|^2 + |m'|^2) + |C - C'|^2 / 2(|C|^2 + |C'|^2), primes for the reference;
    0 for the same style, at least -1.5. Of several references the nearest counts.
    """

    group = "learned"
    aliases = ("style", "style transfer", "art style", "reference", "look", "painting")
    span = "-1.5 to 0"

    encoder: EncoderField
    reference: Annotated[Tensor, Image(help="A picture, or several, of the style to take over.")]

    @prepared
    @torch.no_grad()
    def _wanted(self) -> list[list[Tensor]]:
        """The style of each reference."""
        return [self._style(one[None]) for one in self.reference.clamp(0, 1)]

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        style = self._style(image)
        return -torch.stack([_distance(style, one) for one in self._wanted]).amin(dim=0)

    def _style(self, image: Tensor) -> list[Tensor]:
        """Of each layer, means (B,C) and covariances (B,C,C)."""
        moments: list[Tensor] = []
        for tokens in self.encoder.patches(image):
            tokens = layer_norm(tokens, tokens.shape[-1:])
            mean = tokens.mean(dim=1, keepdim=True)
            centred = tokens - mean
            moments += [mean[:, 0], centred.mT @ centred / tokens.shape[1]]
        return moments


def _distance(style: list[Tensor], wanted: list[Tensor]) -> Tensor:
    """(B,) between 0 and 1.5, with a gradient everywhere."""
    distances = []
    for ours, theirs in zip(style, wanted, strict=True):
        theirs = theirs.to(ours)
        apart = (ours - theirs).square().flatten(1).sum(dim=1)
        size = ours.square().flatten(1).sum(dim=1) + theirs.square().sum()
        distances.append(apart / (size + _TINY))
    return torch.stack(distances).mean(dim=0)
