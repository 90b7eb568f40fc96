"""What is in rich pictures: random scenes of one to three things, as tensors."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from ..scenery import GROUNDS, LIGHTS, SIDES, THINGS_AT_MOST
from ..vocabulary import BACKGROUNDS, CATALOGUE
from .pictures import Studio

NOTHING = -1
"""No thing in this place; as a tint: any colour, not one of the ten."""
PLAIN_SHARE = 0.15
"""Pictures as in the first stage: one thing, large, in the middle, on one of the ten grounds."""
_SINGLE, _SEVERAL = 0.38, 0.37  # shares of the others; the rest shows two different things
_GROUND_WEIGHTS = (0.42, 0.12, 0.05, 0.05, 0.05, 0.08, 0.08, 0.08, 0.07)
_LIGHT_WEIGHTS = (0.64, 0.12, 0.12, 0.12)
_SIDE_WEIGHTS = (0.7, 0.15, 0.15)
_SHADOW, _UPSIDE_DOWN = 0.3, 0.04
_TILT, _SLIGHT_TILT, _STEEPEST = 16.0, 4.0, 40.0
"""Standard deviations in degrees, of half of the things that stand alone and of all others."""


@dataclass(frozen=True)
class Scenes:
    """B pictures, each with up to three things; absent things have concept ``NOTHING``."""

    concept: Tensor
    """(B, 3) indices into CONCEPTS."""
    colour: Tensor
    """(B, 3) as in ``pictures.Labels``."""
    place: Tensor
    """(B, 3, 2) middles of the things, x and y, in [0, 1] from the top left corner."""
    size: Tensor
    """(B, 3) sides of the things as shares of the picture's."""
    tilt: Tensor
    """(B, 3) degrees, clockwise."""
    ground: Tensor
    """(B,) indices into GROUNDS."""
    tints: Tensor
    """(B, 2) the ground's colours: indices into BACKGROUNDS, or ``NOTHING``."""
    light: Tensor
    """(B,) indices into LIGHTS."""
    side: Tensor
    """(B,) indices into SIDES."""
    shadow: Tensor
    """(B,) whether the things cast one."""

    def __getitem__(self, index) -> Scenes:
        return Scenes(*(getattr(self, f.name)[index] for f in dataclasses.fields(self)))

    def __len__(self) -> int:
        return len(self.concept)

    @property
    def count(self) -> Tensor:
        """(B,) how many things there are."""
        return (self.concept != NOTHING).sum(1)

    def columns(self) -> dict[str, Tensor]:
        """By name, to be saved."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    @staticmethod
    def cat(parts: list[Scenes]) -> Scenes:
        """Several batches as one."""
        columns = [part.columns() for part in parts]
        return Scenes(**{name: torch.cat([c[name] for c in columns]) for name in columns[0]})


def random_scenes(studio: Studio, count: int, generator: torch.Generator) -> Scenes:
    """Some plain pictures, the others rich; what is open is drawn continuously."""
    plain = torch.rand(count, generator=generator) < PLAIN_SHARE
    kind = torch.rand(count, generator=generator)
    several = ~plain & (kind >= _SINGLE) & (kind < _SINGLE + _SEVERAL)
    pair = ~plain & (kind >= _SINGLE + _SEVERAL)
    number = torch.ones(count, dtype=torch.long)
    number[several] = torch.randint(2, 4, (int(several.sum()),), generator=generator)
    number[pair] = 2
    concept, colour = _things(studio, number, several, generator)
    place, size = _places(number, several, plain, generator)
    tilt = _tilts(number, generator)
    ground = _weighted(_GROUND_WEIGHTS, count, generator)
    tints = torch.randint(len(BACKGROUNDS), (count, 2), generator=generator)
    any_colour = torch.rand(count, generator=generator) < torch.where(ground == 0, 0.35, 0.5)
    tints = torch.where((any_colour & ~plain)[:, None], NOTHING, tints)
    bare = plain.long() == 0
    return Scenes(
        concept,
        colour,
        place,
        size,
        torch.where(plain[:, None], 0.0, tilt),
        ground * bare,
        _without_clash(studio, colour, tints, generator),
        _weighted(_LIGHT_WEIGHTS, count, generator) * bare,
        _weighted(_SIDE_WEIGHTS, count, generator) * bare,
        (torch.rand(count, generator=generator) < _SHADOW) & bare,
    )


def _things(
    studio: Studio, number: Tensor, several: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Concepts and colours (B, 3): several alike, or different ones."""
    count = len(number)
    drawn = [studio.labels(count, generator) for _ in range(2)]
    concept = torch.full((count, THINGS_AT_MOST), NOTHING)
    colour = torch.zeros(count, THINGS_AT_MOST, dtype=torch.long)
    second = torch.where(
        drawn[1].concept == drawn[0].concept,
        (drawn[1].concept + 1) % len(CATALOGUE),
        drawn[1].concept,
    )
    recolourable = torch.tensor([c.recolour != "none" for c in CATALOGUE])
    second_colour = torch.where(recolourable[second], drawn[1].colour, 0)
    for slot in range(THINGS_AT_MOST):
        there = number > slot
        other = ~several & (slot > 0)
        concept[:, slot] = torch.where(there, torch.where(other, second, drawn[0].concept), NOTHING)
        colour[:, slot] = torch.where(there, torch.where(other, second_colour, drawn[0].colour), 0)
    return concept, colour


