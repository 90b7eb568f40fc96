"""Sentences about rich pictures for the contrastive training, and which fit which picture."""

from __future__ import annotations

import dataclasses
import random

import torch
from torch import Tensor

from ..scenery import BIG_ABOVE, COUNTABLE, GROUNDS, LIGHTS, PATTERNS, SIDES, SMALL_BELOW, Wish
from ..vocabulary import BACKGROUNDS, COLOURABLE, COLOURS, CONCEPTS
from .pictures import NATURAL
from .scene_captions import Row
from .scenes import NOTHING, Scenes

OPEN = -1
"""What a sentence does not name."""
DOUBT = -2
"""What cannot be told from the picture, or only with luck."""
PARTS = ("count", "size", "across", "down", "ground", "background", "light", "side")
_SIZES, _ACROSS, _DOWN = ("small", "big"), ("left", "right"), ("top", "bottom")
_FAR = 0.12
"""Distance from the middle from which a thing is surely aside."""


def wishes_of(scenes: Scenes, altered: bool, generator: torch.Generator) -> list[Wish]:
    """A wish that each scene fulfils, which leaves most parts open; one part wrong if altered."""
    choice = random.Random(int(torch.randint(2**62, (1,), generator=generator)))
    columns = {name: column.tolist() for name, column in scenes.columns().items()}
    seen = seen_parts(scenes).tolist()
    wishes = []
    for index in range(len(scenes)):
        row = Row(**{name: column[index] for name, column in columns.items()})
        wish = _wish(row, dict(zip(PARTS, seen[index], strict=True)), choice)
        wishes.append(_altered(wish, row, choice) if altered else wish)
    return wishes


