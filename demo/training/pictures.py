"""Training pictures: Fluent Emoji icons, recoloured and placed on a coloured ground.

The icons come from two npm packages (see ``install_packages``); everything else is drawn here,
from a seeded generator.
"""

import math
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..vocabulary import BACKGROUND_PALETTE, CATALOGUE, COLOURS, OBJECT_PALETTE, Colour

PACKAGES = ("@iconify-json/fluent-emoji-flat@1.2.6", "@resvg/resvg-js@2.6.2")
SIZE = 128
NATURAL = 0
"""Index of "as the icon comes" on the colour axis; colour ``i`` of the palette is ``i + 1``."""

_WIDTH = 0.145  # of the band around the main hue that is exchanged, as a part of the circle


@dataclass(frozen=True)
class Labels:
    """What is in each picture of a batch: indices into CONCEPTS, colours and BACKGROUNDS."""

    concept: Tensor
    colour: Tensor
    background: Tensor

    def __getitem__(self, index) -> "Labels":
        return Labels(self.concept[index], self.colour[index], self.background[index])

    def __len__(self) -> int:
        return len(self.concept)


def install_packages(directory: Path) -> None:
    """Fetch the icon set and the SVG rasteriser with npm, unless they are there."""
    if not (directory / "node_modules" / "@iconify-json" / "fluent-emoji-flat").is_dir():
        directory.mkdir(parents=True, exist_ok=True)
        subprocess.run(["npm", "install", "--prefix", str(directory), *PACKAGES], check=True)


def load_icons(directory: Path) -> Tensor:
    """Every concept's icon, (concepts, 4, SIZE, SIZE) in [0, 1], straight alpha."""
    raster = directory / "icons.rgba"
    if not raster.exists():
        install_packages(directory)
        script = Path(__file__).with_name("render.mjs")
        icons = [concept.icon for concept in CATALOGUE]
        command = ["node", str(script), str(directory), str(raster), str(SIZE), *icons]
        subprocess.run(command, check=True)
    pixels = torch.from_numpy(np.fromfile(raster, np.uint8)).view(-1, SIZE, SIZE, 4)
    if len(pixels) != len(CATALOGUE):
        raise ValueError(f"{raster} holds {len(pixels)} icons, not {len(CATALOGUE)}: delete it")
    return pixels.permute(0, 3, 1, 2).float() / 255


class Studio:
    """Draws labelled pictures; every picture depends only on the generator it is given."""

    def __init__(self, icons: Tensor) -> None:
        """``icons`` as ``load_icons`` returns them."""
        versions = [_premultiplied(icons)]
        versions += [_premultiplied(_recoloured(icons, colour)) for colour in OBJECT_PALETTE]
        self.bank = (torch.stack(versions, 1) * 255).round().to(torch.uint8)
        """(concepts, 1 + colours, 4, SIZE, SIZE), premultiplied."""
        self._grounds = torch.tensor([colour.rgb for colour in BACKGROUND_PALETTE])
        self._colourable = torch.tensor([concept.recolour != "none" for concept in CATALOGUE])
        names = [colour.name for colour in BACKGROUND_PALETTE]
        same = [names.index(colour) if colour in names else -2 for colour in COLOURS]
        self.ground_like = torch.tensor([-2, *same])
        """The background that a colour of a thing would vanish on, -2 where there is none."""

    def labels(self, count: int, generator: torch.Generator) -> Labels:
        """Random labels: half natural colours; a recoloured thing never on its own colour."""
        concept = torch.randint(len(self.bank), (count,), generator=generator)
        colour = torch.randint(1, len(COLOURS) + 1, (count,), generator=generator)
        recoloured = torch.rand(count, generator=generator) < 0.55
        colour = torch.where(recoloured & self._colourable[concept], colour, NATURAL)
        background = torch.randint(len(self._grounds), (count,), generator=generator)
        shift = torch.randint(1, len(self._grounds), (count,), generator=generator)
        clash = self.ground_like[colour] == background
        background = torch.where(clash, (background + shift) % len(self._grounds), background)
        return Labels(concept, colour, background)

    def draw(self, labels: Labels, generator: torch.Generator) -> Tensor:
        """One picture per label, (B, 3, SIZE, SIZE) in [0, 1]; size and place vary a little."""
        icons = self.place(labels, generator, largest=0.91, shift=0.14)
        return icons[:, :3] + self.grounds(labels, generator) * (1 - icons[:, 3:])

    def place(
        self, labels: Labels, generator: torch.Generator, largest: float, shift: float
    ) -> Tensor:
        """The subjects alone, (B, 4, SIZE, SIZE), premultiplied, randomly sized and placed."""
        count = len(labels)
        icons = self.bank[labels.concept, labels.colour].float() / 255
        scale = largest - 0.13 * torch.rand(count, generator=generator)
        offset = (torch.rand(count, 2, generator=generator) - 0.5) * shift
        transform = torch.zeros(count, 2, 3)
        transform[:, 0, 0] = transform[:, 1, 1] = 1 / scale
        transform[:, :, 2] = offset / scale[:, None]
        grid = F.affine_grid(transform, list(icons.shape), align_corners=False)
        return F.grid_sample(icons, grid, align_corners=False)

    def grounds(self, labels: Labels, generator: torch.Generator) -> Tensor:
        """The colours behind them, (B, 3, 1, 1), slightly varied."""
        jitter = (torch.rand(len(labels), 3, generator=generator) - 0.5) * 0.06
        return (self._grounds[labels.background] + jitter).clamp(0, 1)[:, :, None, None]


