"""Train the demo checkpoint: ``python -m demo.training --comfyui PATH``, from the repository root.

The stages run in order: classifier, autoencoder, denoiser on plain pictures, denoiser on rich ones,
judge of rich pictures, storing, CLIP, judge of quality. Each leaves its result in the working
directory; a finished stage is skipped and an interrupted one goes on where it stopped. About five
hours on one CPU core. With --start the autoencoder and the rich pictures go on from stored weights,
such as demo/weights.safetensors; --weights names the file to store them in.
"""

import argparse
from pathlib import Path

import torch

from .. import reward_model
from ..classifier import WEIGHTS as CLASSIFIER_WEIGHTS
from ..mmdit import Denoiser
from ..quality import WEIGHTS as QUALITY_WEIGHTS
from ..scene_judge import WEIGHTS as SCENE_JUDGE_WEIGHTS
from ..weights import WEIGHTS, Weights, read_weights, write_weights
from . import classifier, contrastive, diffusion, quality, scene_judge, vae, views
from .captions import Captions, tokenizer
from .latents import Captioned, Mixed, encode
from .pictures import Studio, load_icons
from .progress import load_part
from .scene_latents import SceneLatents
from .stage import Stage

PLAIN = 0.6
"""Plain pictures in a batch of the second stage: less, and the network forgets their details."""
STAGES = ("classifier", "vae", "diffusion", "scenes", "judge", "store", "clip", "quality")


def main() -> None:
    """Parse the command line and run the chosen stages in order."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    directory: Path = arguments.directory
    directory.mkdir(parents=True, exist_ok=True)
    studio = Studio(load_icons(directory / "icons"))
    words = tokenizer(arguments.comfyui)
    captions, plain = Captions(words), Captions(words, rich=False)
    if "classifier" in arguments.stages:
        train_classifier(studio, directory, arguments.classifier_minutes)
    if "vae" in arguments.stages:
        start = vae.embedded(read_weights(arguments.start)) if arguments.start else None
        vae.train(Stage(studio), directory, arguments.vae_minutes, start)
    if "diffusion" in arguments.stages:
        encoder = vae.stored(directory).encoder
        data = encode(studio, encoder, directory / "latents.pt", arguments.pictures)
        path = directory / diffusion.SESSION
        diffusion.train(Captioned(data, plain), plain, path, arguments.diffusion_minutes)
    if "scenes" in arguments.stages:
        train_on_scenes(Stage(studio), captions, plain, directory, arguments)
    if "judge" in arguments.stages:
        train_scene_judge(studio, directory, arguments.judge_minutes)
    known = captions if (directory / diffusion.SCENE_SESSION).exists() else plain
    if "store" in arguments.stages:
        store(directory, known, arguments.weights, arguments.eight_bits)
    if "clip" in arguments.stages:
        train_clip(studio, captions, known, directory, arguments)
    if "quality" in arguments.stages:
        train_quality(Stage(studio), directory, arguments)


def train_classifier(studio: Studio, directory: Path, minutes: float) -> None:
    """Train, report and store the classifier."""
    network = classifier.train(studio, directory, minutes)
    for name, relit in (("training-like", False), ("relit", True)):
        concept, colour, ground = classifier.accuracy(network, studio, relit)
        print(f"{name}: concept {concept:.3f} colour {colour:.3f} background {ground:.3f}")
    classifier.store(network, CLASSIFIER_WEIGHTS)


def train_scene_judge(studio: Studio, directory: Path, minutes: float) -> None:
    """Train, report and store the judge of rich pictures."""
    network = scene_judge.train(studio, directory, minutes)
    figures = scene_judge.accuracy(network, studio)
    print("held out: " + ", ".join(f"{name} {share:.3f}" for name, share in figures.items()))
    classifier.store(network, SCENE_JUDGE_WEIGHTS)


def train_on_scenes(
    stage: Stage,
    captions: Captions,
    plain: Captions,
    directory: Path,
    arguments: argparse.Namespace,
) -> None:
    """The denoiser's second stage: rich pictures, from what it made of plain ones."""
    if arguments.start:
        embedded = read_weights(arguments.start)
        start, known = embedded.denoiser, embedded.identifiers
    else:
        start, known = load_part(directory / diffusion.SESSION, "average"), plain.identifiers
    start = diffusion.with_words(start, known, captions)
    encoder = vae.stored(directory).encoder
    pictures = encode(stage.studio, encoder, directory / "latents.pt", arguments.pictures)
    rich = SceneLatents(stage, encoder, directory / "scenes", arguments.scene_pieces)
    data = Mixed(Captioned(pictures, captions), rich, PLAIN)
    path = directory / diffusion.SCENE_SESSION
    diffusion.train(data, captions, path, arguments.scene_minutes, start)