def _tilts(number: Tensor, generator: torch.Generator) -> Tensor:
    """Degrees (B, 3); things in company stand nearly upright."""
    shape = len(number), THINGS_AT_MOST
    tilted = (torch.rand(shape, generator=generator) < 0.5) & (number == 1)[:, None]
    spread = torch.where(tilted, _TILT, _SLIGHT_TILT)
    tilt = spread * torch.randn(shape, generator=generator)
    tilt = tilt.clamp(-_STEEPEST, _STEEPEST)
    over = (torch.rand(shape, generator=generator) < _UPSIDE_DOWN) & (number == 1)[:, None]
    return torch.where(over, tilt / 4 + 180, tilt)


def _places(
    number: Tensor, several: Tensor, plain: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Middles (B, 3, 2) and sizes (B, 3) of the things, which hardly overlap."""
    count = len(number)
    uniform = torch.rand(count, 8, generator=generator)
    alone = 0.4 + 0.5 * uniform[:, 0]
    room = (1.06 - alone).clamp(min=0)[:, None]
    near = (uniform[:, 1:2] < 0.3) * 0.75  # some stay near the middle
    spot = 0.5 + (uniform[:, 2:4] - 0.5) * room * (1 - near)
    alone = torch.where(plain, 0.91 - 0.13 * uniform[:, 0], alone)
    spot = torch.where(plain[:, None], 0.5 + (uniform[:, 2:4] - 0.5) * 0.14, spot)
    # two alike are side by side, two different ones above each other too, three one above two: a
    # network that waits to choose between arrangements draws a mixture of them, with one thing more
    upright = (uniform[:, 4] < 0.4) & ~several | (number == 3)
    turned = (uniform[:, 5] < 0.5) & (number < 3)
    angle = torch.where(upright, 90.0, 0.0) + torch.where(turned, 180.0, 0.0)
    angle = (angle + 30 * (uniform[:, 6] - 0.5)).deg2rad()
    side = torch.where(number == 3, 0.38 + 0.06 * uniform[:, 0], 0.42 + 0.08 * uniform[:, 0])
    radius = torch.where(number == 3, 0.27, 0.245 + 0.03 * uniform[:, 7])
    wander = (uniform[:, 2:4] - 0.5) * 0.08
    place = torch.full((count, THINGS_AT_MOST, 2), 0.5)
    for slot in range(THINGS_AT_MOST):
        turn = angle + 2 * torch.pi * slot / number.clamp(min=2)
        away = torch.stack([turn.cos(), turn.sin()], 1) * radius[:, None]
        group = 0.5 - away * torch.tensor([1.0, 1.0]) + wander
        place[:, slot] = torch.where((number == 1)[:, None], spot, group)
    vary = 1 + 0.1 * (torch.rand(count, THINGS_AT_MOST, generator=generator) - 0.5)
    size = torch.where((number == 1)[:, None], alone[:, None], side[:, None] * vary)
    return place, size


def _without_clash(
    studio: Studio, colour: Tensor, tints: Tensor, generator: torch.Generator
) -> Tensor:
    """The same tints, but never the one that a recoloured thing has (but for a rare leftover)."""
    for _ in range(3):
        clash = (studio.ground_like[colour][:, :, None] == tints[:, None]).any(1)
        clash = clash & (tints != NOTHING)
        shift = torch.randint(1, len(BACKGROUNDS), tints.shape, generator=generator)
        tints = torch.where(clash, (tints + shift) % len(BACKGROUNDS), tints)
    same = (tints[:, 0] == tints[:, 1]) & (tints[:, 0] != NOTHING)
    tints[:, 1] = torch.where(same, (tints[:, 1] + 1) % len(BACKGROUNDS), tints[:, 1])
    return tints


def _weighted(weights: tuple[float, ...], count: int, generator: torch.Generator) -> Tensor:
    return torch.multinomial(torch.tensor(weights), count, replacement=True, generator=generator)


assert len(_GROUND_WEIGHTS) == len(GROUNDS)
assert len(_LIGHT_WEIGHTS) == len(LIGHTS)
assert len(_SIDE_WEIGHTS) == len(SIDES)