def fits(scenes: Scenes, wishes: list[Wish], same: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(pictures, sentences) each: which fit, and which do not. What is in doubt is in neither.

    same: (concepts, colours, colours) which two colours of a thing look the same.
    """
    said, seen = said_parts(wishes), seen_parts(scenes)
    named = said != OPEN
    doubtful = (seen == DOUBT)[:, None] & named
    equal = seen[:, None] == said
    right = (~named | (equal & ~doubtful)).all(2)
    wrong = (named & ~equal & ~doubtful).any(2)
    thing_right, thing_wrong = _things_fit(scenes, wishes, same)
    return right & thing_right, wrong | thing_wrong


def _things_fit(scenes: Scenes, wishes: list[Wish], same: Tensor | None) -> tuple[Tensor, Tensor]:
    """Whether one of a picture's things has the name and the colour that is asked for."""
    concept = torch.tensor([CONCEPTS.index(wish.concept) for wish in wishes])
    colour = torch.tensor([COLOURS.index(w.colour) + 1 if w.colour else OPEN for w in wishes])
    true_light = (scenes.light + scenes.side == 0)[:, None]
    right = torch.zeros(len(scenes), len(wishes), dtype=torch.bool)
    possible = torch.zeros_like(right)
    for slot in range(scenes.concept.shape[1]):
        there = scenes.concept[:, slot, None] == concept
        own = scenes.colour[:, slot, None]
        coloured = (colour == OPEN) | (own == colour)
        close = ~true_light | coloured
        if same is not None:
            index = scenes.concept[:, slot].clamp(min=0)
            close = close | same[index[:, None], own, colour.clamp(min=0)]
        right |= there & coloured & (true_light | (colour == OPEN))
        possible |= there & close
    return right, ~possible


def seen_parts(scenes: Scenes) -> Tensor:
    """(N, len(PARTS)) what pictures show, ``DOUBT`` where it is not clear."""
    number, single = scenes.count, scenes.count == 1
    alike = (scenes.concept[:, 0] == scenes.concept[:, 1]) | single
    size = torch.full_like(number, DOUBT)
    size[single & (scenes.size[:, 0] < SMALL_BELOW)] = 0
    size[single & (scenes.size[:, 0] > BIG_ABOVE)] = 1
    sides = []
    for axis in (0, 1):
        away = scenes.place[:, 0, axis] - 0.5
        side = torch.where(away < 0, 0, 1)
        sides.append(torch.where(single & (away.abs() > _FAR), side, DOUBT))
    coloured = torch.tensor([name == "flat" or name in PATTERNS for name in GROUNDS])
    lit = scenes.light + scenes.side > 0
    first = scenes.tints[:, 0]
    named = coloured[scenes.ground] & (first != NOTHING) & ~lit
    whole = [scenes.ground, torch.where(named, first, DOUBT), scenes.light, scenes.side]
    count = torch.where(alike, number, DOUBT)
    return torch.stack([count, size, *sides, *whole], 1)


def said_parts(wishes: list[Wish]) -> Tensor:
    """(M, len(PARTS)) what the wishes name, ``OPEN`` elsewhere."""

    def index(names: tuple[str, ...], name: str | None) -> int:
        return names.index(name) if name in names else OPEN

    return torch.tensor([
        [
            w.count if w.count > 1 else OPEN,
            index(_SIZES, w.size),
            index(_ACROSS, w.place),
            index(_DOWN, w.place),
            index(GROUNDS, w.ground or ("flat" if w.background else None)),
            index(BACKGROUNDS, w.background),
            index(LIGHTS, w.light),
            index(SIDES, w.light),
        ]
        for w in wishes
    ])  # fmt: skip


def _wish(row: Row, seen: dict[str, int], choice: random.Random) -> Wish:
    """Names the thing, and each other part that is clear with a chance of about a third."""
    slot = choice.randrange(2) if row.pair else 0
    concept = CONCEPTS[row.concept[slot]]
    lit = row.light or row.side
    colour = row.colour[slot]
    fields: dict = {"concept": concept}
    if colour != NATURAL and not lit and choice.random() < 0.7:
        fields["colour"] = COLOURS[colour - 1]
    if row.count > 1 and not row.pair and concept in COUNTABLE:
        fields["count"] = row.count
    if row.count == 1:
        if seen["size"] >= 0 and choice.random() < 0.4:
            fields["size"] = _SIZES[seen["size"]]
        sides = [
            names[seen[part]]
            for part, names in (("across", _ACROSS), ("down", _DOWN))
            if seen[part] >= 0
        ]
        if sides and choice.random() < 0.5:
            fields["place"] = choice.choice(sides)
    ground = GROUNDS[row.ground]
    if choice.random() < 0.5 and (ground != "flat" or seen["background"] >= 0):
        fields["ground"] = ground if ground != "flat" else None
        if seen["background"] >= 0:
            fields["background"] = BACKGROUNDS[seen["background"]]
    if row.light and choice.random() < 0.6:
        fields["light"] = LIGHTS[row.light]
    elif row.side and not row.light and choice.random() < 0.6:
        fields["light"] = SIDES[row.side]
    return Wish(**fields)


def _altered(wish: Wish, row: Row, choice: random.Random) -> Wish:
    """The same with another value of one part that it names; no other thing of the picture's."""
    others = {
        "concept": COLOURABLE, "colour": COLOURS, "size": _SIZES, "background": BACKGROUNDS,
        "place": _ACROSS if wish.place in _ACROSS else _DOWN,
        "light": LIGHTS[1:] if wish.light in LIGHTS else SIDES[1:],
        "ground": PATTERNS if wish.ground in PATTERNS else GROUNDS[5:],
    }  # fmt: skip
    if wish.count > 1:
        others["count"] = (2, 3)
        others["concept"] = COUNTABLE
    shown = [CONCEPTS[index] for index in row.concept if index != NOTHING]
    others["concept"] = [name for name in others["concept"] if name not in shown]
    named = [part for part in others if getattr(wish, part) not in (None, 1)]
    part = choice.choice(named)
    values = [value for value in others[part] if value != getattr(wish, part)]
    return dataclasses.replace(wish, **{part: choice.choice(values)})