def store(directory: Path, captions: Captions, path: Path, eight_bits: bool) -> None:
    """Write the averaged weights, finished or not."""
    autoencoder = vae.stored(directory)
    weights = Weights(
        denoiser=diffusion.stored(directory),
        encoder=autoencoder.encoder.state_dict(),
        decoder=autoencoder.decoder.state_dict(),
        identifiers=captions.identifiers,
    )
    write_weights(weights, path, eight_bits)
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB")


def train_clip(
    studio: Studio,
    captions: Captions,
    known: Captions,
    directory: Path,
    arguments: argparse.Namespace,
) -> None:
    """Train and store the CLIP that is the demo's learned reward; ``known``: to the denoiser."""
    autoencoder = vae.stored(directory)
    data = encode(studio, autoencoder.encoder, directory / "latents.pt", arguments.pictures)
    network = Denoiser(len(known.identifiers) + 1).eval()
    network.load_state_dict(diffusion.stored(directory))
    decoder = autoencoder.decoder
    pools = (
        views.sampled(studio, network, decoder, known, directory / "sampled.pt", 4096),
        views.decoded(data, decoder, directory / "decoded.pt", 6144),
    )
    trained = contrastive.train(studio, captions, pools, directory, arguments.clip_minutes)
    reward_model.store(trained, captions.identifiers)
    print(f"{reward_model.WEIGHTS.name}: {reward_model.WEIGHTS.stat().st_size / 1e6:.1f} MB")


def train_quality(stage: Stage, directory: Path, arguments: argparse.Namespace) -> None:
    """Train, report and store the judge of quality, on what the stored checkpoint draws."""
    weights = read_weights(arguments.weights)
    captions = Captions(tokenizer(arguments.comfyui), weights.identifiers)
    pool = quality.pools(stage, weights, captions, directory, count=512)
    network = quality.train(stage, pool, directory, arguments.quality_minutes)
    figures = quality.accuracy(network, stage, pool)
    print("held out: " + ", ".join(f"{name} {share:.3f}" for name, share in figures.items()))
    classifier.store(network, QUALITY_WEIGHTS)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m demo.training", description=__doc__)
    parser.add_argument("--comfyui", type=Path, required=True, help="for its CLIP tokenizer")
    parser.add_argument("--directory", type=Path, default=Path(".comfyui/demo_training"))
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    parser.add_argument("--classifier-minutes", type=float, default=6)
    parser.add_argument("--vae-minutes", type=float, default=30)
    parser.add_argument("--diffusion-minutes", type=float, default=100)
    parser.add_argument("--scene-minutes", type=float, default=150)
    parser.add_argument("--judge-minutes", type=float, default=12)
    parser.add_argument("--quality-minutes", type=float, default=8)
    parser.add_argument("--clip-minutes", type=float, default=44)
    parser.add_argument("--pictures", type=int, default=30720, help="latents to train on")
    parser.add_argument("--scene-pieces", type=int, default=64, help="of 1,024 rich pictures each")
    parser.add_argument("--start", type=Path, help="stored weights to go on from")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="the file to store them in")
    parser.add_argument("--eight-bits", action="store_true", help="store the denoiser in int8")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
