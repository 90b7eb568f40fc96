"""A contact sheet: pictures, best first, each with its name and score below it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from .canvas import INK, MUTED, Canvas, number, side_by_side

MOST = 64  # tiles on one sheet
WIDE = 4 / 3  # what the sheet's own shape comes close to
LONGEST = 2.5  # a long picture's longer side, in sides of a square one
BEST = "#D55E00"  # Okabe and Ito's vermilion, for any colour vision


@dataclass(frozen=True)
class Tile:
    """A picture in the size that it is drawn in, its name and its score."""

    picture: Image.Image
    name: str
    score: float


def order(scores: Sequence[float]) -> list[int]:
    """The places of these scores, highest first; of equal ones the first, NaN last."""
    return sorted(range(len(scores)), key=lambda at: (math.isnan(scores[at]), -scores[at]))


def reduced(images: Tensor, count: int) -> Image.Image:
    """(B,3,H,W) in [0,1] side by side, at most four, in the size for a sheet of `count` tiles."""
    with torch.inference_mode(False), torch.no_grad():
        picture = side_by_side(images.nan_to_num(0.0))
    side = min(max(1600 / math.sqrt(min(count, MOST)), 200), 640)
    factor = side / math.sqrt(picture.width * picture.height)
    factor = min(factor, LONGEST * side / max(picture.size))
    size = max(round(picture.width * factor), 1), max(round(picture.height * factor), 1)
    return picture.resize(size, Image.Resampling.LANCZOS)


def sheet(tiles: Sequence[Tile], left_out: int = 0) -> Image.Image:
    """Draw `tiles`, best first and of one size; the first is framed. At most `MOST` of them.

    left_out: how many more there were, told in a line at the foot.
    """
    width, height = tiles[0].picture.size
    size = min(max(0.12 * math.sqrt(width * height), 26), 36)
    marked = len(tiles) + left_out > 1
    words = [(tile.name, number(tile.score)) for tile in tiles]
    if marked:
        words[0] = f"best {words[0][0]}", words[0][1]
    ruler = Canvas(1, 1)
    widest = max(ruler.width_of(f"{name}   {score}", size) for name, score in words)
    pad = round(0.6 * size)
    across = math.ceil(max(width, widest)) + 2 * pad
    down = height + pad + round(2 * size)
    columns = _columns(len(tiles), across / down)
    rows = math.ceil(len(tiles) / columns)
    foot = round(1.8 * size) if left_out else 0
    canvas = Canvas(columns * across, rows * down + foot)
    for index, (tile, (name, score)) in enumerate(zip(tiles, words, strict=True)):
        left, top = index % columns * across, index // columns * down
        x, y = left + (across - width) // 2, top + pad
        best = marked and index == 0
        if best:
            _frame(canvas, (x, y), (width, height), 0.35 * size)
        canvas.picture(x, y, tile.picture)
        colour, line = BEST if best else INK, y + height + size
        canvas.text(left + pad, line, name, size, colour)
        canvas.text(left + across - pad, line, score, size, colour, "rm")
    if left_out:
        canvas.text(pad, rows * down + 0.6 * size, f"and {left_out} more, lower", size, MUTED)
    return canvas.finish()


def _columns(count: int, aspect: float) -> int:
    """How many columns of tiles make a sheet of about the shape `WIDE` with few empty places."""

    def miss(columns: int) -> float:
        rows = math.ceil(count / columns)
        return abs(math.log(columns * aspect / rows / WIDE)) + 2 * (1 - count / (columns * rows))

    return min(range(1, count + 1), key=miss)


def _frame(canvas: Canvas, corner: tuple[int, int], size: tuple[int, int], line: float) -> None:
    """A frame around a picture, with a hair of white between."""
    gap = 0.75 * line
    left, top = corner[0] - gap, corner[1] - gap
    right, foot = corner[0] + size[0] + gap, corner[1] + size[1] + gap
    points = [(left, top), (right, top), (right, foot), (left, foot), (left, top)]
    canvas.line(points, BEST, line)
