"""What the demo checkpoint can draw, and the words it knows for it.

A prompt names one concept, optionally its colour and optionally the colour of the background:
``a photo of a red car on a blue background``.
"""

from dataclasses import dataclass
from typing import Literal

Recolour = Literal["hue", "tint", "none"]
"""How an icon takes a colour: its main hue is exchanged, its greys are tinted, or not at all."""


@dataclass(frozen=True)
class Concept:
    """One thing the model draws: its name, its icon in Fluent Emoji Flat, other names for it."""

    name: str
    icon: str
    recolour: Recolour = "hue"
    synonyms: tuple[str, ...] = ()
    main_hue: float | None = None
    """The hue that is exchanged, on a circle of length 1, where it is not the most frequent one."""


@dataclass(frozen=True)
class Colour:
    """A named colour, as 8-bit sRGB."""

    name: str
    red: int
    green: int
    blue: int

    @property
    def rgb(self) -> tuple[float, float, float]:
        """The colour in [0, 1]."""
        return self.red / 255, self.green / 255, self.blue / 255


ANIMALS = (
    Concept("cat", "cat-face", synonyms=("kitten", "kitty")),
    Concept("dog", "dog-face", synonyms=("puppy",)),
    Concept("fox", "fox"),
    Concept("lion", "lion"),
    Concept("bear", "bear"),
    Concept("panda", "panda", "tint"),
    Concept("koala", "koala", "tint"),
    Concept("pig", "pig-face", synonyms=("piglet",)),
    Concept("frog", "frog", main_hue=0.41),
    Concept("monkey", "monkey-face"),
    Concept("rabbit", "rabbit-face", "tint", ("bunny",)),
    Concept("penguin", "penguin"),
    Concept("owl", "owl"),
    Concept("chick", "baby-chick"),
    Concept("duck", "duck", "tint"),
    Concept("turtle", "turtle"),
    Concept("snail", "snail"),
    Concept("butterfly", "butterfly", main_hue=0.06),
    Concept("ladybug", "lady-beetle"),
    Concept("octopus", "octopus"),
    Concept("fish", "fish"),
    Concept("whale", "whale"),
    Concept("crab", "crab"),
    Concept("elephant", "elephant", "tint"),
)

FOOD = (
    Concept("apple", "red-apple"),
    Concept("banana", "banana"),
    Concept("strawberry", "strawberry"),
    Concept("grapes", "grapes"),
    Concept("watermelon", "watermelon", synonyms=("melon",)),
    Concept("lemon", "lemon"),
    Concept("cherry", "cherries", synonyms=("cherries",)),
    Concept("pear", "pear"),
    Concept("carrot", "carrot"),
    Concept("eggplant", "eggplant"),
    Concept("mushroom", "mushroom"),
    Concept("pizza", "pizza", "none"),
    Concept("burger", "hamburger", "none", ("hamburger",)),
    Concept("donut", "doughnut", synonyms=("doughnut",)),
    Concept("cookie", "cookie"),
    Concept("cupcake", "cupcake"),
    Concept("egg", "egg"),
    Concept("cheese", "cheese-wedge"),
    Concept("teapot", "teapot"),
)

NATURE = (
    Concept("heart", "red-heart"),
    Concept("star", "star"),
    Concept("sun", "sun"),
    Concept("moon", "crescent-moon"),
    Concept("cloud", "cloud", "tint"),
    Concept("rainbow", "rainbow", "none"),
    Concept("snowman", "snowman-without-snow", "tint"),
    Concept("flame", "fire", synonyms=("fire",)),
    Concept("drop", "droplet", synonyms=("raindrop",)),
    Concept("umbrella", "umbrella"),
    Concept("planet", "ringed-planet"),
    Concept("tree", "deciduous-tree"),
    Concept("palm", "palm-tree", "none", ("palm tree",)),
    Concept("cactus", "cactus"),
    Concept("sunflower", "sunflower", "none"),
    Concept("tulip", "tulip"),
    Concept("rose", "rose"),
    Concept("clover", "four-leaf-clover"),
    Concept("leaf", "maple-leaf"),
    Concept("flower", "cherry-blossom", synonyms=("blossom",)),
)

