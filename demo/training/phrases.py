"""Sentences for the contrastive training, and which of them fit which picture."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..clip import Tokens
from ..vocabulary import BACKGROUNDS, COLOURS, CONCEPTS
from .captions import Captions, sentence
from .pictures import NATURAL, Labels, Studio

OPEN = -1
"""A thing or background that a sentence does not name; a colour left open is NATURAL."""
_ALIKE = 0.07
"""Mean difference per channel below which two colours of a thing are not told apart."""


@dataclass(frozen=True)
class Phrases:
    """Token rows (N, POSITIONS) for the compact text tower, and what they say."""

    rows: Tensor
    said: Labels


def phrases(
    captions: Captions, labels: Labels, altered: bool, generator: torch.Generator
) -> Phrases:
    """A sentence for each label, which leaves some open; with one thing wrong if ``altered``."""
    count = len(labels)
    leave = torch.rand(count, 3, generator=generator)
    concept = torch.where(leave[:, 0] < 0.1, OPEN, labels.concept)
    colour = torch.where(leave[:, 1] < 0.15, NATURAL, labels.colour)
    background = torch.where(leave[:, 2] < 0.4, OPEN, labels.background)
    nothing = (concept == OPEN) & (colour == NATURAL) & (background == OPEN)
    concept = torch.where(nothing, labels.concept, concept)
    said = Labels(concept, colour, background)
    return _worded(captions, _altered(said, generator) if altered else said, generator)


def every_thing(captions: Captions, generator: torch.Generator) -> Phrases:
    """A sentence for each thing that says nothing else."""
    things = torch.arange(len(CONCEPTS))
    colour, background = torch.full_like(things, NATURAL), torch.full_like(things, OPEN)
    return _worded(captions, Labels(things, colour, background), generator)


def _worded(captions: Captions, said: Labels, generator: torch.Generator) -> Phrases:
    draws = torch.rand(len(said), 8, generator=generator)
    draws[:, 5] *= 0.5  # names the background, by one of its wordings
    columns = (said.concept.tolist(), said.colour.tolist(), said.background.tolist())
    texts = [_text(*one, draw) for *one, draw in zip(*columns, draws.tolist(), strict=True)]
    return Phrases(rows_of(captions.tokens(texts), len(captions.identifiers)), said)


def rows_of(tokens: Tokens, known: int) -> Tensor:
    """Token rows with those of begin and end, which follow the known words."""
    marked = torch.full_like(tokens.rows, known + 2)
    marked[:, 0] = known + 1
    return torch.where(tokens.special, marked, tokens.rows)


def _text(concept: int, colour: int, background: int, draw: list[float]) -> str:
    if background == OPEN:
        draw[5] = 1.0
    return sentence(concept, colour, background, draw)


def _altered(said: Labels, generator: torch.Generator) -> Labels:
    """The same with another thing, colour or background, where one is named."""
    count = len(said)
    which = torch.randint(3, (count,), generator=generator)
    concept = torch.randint(len(CONCEPTS), (count,), generator=generator)
    colour = torch.randint(1, len(COLOURS) + 1, (count,), generator=generator)
    background = torch.randint(len(BACKGROUNDS), (count,), generator=generator)
    return Labels(
        torch.where((which == 0) & (said.concept != OPEN), concept, said.concept),
        torch.where((which == 1) & (said.colour != NATURAL), colour, said.colour),
        torch.where((which == 2) & (said.background != OPEN), background, said.background),
    )


def alike(studio: Studio) -> Tensor:
    """(concepts, colours, colours): which two colours of a thing look the same."""
    bank = studio.bank.float() / 255
    weight = bank[:, :, 3:].sum((2, 3, 4))
    rows = []
    for index in range(bank.shape[1]):
        difference = (bank - bank[:, index : index + 1])[:, :, :3].abs().sum((2, 3, 4))
        rows.append(difference / (3 * weight) < _ALIKE)
    return torch.stack(rows, 1)


def fits(seen: Labels, true_colours: Tensor, said: Labels, same: Tensor) -> tuple[Tensor, Tensor]:
    """(pictures, phrases) each: which fit, and which do not. What is in doubt is in neither."""
    concept = (said.concept == OPEN) | (seen.concept[:, None] == said.concept)
    known = true_colours[:, None]
    colour_open, ground_open = said.colour == NATURAL, said.background == OPEN
    colour = colour_open | (known & (seen.colour[:, None] == said.colour))
    close = same[seen.concept[:, None], seen.colour[:, None], said.colour]
    ground = ground_open | (known & (seen.background[:, None] == said.background))
    wrong_colour = known & ~colour & ~close
    wrong_ground = known & ~ground
    return concept & colour & ground, ~concept | wrong_colour | wrong_ground
