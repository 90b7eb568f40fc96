from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..dno.declared import prepared
from ..dno.fields import Choice, Mask
from ..dno.objective import Reward
from ._colour import oklab
from ._picture import grid

_CELLS = 64


def _bump(x: Tensor, y: Tensor, across: float, down: float, width: float) -> Tensor:
    return torch.exp(-((x - across).square() + (y - down).square()) / (2 * width**2))


_LAYOUTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "thirds": lambda x, y: torch.stack(
        [_bump(x, y, i / 3, j / 3, 0.1) for i in (1, 2) for j in (1, 2)]
    ).amax(0),
    "centre": lambda x, y: _bump(x, y, 0.5, 0.5, 0.2),
    "left": lambda x, y: torch.sigmoid((1 / 3 - x) * 30).expand(_CELLS, _CELLS),
    "right": lambda x, y: torch.sigmoid((x - 2 / 3) * 30).expand(_CELLS, _CELLS),
    "top": lambda x, y: torch.sigmoid((1 / 3 - y) * 30).expand(_CELLS, _CELLS),
    "bottom": lambda x, y: torch.sigmoid((y - 2 / 3) * 30).expand(_CELLS, _CELLS),
}


@dataclass(frozen=True, eq=False)
class Composition(Reward):
    """Moves what catches the eye to a part of the picture.

    What catches the eye is what differs from the picture's mean colour (squared OKLab distance).
    Score: the share of it that lies in the wanted part, in [0, 1]. The part is a mask (or several,
    joined), stretched to the picture, or else a layout: the four points of the rule of thirds, the
    centre, or a third of the picture. Evenly spread, "thirds" and "centre" give about 0.25 and a
    third of the picture 0.33.

    >>> dot = torch.zeros(1, 3, 64, 64).index_fill(3, torch.tensor([2]), 1.0)
    >>> Composition("left")(dot).round(decimals=2), Composition("right")(dot).round(decimals=2)
    (tensor([0.9900]), tensor([0.0100]))
    """

    group = "structure"
    aliases = ("rule of thirds", "centre", "center", "place the subject", "framing")
    span = "0 to 1"

    layout: Annotated[
        str, Choice(tuple(_LAYOUTS), help="Where the eye should be drawn, if no area is connected.")
    ] = "thirds"
    area: Annotated[Tensor | None, Mask(help="Where the eye should be drawn, white in a mask.")] = (
        None
    )

    @prepared
    def _wanted(self) -> Tensor:
        """(cells,cells) weights in [0,1]: where the eye should be drawn."""
        if self.area is None:
            x = (torch.arange(_CELLS, dtype=torch.float64) + 0.5) / _CELLS
            wanted = _LAYOUTS[self.layout](x, x[:, None])
        else:
            wanted = grid(self.area.double().amax(dim=0)[None, None], _CELLS, _CELLS)[0, 0]
        if wanted.amax() <= 0:
            raise ValueError("Composition: area is empty; paint at least a part of the mask white.")
        return wanted

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        colour = oklab(grid(image, _CELLS, _CELLS))
        salience = (colour - colour.mean(dim=(2, 3), keepdim=True)).square().sum(dim=1)
        inside = (salience * self._wanted.to(image)).mean(dim=(1, 2))
        return inside / (salience.mean(dim=(1, 2)) + 1e-5)
