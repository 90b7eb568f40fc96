"""Rich pictures: things placed, turned and sized on a ground, with their shadows, under a light."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..scenery import LIGHTS, THINGS_AT_MOST
from .grounds import grounds
from .pictures import SIZE, Studio
from .scenes import NOTHING, Scenes

_TINTS = torch.tensor([[1, 1, 1], [1.06, 0.86, 0.58], [0.66, 0.86, 1.1], [1, 1, 1.0]])
"""By which a light multiplies red, green and blue, in the order of LIGHTS; dusk is a gradient."""
_DUSK_ABOVE, _DUSK_BELOW = torch.tensor([0.42, 0.34, 0.6]), torch.tensor([1.0, 0.62, 0.42])
_SHADOW_ACROSS, _SHADOW_DOWN = (0.015, 0.05, -0.05), 0.05
"""How far shadows are moved, as a share of the side; across by where the light comes from."""
_SHARP_FROM = 0.6
"""Smaller things are taken from icons of half the size, which keeps them from flickering."""


class Stage:
    """Draws scenes; every picture depends only on its scene and the generator."""

    def __init__(self, studio: Studio, side: int = SIZE) -> None:
        """``side``: of the pictures; icons are reduced to it once."""
        icons = studio.bank
        self.studio, self._side = studio, side
        self._large = icons if side == SIZE else _reduced(icons, SIZE // side)
        self._small = _reduced(self._large, 2)

    def draw(self, scenes: Scenes, generator: torch.Generator) -> Tensor:
        """One picture per scene, (B, 3, side, side) in [0, 1]."""
        picture = grounds(scenes, self._side, generator)
        icons = [self._placed(scenes, slot) for slot in range(THINGS_AT_MOST)]
        picture = self._shaded(picture, icons, scenes, generator)
        for icon in icons:
            picture = icon[:, :3] + picture * (1 - icon[:, 3:])
        return lit(picture, scenes, generator).clamp(0, 1)

    def _placed(self, scenes: Scenes, slot: int) -> Tensor:
        """A slot's things, (B, 4, side, side), premultiplied; zero where there is none."""
        result = torch.zeros(len(scenes), 4, self._side, self._side)
        there = scenes.concept[:, slot] != NOTHING
        for bank, fits in (
            (self._large, scenes.size[:, slot] >= _SHARP_FROM),
            (self._small, scenes.size[:, slot] < _SHARP_FROM),
        ):
            chosen = (there & fits).nonzero()[:, 0]
            if len(chosen):
                part = scenes[chosen]
                icons = bank[part.concept[:, slot], part.colour[:, slot]].float() / 255
                result[chosen] = self._moved(icons, part, slot)
        return result

    def _moved(self, icons: Tensor, scenes: Scenes, slot: int) -> Tensor:
        angle, size = scenes.tilt[:, slot].deg2rad(), scenes.size[:, slot]
        middle = 2 * scenes.place[:, slot] - 1
        turn = torch.stack([angle.cos(), angle.sin(), -angle.sin(), angle.cos()], 1).view(-1, 2, 2)
        turn = turn / size[:, None, None]
        transform = torch.cat([turn, -turn @ middle[:, :, None]], 2)
        shape = [len(icons), 4, self._side, self._side]
        grid = F.affine_grid(transform, shape, align_corners=False)
        return F.grid_sample(icons, grid, align_corners=False)

    def _shaded(
        self, picture: Tensor, icons: list[Tensor], scenes: Scenes, generator: torch.Generator
    ) -> Tensor:
        """The ground under soft shadows, which fall away from the light."""
        chosen = scenes.shadow.nonzero()[:, 0]
        if not len(chosen):
            return picture
        alpha = torch.stack([icon[chosen, 3] for icon in icons]).amax(0)[:, None]
        strength = _between(0.35, 0.65, len(chosen), generator)
        across = torch.tensor(_SHADOW_ACROSS)[scenes.side[chosen]]
        transform = torch.eye(2, 3).repeat(len(chosen), 1, 1)
        transform[:, 0, 2] = -2 * across
        transform[:, 1, 2] = -2 * _SHADOW_DOWN
        grid = F.affine_grid(transform, list(alpha.shape), align_corners=False)
        shadow = F.grid_sample(alpha, grid, align_corners=False)
        width = self._side // 32 * 2 + 1
        for _ in range(2):
            shadow = F.avg_pool2d(shadow, width, 1, width // 2)
        picture = picture.clone()
        picture[chosen] = picture[chosen] * (1 - strength * shadow)
        return picture


def lit(picture: Tensor, scenes: Scenes, generator: torch.Generator) -> Tensor:
    """The picture under the scene's light, of random strength."""
    count, side = len(picture), picture.shape[-1]
    line = (torch.arange(side) + 0.5) / side
    down, right = line.view(1, 1, side, 1), line.view(1, 1, 1, side)
    tint = _TINTS[scenes.light][:, :, None, None]
    dusk = torch.lerp(_DUSK_ABOVE.view(1, 3, 1, 1), _DUSK_BELOW.view(1, 3, 1, 1), down)
    at_dusk = (scenes.light == LIGHTS.index("dusk"))[:, None, None, None]
    tint = torch.where(at_dusk, dusk, tint.expand(-1, -1, side, 1))
    picture = picture * torch.lerp(torch.ones(1), tint, _between(0.7, 1, count, generator))
    from_left = torch.lerp(torch.tensor(1.15), torch.tensor(0.4), right)
    across = torch.where((scenes.side == 1)[:, None, None, None], from_left, from_left.flip(3))
    aside = (scenes.side != 0)[:, None, None, None]
    across = torch.lerp(torch.ones(1), across, _between(0.7, 1, count, generator))
    return torch.where(aside, picture * across, picture)


def _reduced(icons: Tensor, factor: int) -> Tensor:
    """(concepts, colours, 4, S, S) bytes, smaller by ``factor``."""
    smaller = [F.avg_pool2d(icon.float(), factor).round().to(torch.uint8) for icon in icons]
    return torch.stack(smaller)


def _between(low: float, high: float, count: int, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)
