"""An independent judge of rich pictures: which things are where, on what, in which light.

A small convolutional network finds the things in a grid of 8 x 8 cells, as detectors by their
middles do (Zhou et al. 2019, arXiv 1904.07850), and names the whole picture's ground and light. It
was trained on rendered pictures only, never on generated ones, and no reward of this pack sees it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from .classifier import COLOUR_CLASSES
from .scenery import BIG_ABOVE, GROUNDS, LIGHTS, SIDES, SMALL_BELOW, Wish
from .vocabulary import BACKGROUNDS, CONCEPTS

WEIGHTS = Path(__file__).with_name("scene_judge.safetensors")
SIDE, CELLS = 64, 8
"""Pixels along a side of what the network sees, and cells of its grid."""
_WIDTHS = (3, 40, 80, 128)
_CONTEXT = 3
CELL_PARTS = {"there": 1, "concept": len(CONCEPTS), "colour": len(COLOUR_CLASSES), "box": 3}
WHOLE_PARTS = {
    "ground": len(GROUNDS), "background": len(BACKGROUNDS), "light": len(LIGHTS),
    "side": len(SIDES), "shadow": 2,
}  # fmt: skip


@dataclass(frozen=True)
class Thing:
    """A thing that was found; place and size as shares of the picture's side."""

    concept: str
    colour: str
    x: float
    y: float
    size: float
    likelihood: float


class SceneJudge(nn.Module):
    """Differentiable with respect to the picture; takes any size."""

    def __init__(self) -> None:
        super().__init__()
        pairs = zip(_WIDTHS, _WIDTHS[1:], strict=False)
        self.features = nn.Sequential(*(_convolution(i, o, stride=2) for i, o in pairs))
        self.context = nn.ModuleList(
            _convolution(_WIDTHS[-1], _WIDTHS[-1]) for _ in range(_CONTEXT)
        )
        self.cells = nn.Conv2d(_WIDTHS[-1], sum(CELL_PARTS.values()), 1)
        self.whole = nn.Linear(_WIDTHS[-1] * 17, sum(WHOLE_PARTS.values()))

    @classmethod
    def load(cls, path: str | Path = WEIGHTS) -> SceneJudge:
        """The trained judge, frozen."""
        judge = cls()
        judge.load_state_dict({k: v.float() for k, v in load_file(path).items()}, strict=False)
        return judge.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) in [0, 1] -> logits by part.

        Of the cells (B, n, 8, 8), of the whole (B, n). ``box`` is the middle's offset from the
        cell's, in cells, and the thing's size.
        """
        small = F.interpolate(image, size=(SIDE, SIDE), mode="area")
        features = self.features(small * 2 - 1)
        for layer in self.context:
            features = features + layer(features)
        cells = self.cells(features).split(list(CELL_PARTS.values()), 1)
        coarse = F.adaptive_avg_pool2d(features, 4).flatten(1)
        pooled = torch.cat([coarse, features.mean((2, 3))], 1)
        whole = self.whole(pooled).split(list(WHOLE_PARTS.values()), 1)
        parts = dict(zip(CELL_PARTS, cells, strict=True))
        return parts | dict(zip(WHOLE_PARTS, whole, strict=True))

    def recognised(self, image: Tensor, concept: str) -> Tensor:
        """Probability (B,) that the picture shows ``concept`` somewhere."""
        seen = self(image)
        there = seen["there"][:, 0].sigmoid()
        named = seen["concept"].softmax(1)[:, CONCEPTS.index(concept)]
        return (there * named).flatten(1).amax(1)

    @torch.no_grad()
    def things(self, image: Tensor) -> list[list[Thing]]:
        """What is found in each picture, the likeliest first."""
        seen = self(image)
        there = seen["there"].sigmoid()
        highest = there == F.max_pool2d(there, 3, 1, 1)
        found = (highest & (there > 0.5))[:, 0]
        pictures = []
        for index in range(len(image)):
            things = [_thing(seen, index, *cell) for cell in found[index].nonzero().tolist()]
            pictures.append(sorted(things, key=lambda thing: -thing.likelihood))
        return pictures

    @torch.no_grad()
    def settings(self, image: Tensor) -> list[dict[str, str]]:
        """Ground, background, light and side of each picture, by name."""
        seen, names = self(image), {"ground": GROUNDS, "background": BACKGROUNDS}
        names |= {"light": LIGHTS, "side": SIDES}
        return [
            {part: words[int(seen[part][index].argmax())] for part, words in names.items()}
            for index in range(len(image))
        ]

    def fulfilled(self, image: Tensor, wish: Wish) -> dict[str, bool]:
        """Which of a wish's parts one picture (1, 3, H, W) shows."""
        return verdict(self.things(image)[0], self.settings(image)[0], wish)

    def arranged(self, image: Tensor, wish: Wish) -> dict[str, bool]:
        """As ``fulfilled``, whatever the things look like."""
        return arrangement(self.things(image)[0], self.settings(image)[0], wish)


