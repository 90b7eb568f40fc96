"""What is behind the things: colours, gradients, patterns, a meadow, the sea, night, a room."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..scenery import GROUNDS
from ..vocabulary import BACKGROUND_PALETTE
from .scenes import NOTHING, Scenes

_PALETTE = torch.tensor([colour.rgb for colour in BACKGROUND_PALETTE])
_STARS = 14


def grounds(scenes: Scenes, side: int, generator: torch.Generator) -> Tensor:
    """(B, 3, side, side) in [0, 1]; what the scenes leave open is drawn from the generator."""
    count = len(scenes)
    tints = torch.stack([_colours(scenes.tints[:, i], generator) for i in (0, 1)], 1)
    picture = torch.empty(count, 3, side, side)
    for index, name in enumerate(GROUNDS):
        chosen = (scenes.ground == index).nonzero()[:, 0]
        if len(chosen):
            picture[chosen] = _DRAWN[name](tints[chosen], _Canvas(len(chosen), side, generator))
    return picture.clamp(0, 1)


class _Canvas:
    """Coordinates and random numbers for one kind of ground."""

    def __init__(self, count: int, side: int, generator: torch.Generator) -> None:
        line = (torch.arange(side) + 0.5) / side
        self.count, self.pixel, self._generator = count, 1 / side, generator
        self.x, self.y = line.view(1, 1, 1, side), line.view(1, 1, side, 1)

    def between(self, low: float, high: float, channels: int = 1) -> Tensor:
        """(B, channels, 1, 1) uniform."""
        shape = (self.count, channels, 1, 1)
        return low + (high - low) * torch.rand(shape, generator=self._generator)

    def near(self, *rgb: float, spread: float = 0.08) -> Tensor:
        """(B, 3, 1, 1) a colour and its neighbours."""
        return torch.tensor(rgb).view(1, 3, 1, 1) + self.between(-spread, spread, 3)

    def edge(self, distance: Tensor) -> Tensor:
        """0 below, 1 above zero, about one and a half pixels soft."""
        return (distance / (1.5 * self.pixel) + 0.5).clamp(0, 1)

    def along(self) -> Tensor:
        """(B, 1, S, S) the distance from the middle in a random direction, within about 0.7."""
        angle = self.between(0, 2 * math.pi)
        return (self.x - 0.5) * angle.cos() + (self.y - 0.5) * angle.sin()


def _colours(tint: Tensor, generator: torch.Generator) -> Tensor:
    """(B, 3, 1, 1): about the named colour, or any colour where none is named."""
    named = _PALETTE[tint.clamp(min=0)] + (torch.rand(len(tint), 3, generator=generator) - 0.5) / 16
    hue, pale, light = torch.rand(3, len(tint), 1, generator=generator)
    wheel = 0.5 + 0.5 * torch.cos(2 * math.pi * (hue - torch.tensor([0, 1 / 3, 2 / 3])))
    free = (1 - (1 - pale.square()) * (1 - wheel)) * (0.1 + 0.9 * light.sqrt())
    return torch.where((tint == NOTHING)[:, None], free, named)[:, :, None, None]


def _flat(tints: Tensor, canvas: _Canvas) -> Tensor:
    return tints[:, 0] + 0 * canvas.x + 0 * canvas.y


def _gradient(tints: Tensor, canvas: _Canvas) -> Tensor:
    share = (0.5 + canvas.between(0.7, 1.2) * canvas.along()).clamp(0, 1)
    return torch.lerp(tints[:, 0], tints[:, 1], share)


def _second(tints: Tensor, canvas: _Canvas) -> Tensor:
    """The pattern's other colour: the first one, lighter or darker, or moved to another."""
    first, toward = tints[:, 0], tints[:, 1]
    return torch.lerp(first, toward, canvas.between(0.35, 1))


def _stripes(tints: Tensor, canvas: _Canvas) -> Tensor:
    period = canvas.between(0.16, 0.36)
    wave = torch.sin(2 * math.pi * (canvas.along() / period + canvas.between(0, 1)))
    share = canvas.edge(wave * period / (2 * math.pi))
    return torch.lerp(tints[:, 0], _second(tints, canvas), share)


def _cells(canvas: _Canvas) -> tuple[Tensor, Tensor, Tensor]:
    period = canvas.between(0.18, 0.32)
    across = canvas.x / period + canvas.between(0, 1)
    return across, canvas.y / period + canvas.between(0, 1), period