THINGS = (
    Concept("car", "automobile", synonyms=("automobile",)),
    Concept("bus", "bus", main_hue=0.12),
    Concept("rocket", "rocket", "tint"),
    Concept("sailboat", "sailboat", synonyms=("boat",)),
    Concept("ufo", "flying-saucer", "tint"),
    Concept("house", "house", "none", ("home",)),
    Concept("castle", "castle", "tint"),
    Concept("tent", "tent"),
    Concept("basketball", "basketball", synonyms=("ball",)),
    Concept("trophy", "trophy"),
    Concept("balloon", "balloon"),
    Concept("gift", "wrapped-gift", synonyms=("present",)),
    Concept("pumpkin", "jack-o-lantern"),
    Concept("crown", "crown"),
    Concept("diamond", "gem-stone", synonyms=("gem",)),
    Concept("key", "key"),
    Concept("lock", "locked", synonyms=("padlock",)),
    Concept("lightbulb", "light-bulb", synonyms=("light bulb",)),
    Concept("bell", "bell"),
    Concept("book", "closed-book"),
    Concept("clock", "alarm-clock"),
    Concept("hat", "top-hat"),
    Concept("shirt", "t-shirt"),
    Concept("dress", "dress"),
    Concept("magnet", "magnet"),
    Concept("pencil", "pencil"),
    Concept("sunglasses", "sunglasses"),
    Concept("anchor", "anchor"),
    Concept("smiley", "grinning-face", synonyms=("smile",)),
    Concept("ghost", "ghost", "tint"),
    Concept("alien", "alien"),
    Concept("robot", "robot", "tint"),
    Concept("skull", "skull", "tint"),
)

CATALOGUE: tuple[Concept, ...] = ANIMALS + FOOD + NATURE + THINGS
CONCEPTS: tuple[str, ...] = tuple(concept.name for concept in CATALOGUE)
COLOURABLE: tuple[str, ...] = tuple(c.name for c in CATALOGUE if c.recolour != "none")

OBJECT_PALETTE = (
    Colour("red", 235, 50, 50),
    Colour("orange", 255, 140, 30),
    Colour("yellow", 255, 220, 40),
    Colour("green", 60, 190, 70),
    Colour("blue", 50, 120, 240),
    Colour("purple", 150, 70, 215),
    Colour("pink", 255, 130, 195),
    Colour("white", 250, 250, 250),
    Colour("black", 50, 50, 54),
)
BACKGROUND_PALETTE = (
    Colour("white", 250, 250, 250),
    Colour("black", 18, 18, 20),
    Colour("gray", 128, 128, 130),
    Colour("red", 225, 50, 50),
    Colour("orange", 250, 150, 50),
    Colour("yellow", 250, 220, 70),
    Colour("green", 70, 175, 80),
    Colour("blue", 60, 120, 225),
    Colour("purple", 140, 80, 200),
    Colour("pink", 250, 160, 200),
)
COLOURS: tuple[str, ...] = tuple(colour.name for colour in OBJECT_PALETTE)
BACKGROUNDS: tuple[str, ...] = tuple(colour.name for colour in BACKGROUND_PALETTE)


def prompt(concept: str, colour: str | None = None, background: str | None = None) -> str:
    """The plain sentence for a picture, e.g. ``a red apple on a blue background``."""
    subject = f"{colour} {concept}" if colour else concept
    sentence = f"{_article(subject)} {subject}"
    if background is None:
        return sentence
    return f"{sentence} on {_article(background)} {background} background"


def _article(words: str) -> str:
    return "an" if words[0] in "aeio" else "a"
