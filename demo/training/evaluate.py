"""Measure the checkpoint in ComfyUI itself, and draw the grid of the README.

    python -m demo.training.evaluate --comfyui PATH

Loads through CheckpointLoaderSimple, CLIPTextEncode, KSampler (euler, simple) and VAEDecode. The
prompts and seeds are fixed in advance. The figures come from the independent classifier, for rich
prompts from the judge of rich pictures, and, for the demo's CLIP, from what it makes of the same
pictures.
"""

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .. import reward_model
from ..checkpoint import assemble
from ..classifier import COLOUR_CLASSES, Classifier
from ..scene_judge import WEIGHTS as SCENE_JUDGE_WEIGHTS
from ..scene_judge import SceneJudge
from ..vocabulary import BACKGROUNDS, COLOURABLE, COLOURS, CONCEPTS, prompt
from ..weights import WEIGHTS
from .captions import Captions, tokenizer
from .evaluate_scenes import drawn, marks, save_sheet, scene_wishes
from .pictures import NATURAL, Labels
from .views import shrink
from .zero_shot import accuracy

ROOT = Path(__file__).resolve().parents[2]
GRID, SCENE_GRID = ROOT / "demo" / "grid.png", ROOT / "demo" / "scenes.png"
GRID_SIZE = 64
SEED = 1000
STEPS, GUIDANCE, SIDE = 20, 3.0, 128
STRANGE_PROMPTS = ("a quantum xylophone", "dinosaur", "zebra in the rain", "hello world")
"""Nothing in these is in the vocabulary but the small words."""


@dataclass(frozen=True)
class Task:
    """A prompt and what its picture should show."""

    concept: str
    colour: str | None = None
    background: str | None = None

    @property
    def prompt(self) -> str:
        """The sentence that is encoded."""
        return prompt(self.concept, self.colour, self.background)


def grid_tasks() -> list[Task]:
    """``GRID_SIZE`` different things, each in a colour on another colour."""
    generator = torch.Generator().manual_seed(SEED)
    order = torch.randperm(len(COLOURABLE), generator=generator)[:GRID_SIZE].tolist()
    tasks = []
    for index in order:
        colour = COLOURS[int(torch.randint(len(COLOURS), (1,), generator=generator))]
        grounds = [name for name in BACKGROUNDS if name != colour]
        ground = grounds[int(torch.randint(len(grounds), (1,), generator=generator))]
        tasks.append(Task(COLOURABLE[index], colour, ground))
    return tasks


class Host:
    """The checkpoint in a running ComfyUI."""

    def __init__(self, comfyui: Path, checkpoint: Path) -> None:
        # ComfyUI's `nodes` must not be hidden by the pack's folder of that name.
        sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
        sys.path.insert(0, str(comfyui.resolve()))
        sys.argv = [sys.argv[0], "--cpu"]
        import comfy.options

        comfy.options.enable_args_parsing()
        import folder_paths
        import nodes

        folder_paths.add_model_folder_path("checkpoints", str(checkpoint.parent.resolve()))
        self._nodes = nodes
        loader = nodes.CheckpointLoaderSimple()
        self._model, self._clip, self._vae = loader.load_checkpoint(checkpoint.name)
        self.seconds_per_step: list[float] = []

    @torch.inference_mode()
    def draw(self, text: str, seed: int) -> Tensor:
        """The picture of a prompt, (1, 3, SIDE, SIDE) in [0, 1]."""
        encode = self._nodes.CLIPTextEncode().encode
        (positive,), (negative,) = encode(self._clip, text), encode(self._clip, "")
        (latent,) = self._nodes.EmptyLatentImage().generate(SIDE, SIDE, 1)
        start = time.perf_counter()
        (latent,) = self._nodes.KSampler().sample(
            self._model, seed, STEPS, GUIDANCE, "euler", "simple", positive, negative, latent
        )
        self.seconds_per_step.append((time.perf_counter() - start) / STEPS)
        (image,) = self._nodes.VAEDecode().decode(self._vae, latent)
        return image.movedim(-1, 1)


