"""Sentences for rich pictures: each says some of what its picture shows, and nothing else."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch

from ..scenery import (
    ASIDE,
    BIG_ABOVE,
    BIG_WORDS,
    GROUND_WORDS,
    GROUNDS,
    LIGHT_WORDS,
    LIGHTS,
    MIDDLE,
    NUMBERS,
    PATTERN_WORDS,
    PLACE_WORDS,
    SHADOW_WORDS,
    SIDE_WORDS,
    SIDES,
    SMALL_BELOW,
    SMALL_WORDS,
    TILT_WORDS,
    TILTED,
    UPSIDE_DOWN,
    plural,
    with_article,
)
from ..vocabulary import BACKGROUNDS, CATALOGUE, COLOURS
from .captions import KINDS, STRANGE, ground_phrases
from .pictures import NATURAL
from .scenes import NOTHING, Scenes

LONGEST = 15
"""Words that fit in a prompt; what is beyond is not said."""
_EMPTY, _STRANGE, _UNCOUNTED = 0.1, 0.12, 0.05


def scene_sentences(scenes: Scenes, generator: torch.Generator) -> list[str]:
    """A sentence for every scene; one in ten is empty."""
    seed = int(torch.randint(2**62, (1,), generator=generator))
    choice = random.Random(seed)
    columns = {name: column.tolist() for name, column in scenes.columns().items()}
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return [sentence(Row(**row), choice) for row in rows]


@dataclass(frozen=True)
class Row:
    """One scene of ``Scenes``, in plain numbers."""

    concept: list[int]
    colour: list[int]
    place: list[list[float]]
    size: list[float]
    tilt: list[float]
    ground: int
    tints: list[int]
    light: int
    side: int
    shadow: bool

    @property
    def count(self) -> int:
        """How many things there are."""
        return sum(one != NOTHING for one in self.concept)

    @property
    def pair(self) -> bool:
        """Whether there are two different things."""
        return self.count == 2 and self.concept[0] != self.concept[1]


def sentence(row: Row, choice: random.Random) -> str:
    """A sentence that is true of the scene; which parts it says is drawn."""
    if choice.random() < _EMPTY:
        return ""
    text = _subject(row, choice)
    clauses = [_place(row, choice), _tilt(row, choice), _ground(row, choice)]
    clauses += [_light(row, choice), _shadow(row, choice)]
    for clause in clauses:
        if clause and len(f"{text} {clause}".split()) <= LONGEST:
            text = f"{text} {clause}"
    words = text.split()
    if choice.random() < _STRANGE and len(words) < LONGEST:
        words.insert(choice.randrange(len(words) + 1), choice.choice(STRANGE))
    return " ".join(words)


def relation(row: Row) -> str | None:
    """Where the first of two things is from the second; None where that is not clear."""
    (left, top), (right, bottom) = row.place[0], row.place[1]
    across, down = right - left, bottom - top
    if abs(across) > 2 * abs(down):
        return "left of" if across > 0 else "right of"
    if abs(down) > 2 * abs(across):
        return "above" if down > 0 else "below"
    return None


def _subject(row: Row, choice: random.Random) -> str:
    if row.pair:
        return _two_things(row, choice)
    if row.count > 1:
        name = plural(CATALOGUE[row.concept[0]].name)
        words = _coloured(name, row.colour[0])
        return words if choice.random() < _UNCOUNTED else f"{NUMBERS[row.count - 1]} {words}"
    concept = CATALOGUE[row.concept[0]]
    names = (concept.name, *concept.synonyms)
    name = names[0] if choice.random() < 0.75 else choice.choice(names)
    words = _coloured(name, row.colour[0])
    size = row.size[0]
    if size < SMALL_BELOW and choice.random() < 0.6:
        words = f"{choice.choice(SMALL_WORDS)} {words}"
    elif size > BIG_ABOVE and choice.random() < 0.4:
        words = f"{choice.choice(BIG_WORDS)} {words}"
    draw = choice.random()
    if draw < 0.75:
        words = with_article(words)
    elif draw < 0.8:
        words = f"the {words}"
    if choice.random() < 0.12:
        words = f"{with_article(choice.choice(KINDS))} of {words}"
    return words


def _two_things(row: Row, choice: random.Random) -> str:
    first, second = 0, 1
    between = relation(row)
    if choice.random() < 0.5:  # the other one first
        swapped = Row(**{**vars(row), "place": [row.place[1], row.place[0], row.place[2]]})
        first, second, between = 1, 0, relation(swapped)
    names = [
        with_article(_coloured(CATALOGUE[row.concept[i]].name, row.colour[i]))
        for i in (first, second)
    ]
    if between is None or choice.random() < 0.2:
        return f"{names[0]} {choice.choice(('and', 'and', 'next to'))} {names[1]}"
    if between in ("left of", "right of") and choice.random() < 0.3:
        between = f"to the {between}"
    return f"{names[0]} {between} {names[1]}"


def _place(row: Row, choice: random.Random) -> str | None:
    if row.count > 1 or choice.random() < 0.3:
        return None
    across, down = row.place[0][0] - 0.5, row.place[0][1] - 0.5
    sides = []
    if abs(across) > ASIDE:
        sides.append("left" if across < 0 else "right")
    if abs(down) > ASIDE:
        sides.append("top" if down < 0 else "bottom")
    if len(sides) == 2 and choice.random() < 0.4:
        return f"at the {sides[1]} {sides[0]}"
    if sides:
        farthest = sides[0] if len(sides) == 1 or abs(across) > abs(down) else sides[1]
        return choice.choice(PLACE_WORDS[farthest])
    middle = max(abs(across), abs(down)) < MIDDLE
    return choice.choice(PLACE_WORDS["middle"]) if middle and choice.random() < 0.35 else None


def _tilt(row: Row, choice: random.Random) -> str | None:
    tilt = row.tilt[0]
    if row.count > 1:
        return None
    if abs(tilt) > 90:
        return UPSIDE_DOWN if choice.random() < 0.8 else None
    if abs(tilt) < TILTED or choice.random() > 0.3:
        return None
    return TILT_WORDS["right" if tilt > 0 else "left"]


def _ground(row: Row, choice: random.Random) -> str | None:
    name, first, second = GROUNDS[row.ground], *row.tints
    if choice.random() < (0.5 if name == "flat" else 0.3):
        return None
    if name == "flat":
        if first == NOTHING:
            return None
        return choice.choice(ground_phrases(BACKGROUNDS[first]))
    if first != NOTHING and name in PATTERN_WORDS and choice.random() < 0.6:
        words = with_article(f"{BACKGROUNDS[first]} {PATTERN_WORDS[name]}")
        return f"on {words} background"
    if first != NOTHING and name == "gradient" and choice.random() < 0.5:
        both = [BACKGROUNDS[first], BACKGROUNDS[second]]
        choice.shuffle(both)
        return f"on {with_article(both[0])} and {both[1]} gradient"
    return choice.choice(GROUND_WORDS[name])


def _light(row: Row, choice: random.Random) -> str | None:
    said = []
    if row.light and choice.random() < 0.65:
        said.append(choice.choice(LIGHT_WORDS[LIGHTS[row.light]]))
    if row.side and choice.random() < 0.6:
        said.append(choice.choice(SIDE_WORDS[SIDES[row.side]]))
    return " ".join(said) if said else None


def _shadow(row: Row, choice: random.Random) -> str | None:
    return choice.choice(SHADOW_WORDS) if row.shadow and choice.random() < 0.4 else None


def _coloured(name: str, colour: int) -> str:
    return name if colour == NATURAL else f"{COLOURS[colour - 1]} {name}"
