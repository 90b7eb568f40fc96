"""Rich prompts, fixed in advance, and what the judge of rich pictures finds in their pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..scenery import COUNTABLE, PATTERNS, RELATIONS, SCENES, Wish
from ..vocabulary import BACKGROUNDS, COLOURABLE, COLOURS

SEED = 2000
PLACES = ("left", "right", "top", "bottom")
LIGHTS = ("warm", "cold", "dusk", "left", "right")
COUNTS = {"place": 12, "size": 8, "count": 10, "relation": 8, "scene": 12, "pattern": 6, "light": 8}
"""How many of the 64 prompts are of each kind."""


def scene_wishes(seed: int = SEED) -> dict[str, list[Wish]]:
    """The prompts by kind; another seed gives other things in other colours."""
    generator = torch.Generator().manual_seed(seed)

    def pick(choices):
        return choices[int(torch.randint(len(choices), (1,), generator=generator))]

    def backdrop(colour: str) -> str:
        return pick([name for name in BACKGROUNDS if name != colour])

    wishes: dict[str, list[Wish]] = {kind: [] for kind in COUNTS}
    for index in range(COUNTS["place"]):
        thing, colour = pick(COLOURABLE), pick(COLOURS)
        place = PLACES[index % len(PLACES)]
        wishes["place"].append(Wish(thing, colour, place=place, background=backdrop(colour)))
    for index in range(COUNTS["size"]):
        wishes["size"].append(Wish(pick(COLOURABLE), size=("small", "big")[index % 2]))
    for index in range(COUNTS["count"]):
        wishes["count"].append(Wish(pick(COUNTABLE), count=2 + index % 2))
    for index in range(COUNTS["relation"]):
        thing, other = pick(COLOURABLE), pick(COLOURABLE)
        while other == thing:
            other = pick(COLOURABLE)
        relation = RELATIONS[index % len(RELATIONS)]
        wishes["relation"].append(Wish(thing, relation=relation, other=other))
    for index in range(COUNTS["scene"]):
        wishes["scene"].append(Wish(pick(COLOURABLE), ground=SCENES[index % len(SCENES)]))
    for index in range(COUNTS["pattern"]):
        ground = PATTERNS[index % len(PATTERNS)]
        wishes["pattern"].append(
            Wish(pick(COLOURABLE), ground=ground, background=pick(BACKGROUNDS))
        )
    for index in range(COUNTS["light"]):
        wishes["light"].append(Wish(pick(COLOURABLE), light=LIGHTS[index % len(LIGHTS)]))
    return wishes


def drawn(
    draw: Callable[[str, int], Tensor], wishes: dict[str, list[Wish]]
) -> tuple[list[Wish], list[Tensor]]:
    """All wishes, and a picture of each."""
    every = [wish for kind in wishes.values() for wish in kind]
    return every, [draw(wish.prompt, SEED + index) for index, wish in enumerate(every)]


def marks(
    judge: Callable[[Tensor, Wish], dict[str, bool]], wishes: list[Wish], images: list[Tensor]
) -> dict[str, tuple[int, int]]:
    """How many of each part the judge calls right, of how many that are named."""
    given: dict[str, list[bool]] = {}
    for wish, image in zip(wishes, images, strict=True):
        for part, right in judge(image, wish).items():
            given.setdefault(part, []).append(right)
    return {part: (sum(each), len(each)) for part, each in given.items()}


def save_sheet(wishes: list[Wish], images: list[Tensor], path: Path, columns: int = 8) -> None:
    """The pictures under each other, each with its prompt in two lines."""
    from PIL import Image, ImageDraw

    side = images[0].shape[-1]
    width, height = side + 4, side + 30
    sheet = Image.new("RGB", (columns * width, -(-len(images) // columns) * height), "white")
    write = ImageDraw.Draw(sheet)
    for index, (wish, image) in enumerate(zip(wishes, images, strict=True)):
        left, top = index % columns * width, index // columns * height
        pixels = (image[0].movedim(0, -1).clamp(0, 1) * 255).round().byte().numpy()
        sheet.paste(Image.fromarray(pixels), (left + 2, top))
        words, lines = wish.prompt.split(), [""]
        for word in words:
            if len(lines[-1]) + len(word) > 22:
                lines.append("")
            lines[-1] += f"{word} "
        write.multiline_text((left + 3, top + side + 1), "\n".join(lines[:2]), "black", spacing=1)
    sheet.save(path, optimize=True)
