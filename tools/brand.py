"""Draw the icon and the banner that a registry shows: python tools/brand.py

Noise at the left that becomes a hill with a climbing line: the initial noise climbs a reward.
"""

from __future__ import annotations

import math
import random
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

WEB = Path(__file__).resolve().parent.parent / "web"
NIGHT, HILL, LINE, SUN = (22, 25, 37), (58, 91, 160), (250, 176, 60), (255, 236, 179)


def ground(width: int, height: int, cell: int, seed: int) -> Image.Image:
    """Grey noise that calms down towards the right into a night sky over a hill."""
    random.seed(seed)
    picture = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(picture)
    for left in range(0, width, cell):
        for top in range(0, height, cell):
            calm = min(1.0, max(0.0, (left / width - 0.12) / 0.55))
            below = (top + cell / 2) / height > crest((left + cell / 2) / width)
            goal = HILL if below else NIGHT
            grain = random.gauss(128, 60)
            colour = tuple(round(calm * g + (1 - calm) * (0.5 * g + 0.5 * grain)) for g in goal)
            draw.rectangle((left, top, left + cell - 1, top + cell - 1), colour)
    return picture


def crest(x: float) -> float:
    """Height of the hill, as a share of the picture from its top."""
    return 0.9 - 0.5 / (1 + math.exp(-9 * (x - 0.55)))


def climb(picture: Image.Image, wide: int) -> None:
    """The line up the hill, and where it has arrived."""
    draw, (width, height) = ImageDraw.Draw(picture), picture.size
    steps = [0.1 + 0.75 * step / 8 for step in range(9)]
    points = [(x * width, (crest(x) - 0.06) * height) for x in steps]
    draw.line(points, LINE, wide, joint="curve")
    for x, y in points[:-1]:
        draw.ellipse((x - wide, y - wide, x + wide, y + wide), LINE)
    (x, y), big = points[-1], wide * 3
    draw.ellipse((x - big, y - big, x + big, y + big), SUN)


def main() -> None:
    icon = ground(800, 800, 50, 3)
    climb(icon, 20)
    icon.resize((400, 400), Image.Resampling.LANCZOS).save(WEB / "icon.png", optimize=True)
    banner = ground(2520, 1080, 60, 5)
    climb(banner, 24)
    draw = ImageDraw.Draw(banner)
    draw.text((150, 120), "ComfyUI-DNO", "white", ImageFont.load_default(size=190))
    said = "the noise climbs until the picture is what you want"
    draw.text((158, 350), said, SUN, ImageFont.load_default(size=64))
    banner.resize((1260, 540), Image.Resampling.LANCZOS).save(WEB / "banner.png", optimize=True)


if __name__ == "__main__":
    main()
