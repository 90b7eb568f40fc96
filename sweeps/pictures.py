"""The rows' pictures: small ones for the page, and a contact sheet of them."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from .rows import Store
from .tables import Results
from .words import known

SIDE = 160  # pixels of a small picture


class Pictures:
    """The rows' pictures, made small."""

    def __init__(self, store: Store):
        self._folder = store.pictures

    def path(self, record: dict, at: str) -> Path | None:
        """The picture called start or best; else, for best, the first that the row saved."""
        named = [name for name in record["pictures"] or [] if Path(name).name.startswith(f"{at}_")]
        if not named and at == "best":
            named = [n for n in record["pictures"] or [] if not Path(n).name.startswith("start_")]
        path = self._folder / named[0] if named else None
        return path if path and path.exists() else None

    def small(self, record: dict, at: str, side: int = SIDE) -> str:
        """A JPEG as a data URL, or nothing."""
        path = self.path(record, at)
        if path is None or path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
            return ""
        with Image.open(path) as picture:
            small = picture.convert("RGB")
            small.thumbnail((side, side))
        data = io.BytesIO()
        small.save(data, "JPEG", quality=80)
        return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def contact_sheet(results: Results, store: Store) -> Image.Image:
    """Variants down, what they share across. `A | B`: A's blocks side by side, B down."""
    given = results.plan.given["sheet"]
    known("sheet", given, ("file", "start", "columns", "only"))
    lines: dict[str, list[Path | None]] = {}
    labels: list[str] = []
    pictures = Pictures(store)
    for variant, rows in results.variants.items():
        block, _, name = variant.rpartition(" | ")
        if not rows or block not in given.get("only", [block]):
            continue
        records = [rows[pair] for pair in sorted(rows)][: given.get("columns", 8)]
        if block not in labels:
            labels.append(block)
            if "start" in given:
                started = [pictures.path(record, "start") for record in records]
                lines.setdefault(given["start"], []).extend(started)
        lines.setdefault(name, []).extend(pictures.path(record, "best") for record in records)
    return _drawn(lines, labels if any(labels) else [])


def _drawn(lines: dict[str, list[Path | None]], labels: list[str]) -> Image.Image:
    first = next(path for paths in lines.values() for path in paths if path)
    with Image.open(first) as picture:
        width, height = picture.size
    across = max(map(len, lines.values()))
    left, top, font = 130, 24 if labels else 4, ImageFont.load_default(size=15)
    size = (left + across * (width + 4), top + len(lines) * (height + 4))
    canvas = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(canvas)
    for index, label in enumerate(labels):
        draw.text((left + index * across // len(labels) * (width + 4), 4), label, "black", font)
    for row, (name, paths) in enumerate(lines.items()):
        y = top + row * (height + 4)
        draw.text((6, y + height // 2 - 8), name, "black", font)
        for column, path in enumerate(paths):
            if path:
                with Image.open(path) as picture:
                    canvas.paste(picture.convert("RGB"), (left + column * (width + 4), y))
    return canvas
