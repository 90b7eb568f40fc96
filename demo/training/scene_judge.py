"""Train the judge of rich pictures on rendered scenes, softened, noisy and changed in tone."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..classifier import COLOUR_CLASSES
from ..scene_judge import CELLS, SIDE, SceneJudge
from ..scenery import GROUNDS, PATTERNS, THINGS_AT_MOST
from ..vocabulary import CONCEPTS
from .classifier import soften
from .fitting import fit
from .pictures import Studio
from .precision import autocast
from .scenes import NOTHING, Scenes, random_scenes
from .stage import Stage

SESSION = "scene_judge.session"
BATCH = 64
_SEED = 6_000_000
_PATTERNS = tuple(GROUNDS.index(name) for name in PATTERNS)


def pictures(stage: Stage, scenes: Scenes, generator: torch.Generator) -> Tensor:
    """The scenes at the judge's size, as the denoiser never sees them."""
    picture = stage.draw(scenes, generator)
    count = len(picture)
    contrast = 0.85 + 0.25 * torch.rand(count, 1, 1, 1, generator=generator)
    lift = 0.08 * (torch.rand(count, 1, 1, 1, generator=generator) - 0.5)
    return soften((picture - 0.5) * contrast + 0.5 + lift, generator).clamp(0, 1)


def loss_of(network: SceneJudge, picture: Tensor, scenes: Scenes) -> Tensor:
    """Cross entropies of what each thing's cell says, and of the whole picture's parts."""
    with autocast():
        seen = {name: logits.float() for name, logits in network(picture).items()}
    which, slot = (scenes.concept != NOTHING).nonzero(as_tuple=True)
    place = scenes.place[which, slot] * CELLS
    column, row = (place[:, i].long().clamp(0, CELLS - 1) for i in (0, 1))
    there = torch.zeros(len(scenes), 1, CELLS, CELLS)
    there[which, 0, row, column] = 1
    doubtful = (F.max_pool2d(there, 3, 1, 1) > there).float()
    found = F.binary_cross_entropy_with_logits(seen["there"], there, reduction="none")
    loss = (found * (1 - doubtful) * (1 + 7 * there)).mean() * 8
    named = {name: seen[name][which, :, row, column] for name in ("concept", "colour", "box")}
    loss = loss + F.cross_entropy(
        named["concept"], scenes.concept[which, slot], label_smoothing=0.02
    )
    true_light = (scenes.light + scenes.side == 0)[which]
    colour = F.cross_entropy(named["colour"], scenes.colour[which, slot], reduction="none")
    loss = loss + 0.5 * (colour * true_light).sum() / true_light.sum().clamp(min=1)
    middle = torch.stack([column, row], 1) + 0.5
    box = torch.cat([place - middle, scenes.size[which, slot][:, None]], 1)
    loss = loss + 2 * (named["box"] - box).abs().mean()
    for name in ("ground", "light", "side", "shadow"):
        loss = loss + 0.3 * F.cross_entropy(seen[name], getattr(scenes, name).long())
    coloured = has_background(scenes) & (scenes.light + scenes.side == 0)
    if coloured.any():
        loss = loss + 0.3 * F.cross_entropy(seen["background"][coloured], scenes.tints[coloured, 0])
    return loss


def has_background(scenes: Scenes) -> Tensor:
    """Scenes with a flat or patterned ground of one of the ten colours."""
    tinted = torch.isin(scenes.ground, torch.tensor([0, *_PATTERNS]))
    return tinted & (scenes.tints[:, 0] != NOTHING)


def train(studio: Studio, directory: Path, minutes: float) -> SceneJudge:
    """The trained judge; resumes by itself."""
    torch.manual_seed(0)
    stage = Stage(studio, SIDE)
    network = SceneJudge()

    def loss_at(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(_SEED + step)
        scenes = random_scenes(studio, BATCH, generator)
        picture = pictures(stage, scenes, generator)
        return loss_of(network, picture.contiguous(memory_format=torch.channels_last), scenes)

    return fit(network, loss_at, directory / SESSION, minutes)


@torch.no_grad()
def accuracy(network: SceneJudge, studio: Studio, count: int = 1024) -> dict[str, float]:
    """Shares right on new scenes: of things found with their name, and of the parts given those."""
    generator, stage = torch.Generator().manual_seed(9), Stage(studio, SIDE)
    marks: dict[str, list[bool]] = {}

    def note(name: str, right: bool) -> None:
        marks.setdefault(name, []).append(right)

    for _ in range(count // BATCH):
        scenes = random_scenes(studio, BATCH, generator)
        picture = pictures(stage, scenes, generator)
        for index, things in enumerate(network.things(picture)):
            scene = scenes[index]
            wanted = [i for i in range(THINGS_AT_MOST) if scene.concept[i] != NOTHING]
            note("count", len(things) == len(wanted))
            for slot in wanted:
                _mark_thing(note, scene, slot, things)
        logits = network(picture)
        for name in ("ground", "light", "side", "shadow"):
            for right in (logits[name].argmax(1) == getattr(scenes, name)).tolist():
                note(name, right)
        chosen = has_background(scenes) & (scenes.light + scenes.side == 0)
        for right in (logits["background"].argmax(1) == scenes.tints[:, 0])[chosen].tolist():
            note("background", right)
    return {name: sum(each) / len(each) for name, each in sorted(marks.items())}


def _mark_thing(note, scene: Scenes, slot: int, things) -> None:
    x, y = scene.place[slot].tolist()
    near = min(things, key=lambda t: (t.x - x) ** 2 + (t.y - y) ** 2, default=None)
    close = near is not None and (near.x - x) ** 2 + (near.y - y) ** 2 < 0.1**2
    right = close and near.concept == CONCEPTS[int(scene.concept[slot])]
    note("thing", right)
    if right:
        note("size within 0.07", abs(near.size - float(scene.size[slot])) < 0.07)
        if scene.light + scene.side == 0:
            note("colour", near.colour == COLOUR_CLASSES[int(scene.colour[slot])])