def _premultiplied(icons: Tensor) -> Tensor:
    return torch.cat([icons[:, :3] * icons[:, 3:], icons[:, 3:]], 1)


def _recoloured(icons: Tensor, colour: Colour) -> Tensor:
    """Every icon in ``colour``, each by the way its concept takes one."""
    pictures = []
    for concept, icon in zip(CATALOGUE, icons, strict=True):
        if concept.recolour == "hue":
            rgb = _exchange_main_hue(icon, colour, concept.main_hue)
        elif concept.recolour == "tint":
            rgb = _tint_greys(icon, colour)
        else:
            rgb = icon[:3]
        pictures.append(torch.cat([rgb, icon[3:]]))
    return torch.stack(pictures)


def _exchange_main_hue(icon: Tensor, colour: Colour, main_hue: float | None) -> Tensor:
    """Paint the pixels around the main (or most frequent) hue, keeping their shading."""
    hue, saturation, value = _hue_saturation_value(icon[:3])
    vivid = ((saturation - 0.12) / 0.2).clamp(0, 1)
    if main_hue is None:
        main_hue = _most_frequent_hue(hue, vivid * icon[3])
    distance = (hue - main_hue).abs()
    near = ((_WIDTH - torch.minimum(distance, 1 - distance)) / 0.03).clamp(0, 1)
    mask = vivid * near
    light = value * (1 - 0.45 * saturation)
    weight = mask * icon[3]
    shade = light * weight.sum() / (light * weight).sum()
    return torch.lerp(icon[:3], _shaded(colour, shade), mask)


def _tint_greys(icon: Tensor, colour: Colour) -> Tensor:
    """Multiply the colourless pixels by ``colour``."""
    _, saturation, value = _hue_saturation_value(icon[:3])
    mask = 1 - ((saturation - 0.22) / 0.15).clamp(0, 1)
    return torch.lerp(icon[:3], _shaded(colour, value / 0.92), mask)


def _shaded(colour: Colour, shade: Tensor) -> Tensor:
    """``colour`` darkened below shade 1 and lightened above it."""
    rgb = torch.tensor(colour.rgb)[:, None, None]
    dark = rgb * shade.clamp(max=1)
    return dark + (1 - dark) * ((shade - 1) * 0.8).clamp(0, 0.6)


def _most_frequent_hue(hue: Tensor, weight: Tensor) -> float:
    bins = 48
    histogram = torch.histc(hue[weight > 0.5], bins, 0, 1)
    padded = F.pad(histogram[None], (3, 3), mode="circular")
    smooth = F.avg_pool1d(padded[None], 7, 1)[0, 0]
    centre = int(smooth.argmax())
    offsets = torch.arange(-3, 4)
    nearby = histogram[(centre + offsets) % bins]
    return float((centre + 0.5 + (nearby * offsets).sum() / nearby.sum().clamp(min=1)) / bins % 1)


def _hue_saturation_value(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    red, green, blue = rgb
    value, low = rgb.amax(0), rgb.amin(0)
    chroma = value - low
    hue = torch.atan2(math.sqrt(3) * (green - blue), 2 * red - green - blue) / (2 * math.pi) % 1
    return hue, chroma / value.clamp(min=1e-6), value