@torch.inference_mode()
def judge(classifier: Classifier, tasks: list[Task], images: list[Tensor]) -> dict[str, float]:
    """Share of right concepts, colours and backgrounds, where the prompt names them."""
    right: dict[str, list[bool]] = {"concept": [], "colour": [], "background": []}
    for task, image in zip(tasks, images, strict=True):
        right["concept"].append(CONCEPTS[classifier.concepts(image).argmax()] == task.concept)
        if task.colour:
            guess = COLOUR_CLASSES[classifier.colours(image).argmax()]
            right["colour"].append(guess == task.colour)
        if task.background:
            guess = BACKGROUNDS[classifier.backgrounds(image).argmax()]
            right["background"].append(guess == task.background)
    return {name: sum(marks) / len(marks) for name, marks in right.items() if marks}


def judge_clip(comfyui: Path, tasks: list[Task], images: list[Tensor]) -> dict[str, float]:
    """The same of the demo's CLIP, asked with plain sentences."""
    network, identifiers = reward_model.stored()
    captions = Captions(tokenizer(comfyui), identifiers)
    labels = Labels(
        torch.tensor([CONCEPTS.index(task.concept) for task in tasks]),
        torch.tensor([COLOURS.index(t.colour) + 1 if t.colour else NATURAL for t in tasks]),
        torch.tensor([BACKGROUNDS.index(t.background) if t.background else 0 for t in tasks]),
    )
    figures = accuracy(network, captions, shrink(torch.cat(images).clone()), labels)
    return figures if tasks[0].background else {"concept": figures["concept"]}


def save_grid(tasks: list[Task], images: list[Tensor], path: Path, columns: int = 8) -> None:
    """The pictures under each other, each with its prompt."""
    from PIL import Image, ImageDraw

    width, height = SIDE + 4, SIDE + 18
    rows = -(-len(images) // columns)
    grid = Image.new("RGB", (columns * width, rows * height), "white")
    write = ImageDraw.Draw(grid)
    for index, (task, image) in enumerate(zip(tasks, images, strict=True)):
        left, top = index % columns * width, index // columns * height
        pixels = (image[0].movedim(0, -1).clamp(0, 1) * 255).round().byte().numpy()
        grid.paste(Image.fromarray(pixels), (left + 2, top))
        words = (task.colour, task.concept, "on" if task.background else "", task.background)
        write.text((left + 3, top + SIDE + 2), " ".join(w for w in words if w), fill="black")
    grid.save(path, optimize=True)


def main() -> None:
    """Print the table, save the grid."""
    arguments = _arguments()
    torch.set_num_threads(1)
    checkpoint = assemble(arguments.directory / "dno_demo.safetensors", arguments.weights)
    classifier, host = Classifier.load(), Host(arguments.comfyui, checkpoint)
    plain, coloured = [Task(concept) for concept in CONCEPTS], grid_tasks()
    for title, tasks in (("plain", plain), ("coloured, on a colour", coloured)):
        images = [host.draw(task.prompt, SEED + i) for i, task in enumerate(tasks)]
        figures = judge(classifier, tasks, images)
        clip = judge_clip(arguments.comfyui, tasks, images)
        for judge_name, shares in (("classifier", figures), ("CLIP", clip)):
            rounded = {name: round(share, 3) for name, share in shares.items()}
            print(f"{title} {len(tasks)}, {judge_name}: {rounded}")
        save_grid(tasks, images, arguments.grid if tasks is coloured else arguments.plain_grid)
    if SCENE_JUDGE_WEIGHTS.exists():
        wishes, images = drawn(host.draw, scene_wishes())
        scenes = SceneJudge.load()
        for title, asked in (("named", scenes.fulfilled), ("whatever it is", scenes.arranged)):
            figures = marks(asked, wishes, images).items()
            shares = ", ".join(f"{part} {right} of {all_}" for part, (right, all_) in figures)
            print(f"rich {len(wishes)}, scene judge, {title}: {shares}")
        save_sheet(wishes, images, arguments.scene_grid)
    for index, text in enumerate(STRANGE_PROMPTS):
        image = host.draw(text, SEED + index)
        print(f"{text!r}: deviation of the pixels {image.std():.2f}")
    print(f"seconds a step {statistics.median(host.seconds_per_step):.3f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the demo checkpoint in ComfyUI.")
    parser.add_argument("--comfyui", type=Path, required=True)
    parser.add_argument("--directory", type=Path, default=Path(".comfyui/demo_training"))
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--grid", type=Path, default=GRID)
    parser.add_argument("--scene-grid", type=Path, default=SCENE_GRID)
    parser.add_argument("--plain-grid", type=Path, default=Path(".comfyui/demo_training/plain.png"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
