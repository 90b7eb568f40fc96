from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..dno.declared import prepared
from ..dno.fields import Choice, Image, Range
from ..dno.objective import Reward
from ._colour import luma
from ._picture import correlation, grid, root, slopes


@dataclass(frozen=True, eq=False)
class Edges(Reward):
    """Draws the picture along the edges of a reference picture or a line drawing.

    Score: the correlation, in [-1, 1], of the two pictures' edge strength on a grid of `detail`
    cells a side: the length of the luma's gradient at twice that size, averaged per cell. Of a
    line drawing it is the ink itself, what differs from the paper. The reference is stretched to
    the picture; of several, the one that the picture is nearest to counts.

    >>> line = torch.eye(64).expand(1, 3, 64, 64)
    >>> Edges(line)(line) > Edges(line)(line.flip(3))
    tensor([True])
    """

    group = "structure"
    aliases = ("line art", "sketch", "drawing", "outline", "contour", "canny", "pose")
    span = "-1 to 1"

    reference: Annotated[Tensor, Image(help="A picture or a line drawing whose edges to follow.")]
    kind: Annotated[
        str,
        Choice(
            ("picture", "line drawing"),
            help="picture: its edges are found first. line drawing: its lines are the edges.",
        ),
    ] = "picture"
    detail: Annotated[
        int,
        Range(
            4, 128, step=1, help="Cells a side on which edges are compared: fewer is more tolerant."
        ),
    ] = 32

    @prepared
    def _wanted(self) -> Tensor:
        """(R,detail,detail): each reference's edges."""
        reference = self.reference.double().clamp(0, 1)
        drawn = self._ink(reference) if self.kind == "line drawing" else self._edges(reference)
        if (drawn.flatten(1).var(dim=1) < 1e-10).any():
            raise ValueError(
                "Edges: reference has no edges; give a picture with contours or lines."
            )
        return drawn

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        wanted = self._wanted.to(image)[None]
        return correlation(self._edges(image)[:, None], wanted, (2, 3)).amax(dim=1)

    def _edges(self, image: Tensor) -> Tensor:
        right, down = slopes(luma(grid(image, 2 * self.detail, 2 * self.detail)))
        strength = root(right.square() + down.square())
        return grid(strength, self.detail, self.detail)

    def _ink(self, image: Tensor) -> Tensor:
        light = luma(image)
        paper = light.flatten(1).median(dim=1).values[:, None, None]
        return grid((light - paper).abs(), self.detail, self.detail)