def _dots(tints: Tensor, canvas: _Canvas) -> Tensor:
    across, down, period = _cells(canvas)
    distance = ((across % 1 - 0.5).square() + (down % 1 - 0.5).square()).sqrt() * period
    share = canvas.edge(canvas.between(0.22, 0.36) * period - distance)
    return torch.lerp(tints[:, 0], _second(tints, canvas), share)


def _checks(tints: Tensor, canvas: _Canvas) -> Tensor:
    across, down, period = _cells(canvas)
    wave = torch.sin(math.pi * across) * torch.sin(math.pi * down)
    share = canvas.edge(wave * period / math.pi)
    return torch.lerp(tints[:, 0], _second(tints, canvas), share)


def _meadow(tints: Tensor, canvas: _Canvas) -> Tensor:
    horizon = canvas.between(0.45, 0.72) + canvas.between(0, 0.03) * torch.sin(
        canvas.between(4, 9) * canvas.x + canvas.between(0, 6)
    )
    sky = torch.lerp(canvas.near(0.35, 0.62, 0.95), canvas.near(0.75, 0.88, 0.98), canvas.y)
    grass = torch.lerp(
        canvas.near(0.5, 0.78, 0.3), canvas.near(0.2, 0.5, 0.18), (canvas.y - 0.5) * 2
    )
    for _ in range(2):
        cloud = ((canvas.x - canvas.between(0, 1)) / canvas.between(0.12, 0.22)).square()
        cloud = cloud + ((canvas.y - canvas.between(0.05, 0.3)) / canvas.between(0.04, 0.07)) ** 2
        sky = torch.lerp(sky, torch.ones_like(sky), 0.8 * canvas.edge((1 - cloud) * 0.04))
    return torch.lerp(sky, grass, canvas.edge(canvas.y - horizon))


def _sea(tints: Tensor, canvas: _Canvas) -> Tensor:
    horizon = canvas.between(0.35, 0.65)
    sky = torch.lerp(canvas.near(0.55, 0.75, 0.95), canvas.near(0.9, 0.93, 0.95), canvas.y)
    depth = canvas.y - horizon
    water = torch.lerp(
        canvas.near(0.1, 0.5, 0.75), canvas.near(0.04, 0.2, 0.5), (1.6 * depth).clamp(0, 1)
    )
    swell = torch.sin(canvas.between(12, 24) * canvas.x + canvas.between(0, 6)) * 0.012
    crest = torch.sin(2 * math.pi * (depth + swell) / canvas.between(0.12, 0.2))
    water = water + 0.25 * canvas.edge((crest - 0.85) * 0.03)
    return torch.lerp(sky, water, canvas.edge(depth))


def _night(tints: Tensor, canvas: _Canvas) -> Tensor:
    sky = torch.lerp(
        canvas.near(0.04, 0.05, 0.15, spread=0.03),
        canvas.near(0.13, 0.16, 0.38, spread=0.06),
        canvas.y,
    )
    for _ in range(_STARS):
        across, down = canvas.x - canvas.between(0, 1), canvas.y - canvas.between(0, 1)
        distance = (across.square() + down.square()).sqrt()
        star = canvas.edge(canvas.between(0.006, 0.014) - distance)
        sky = torch.lerp(sky, canvas.near(0.95, 0.95, 0.8), star * canvas.between(0.4, 1))
    ground = canvas.near(0.05, 0.08, 0.1, spread=0.03)
    return torch.lerp(sky, ground, canvas.edge(canvas.y - canvas.between(0.72, 1.2)))


def _room(tints: Tensor, canvas: _Canvas) -> Tensor:
    edge = canvas.between(0.58, 0.8)
    wall = canvas.near(0.85, 0.78, 0.7, spread=0.14) * (1 - 0.1 * canvas.y)
    floor = canvas.near(0.55, 0.36, 0.22, spread=0.1) * (0.75 + 0.35 * canvas.y)
    board = canvas.near(0.95, 0.93, 0.9, spread=0.04)
    picture = torch.lerp(wall, board, canvas.edge(canvas.y - edge + 0.035))
    return torch.lerp(picture, floor, canvas.edge(canvas.y - edge))


_DRAWN: dict[str, Callable[[Tensor, _Canvas], Tensor]] = {
    "flat": _flat,
    "gradient": _gradient,
    "stripes": _stripes,
    "dots": _dots,
    "checks": _checks,
    "meadow": _meadow,
    "sea": _sea,
    "night": _night,
    "room": _room,
}