def verdict(things: list[Thing], setting: dict[str, str], wish: Wish) -> dict[str, bool]:
    """Which parts of a wish are right, of those that it names."""
    alike = [thing for thing in things if thing.concept == wish.concept]
    others = [thing for thing in things if thing.concept == wish.other]
    first = alike[0] if alike else None
    right = {"thing": first is not None}
    if wish.colour:
        right["colour"] = bool(alike) and all(thing.colour == wish.colour for thing in alike)
    if wish.count > 1:
        right["count"] = len(alike) == len(things) == wish.count
    if wish.size:
        right["size"] = first is not None and _sized(first.size, wish.size)
    if wish.place:
        right["place"] = first is not None and _placed(first, wish.place)
    if wish.relation:
        right["other"] = bool(others)
        right["relation"] = bool(alike and others) and related(first, others[0], wish.relation)
    if wish.ground:
        right["ground"] = setting["ground"] == wish.ground
    if wish.background:
        right["background"] = setting["background"] == wish.background
    if wish.light:
        right["light"] = wish.light in (setting["light"], setting["side"])
    return right


def arrangement(things: list[Thing], setting: dict[str, str], wish: Wish) -> dict[str, bool]:
    """The verdict if everything were the thing of the wish; of a relation, that there are two."""
    things = [dataclasses.replace(thing, concept=wish.concept) for thing in things]
    if wish.relation:
        wish = dataclasses.replace(wish, count=2, relation=None, other=None)
    return verdict(things, setting, wish)


def related(first: Thing, second: Thing, relation: str) -> bool:
    """Whether the first thing is, e.g., left of the second."""
    across, down = second.x - first.x, second.y - first.y
    return {
        "left of": across > abs(down),
        "right of": -across > abs(down),
        "above": down > abs(across),
        "below": -down > abs(across),
    }[relation]


def _sized(size: float, word: str) -> bool:
    middle = (SMALL_BELOW + BIG_ABOVE) / 2
    return size < middle if word == "small" else size > middle


def _placed(thing: Thing, word: str) -> bool:
    across, down = thing.x - 0.5, thing.y - 0.5
    least = 0.05
    return {
        "left": across < -least,
        "right": across > least,
        "top": down < -least,
        "bottom": down > least,
        "middle": max(abs(across), abs(down)) < 2 * least,
    }[word]


def _thing(seen: dict[str, Tensor], index: int, row: int, column: int) -> Thing:
    at = (index, slice(None), row, column)
    across, down, size = seen["box"][at].tolist()
    return Thing(
        CONCEPTS[int(seen["concept"][at].argmax())],
        COLOUR_CLASSES[int(seen["colour"][at].argmax())],
        (column + 0.5 + across) / CELLS,
        (row + 0.5 + down) / CELLS,
        size,
        float(seen["there"][at].sigmoid()),
    )


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    layer = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())
