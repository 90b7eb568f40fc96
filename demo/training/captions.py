"""Sentences for labels, and their tokens."""

from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ..clip import POSITIONS, Tokens
from ..scenery import plural, scene_words
from ..vocabulary import BACKGROUNDS, CATALOGUE, COLOURS
from .pictures import NATURAL, Labels

KINDS = ("photo", "picture", "drawing", "icon", "image", "painting", "illustration", "emoji")
FILLER = ("cute", "nice", "simple", "beautiful", "small", "big", "one", "single", "flat")
# fmt: off
STRANGE = (
    "walking", "holding", "wooden", "giant", "bright", "shiny", "happy", "old", "very", "quick",
    "running", "under", "between", "smooth", "fancy", "detailed", "sharp", "soft", "metal", "glass",
    "tiny", "proud", "modern", "with", "from", "near", "portrait", "style",
)
"""Words without a vector of their own, dropped in so that an unknown word does no harm."""
JOINING = (
    "a", "an", "the", "of", "on", "in", "front", "background", "colored", "backdrop", "that", "is",
)
# fmt: on

_EMPTY_SHARE, _STRANGE_SHARE = 0.1, 0.15


def tokenizer(comfyui: Path):
    """The CLIP tokenizer that comes with ComfyUI."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(str(comfyui / "comfy" / "sd1_tokenizer"))


class Captions:
    """Turns sentences into rows of the token table, and labels into sentences."""

    def __init__(self, tokenizer, identifiers: Tensor | None = None, rich: bool = True) -> None:
        """``identifiers``: the tokens that a stored network knows; by default all of ours.

        rich: with the words of rich pictures.
        """
        self._tokenizer = tokenizer
        if identifiers is None:
            words = [*COLOURS, *BACKGROUNDS, "grey", *KINDS, *FILLER, *JOINING]
            words += scene_words() if rich else []
            for concept in CATALOGUE:
                words += [concept.name, *concept.synonyms]
            known = sorted({i for word in words for i in self._identifiers(word)})
            identifiers = torch.tensor(known, dtype=torch.int32)
        self.identifiers = identifiers
        self._row = {int(one): row + 1 for row, one in enumerate(identifiers)}

    @cache  # noqa: B019  (one instance per run)
    def _identifiers(self, text: str) -> tuple[int, ...]:
        return tuple(self._tokenizer(text)["input_ids"][1:-1])

    def plurals(self) -> dict[int, int]:
        """Tokens of plurals, and those of their singulars, where both are one token."""
        pairs = [(plural(c.name), c.name) for c in CATALOGUE]
        tokens = [(self._identifiers(many), self._identifiers(one)) for many, one in pairs]
        return {m[0]: o[0] for m, o in tokens if len(m) == len(o) == 1}

    def tokens(self, sentences: list[str]) -> Tokens:
        """Sentences of at most 15 tokens (longer ones are cut)."""
        rows = torch.zeros(len(sentences), POSITIONS, dtype=torch.long)
        special = torch.ones(len(sentences), POSITIONS, dtype=torch.bool)
        end = torch.zeros(len(sentences), dtype=torch.long)
        for index, sentence in enumerate(sentences):
            identifiers = [i for word in sentence.split() for i in self._identifiers(word)]
            known = [self._row.get(i, 0) for i in identifiers[: POSITIONS - 2]]
            rows[index, 1 : len(known) + 1] = torch.tensor(known, dtype=torch.long)
            special[index, 1 : len(known) + 1] = False
            end[index] = len(known) + 1
        return Tokens(rows, special, end)

    def sentences(self, labels: Labels, generator: torch.Generator) -> list[str]:
        """A sentence for every label; one in ten is empty, half leave the background open."""
        draws = torch.rand(len(labels), 8, generator=generator).tolist()
        columns = (labels.concept.tolist(), labels.colour.tolist(), labels.background.tolist())
        return [
            "" if draw[0] < _EMPTY_SHARE else sentence(*label, draw)
            for *label, draw in zip(*columns, draws, strict=True)
        ]


def sentence(concept: int, colour: int, background: int, draw: list[float]) -> str:
    """A sentence that says this, worded by eight numbers in [0, 1); the first is not used.

    Concept -1 is left open (``a red icon``). A background is named where the sixth number is below
    0.5.
    """
    if concept < 0:
        name = _pick(KINDS, draw[1])
    else:
        names = (CATALOGUE[concept].name, *CATALOGUE[concept].synonyms)
        name = names[0] if draw[1] < 0.7 else _pick(names, (draw[1] - 0.7) / 0.3)
    subject = name if colour == NATURAL else f"{COLOURS[colour - 1]} {name}"
    if draw[2] < 0.1:
        subject = f"{_pick(FILLER, draw[2] / 0.1)} {subject}"
    if draw[3] < 0.65:
        subject = f"{'an' if subject[0] in 'aeio' else 'a'} {subject}"
    elif draw[3] < 0.75:
        subject = f"the {subject}"
    if draw[4] < 0.35 and concept >= 0:
        kind = _pick(KINDS, draw[4] / 0.35)
        subject = f"{'an' if kind[0] in 'aeio' else 'a'} {kind} of {subject}"
    if draw[5] < 0.5:
        subject += _pick(ground_phrases(BACKGROUNDS[background]), draw[5] / 0.5)
    if draw[6] < _STRANGE_SHARE:
        words = subject.split()
        words.insert(int(draw[7] * (len(words) + 1)), _pick(STRANGE, draw[6] / _STRANGE_SHARE))
        subject = " ".join(words)
    return subject


def ground_phrases(name: str) -> tuple[str, ...]:
    """Ways to say that the background has this colour."""
    article = "an" if name == "orange" else "a"
    if name == "gray":
        return " on a gray background", " on a grey background", " on gray"
    plain = f" on {article} {name} background"
    front = f" in front of {article} {name} background"
    return plain, plain, f" on {name}", f" on {name} background", front


def _pick(choices: tuple[str, ...], draw: float) -> str:
    return choices[min(int(draw * len(choices)), len(choices) - 1)]
