"""Words for richer pictures: where things are, how big, on what ground, in which light.

A prompt may say any of this, in at most fifteen tokens: ``a small red cat on the left in a
meadow``, ``two apples at night``, ``a cat left of a red basketball``.
"""

from __future__ import annotations

from dataclasses import dataclass

from .vocabulary import CATALOGUE, CONCEPTS

GROUNDS: tuple[str, ...] = (
    "flat", "gradient", "stripes", "dots", "checks", "meadow", "sea", "night", "room",
)  # fmt: skip
"""What may be behind the things."""
SCENES: tuple[str, ...] = GROUNDS[5:]
PATTERNS: tuple[str, ...] = GROUNDS[2:5]
LIGHTS: tuple[str, ...] = ("plain", "warm", "cold", "dusk")
SIDES: tuple[str, ...] = ("everywhere", "left", "right")
"""Where the light comes from."""
THINGS_AT_MOST = 3
NUMBERS: tuple[str, ...] = ("one", "two", "three")
RELATIONS: tuple[str, ...] = ("left of", "right of", "above", "below")
OPPOSITE = {
    "left of": "right of", "right of": "left of", "above": "below", "below": "above",
}  # fmt: skip

SMALL_BELOW, BIG_ABOVE = 0.54, 0.74
"""Sizes, as a share of the picture's side, that are called small and big."""
MIDDLE = 0.08
"""Farthest that the middle of a thing is from the picture's, along an axis, to be called so."""
ASIDE = 0.1
"""Least distance from the middle to be called left, right, top or bottom."""
TILTED = 12.0
"""Degrees from which a thing is called tilted."""

SMALL_WORDS, BIG_WORDS = ("small", "little"), ("big", "large", "huge")
GROUND_WORDS: dict[str, tuple[str, ...]] = {
    "meadow": ("in a meadow", "on the grass", "on grass", "in a field", "under a blue sky"),
    "sea": ("at sea", "on the sea", "by the sea", "on the ocean"),
    "night": ("at night", "in the night", "under the night sky", "in the dark"),
    "room": ("in a room", "in the room", "indoors", "on the floor"),
    "gradient": ("on a gradient", "on a gradient background"),
    "stripes": ("on stripes", "on a striped background"),
    "dots": ("on dots", "on a dotted background"),
    "checks": ("on checks", "on a checkered background"),
}
PATTERN_WORDS = {"stripes": "striped", "dots": "dotted", "checks": "checkered"}
LIGHT_WORDS: dict[str, tuple[str, ...]] = {
    "warm": ("in warm light", "in warm light", "in golden light"),
    "cold": ("in cold light", "in cold light", "in blue light"),
    "dusk": ("at dusk", "at dusk", "at sunset"),
}
SIDE_WORDS: dict[str, tuple[str, ...]] = {
    "left": ("lit from the left", "with light from the left"),
    "right": ("lit from the right", "with light from the right"),
}
SHADOW_WORDS = ("with a shadow", "casting a shadow")
PLACE_WORDS: dict[str, tuple[str, ...]] = {
    "left": ("on the left", "on the left side"),
    "right": ("on the right", "on the right side"),
    "top": ("at the top",),
    "bottom": ("at the bottom",),
    "middle": ("in the middle", "in the center"),
}
TILT_WORDS = {"left": "tilted to the left", "right": "tilted to the right"}
UPSIDE_DOWN = "upside down"

_IRREGULAR = {
    "fox": "foxes", "octopus": "octopuses", "fish": "fish", "cherry": "cherries", "leaf": "leaves",
    "strawberry": "strawberries", "butterfly": "butterflies", "trophy": "trophies",
    "bus": "buses", "dress": "dresses", "ladybug": "ladybugs", "grapes": "grapes",
    "sunglasses": "sunglasses", "cactus": "cactuses", "snowman": "snowmen",
}  # fmt: skip


def plural(name: str) -> str:
    """The word for several of a thing."""
    return _IRREGULAR.get(name, name + "s")


COUNTABLE: tuple[str, ...] = tuple(name for name in CONCEPTS if plural(name) != name)
"""Things whose plural can be told from the singular."""


def scene_words() -> list[str]:
    """Every word that scenes add to the vocabulary."""
    phrases = [*SMALL_WORDS, *BIG_WORDS, *SHADOW_WORDS, *TILT_WORDS.values(), UPSIDE_DOWN]
    for words in (GROUND_WORDS, LIGHT_WORDS, SIDE_WORDS, PLACE_WORDS):
        phrases += [phrase for several in words.values() for phrase in several]
    phrases += [*PATTERN_WORDS.values(), *NUMBERS, *RELATIONS, "to the left of", "and", "next to"]
    phrases += [plural(concept.name) for concept in CATALOGUE]
    return sorted({word for phrase in phrases for word in phrase.split()})


@dataclass(frozen=True)
class Wish:
    """What a prompt asks for, in words: evaluation and benchmarks are written in these."""

    concept: str
    colour: str | None = None
    count: int = 1
    size: str | None = None
    place: str | None = None
    ground: str | None = None
    background: str | None = None
    """The colour of a flat or patterned ground."""
    light: str | None = None
    relation: str | None = None
    other: str | None = None
    other_colour: str | None = None

    @property
    def prompt(self) -> str:
        """The plain sentence that says so."""
        words = [self.size, self.colour, self.concept if self.count == 1 else plural(self.concept)]
        subject = " ".join(word for word in words if word)
        text = f"{NUMBERS[self.count - 1]} {subject}" if self.count > 1 else with_article(subject)
        if self.relation:
            other = f"{self.other_colour} {self.other}" if self.other_colour else self.other
            text += f" {self.relation} {with_article(other)}"
        if self.place:
            text += " " + PLACE_WORDS[self.place][0]
        if self.ground in PATTERN_WORDS and self.background:
            text += f" on {with_article(self.background)} {PATTERN_WORDS[self.ground]} background"
        elif self.ground in GROUND_WORDS:
            text += " " + GROUND_WORDS[self.ground][0]
        elif self.background:
            text += f" on {with_article(self.background)} background"
        if self.light:
            text += " " + {**LIGHT_WORDS, **SIDE_WORDS}[self.light][0]
        return text


def with_article(words: str) -> str:
    """``an apple``, ``a red apple``."""
    return f"{'an' if words[0] in 'aeio' else 'a'} {words}"
