"""The demo's CLIP: an ordinary file, the same bytes each time, that sees what pictures show."""

from __future__ import annotations

import nodes
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cosine_similarity
from transformers import CLIPModel

from ComfyUI_DNO.rewards import models
from ComfyUI_DNO.rewards.models.clip import CLIP, config_of
from ComfyUI_DNO.rewards.models.files import read
from demo import reward_model
from demo.classifier import Classifier
from demo.training.captions import Captions
from demo.training.contrastive import image_embed, loss_of, text_embed
from demo.training.phrases import OPEN, fits, rows_of
from demo.training.pictures import NATURAL, Labels
from demo.vocabulary import BACKGROUNDS, COLOURS, CONCEPTS, prompt

from ..support.tiny_models import clip_tokenizer

SHOWN = (
    ("cat", "orange", "blue"), ("rocket", "red", "white"), ("skull", "pink", "black"),
    ("fish", "orange", "green"), ("heart", "purple", "yellow"), ("tree", "green", "pink"),
    ("car", "blue", "red"), ("frog", "green", "purple"), ("star", "yellow", "gray"),
    ("penguin", "black", "orange"),
)  # fmt: skip


@pytest.fixture(scope="module")
def clip(demo_clip) -> CLIP:
    """As the loader builds it, with the tokenizer that it gets."""
    network = models.build(read(demo_clip)).float()
    network.tokenizer = clip_tokenizer()
    return network


@pytest.fixture(scope="module")
def pictures(demo_model) -> torch.Tensor:
    """What the demo checkpoint draws of SHOWN, (10, 3, 128, 128), through ComfyUI's own nodes."""
    model, words, vae = demo_model
    encode = nodes.CLIPTextEncode().encode
    (latent,) = nodes.EmptyLatentImage().generate(128, 128, 1)
    images = []
    with torch.inference_mode():
        (empty,) = encode(words, "")
        for seed, shown in enumerate(SHOWN):
            (wanted,) = encode(words, prompt(*shown))
            (sampled,) = nodes.KSampler().sample(
                model, seed, 8, 3.0, "euler", "simple", wanted, empty, latent
            )
            images.append(nodes.VAEDecode().decode(vae, sampled)[0].movedim(-1, 1))
    return torch.cat(images).clone()


def picked(clip: CLIP, pictures: torch.Tensor, sentences: list[list[str]]) -> list[int]:
    """Which of its sentences each picture is closest to."""
    seen = clip.image_embed(pictures)
    said = [clip.text_embed(texts) for texts in sentences]
    return [int((text @ one).argmax()) for one, text in zip(seen, said, strict=True)]


def test_assembly_gives_the_same_bytes_each_time(tmp_path):
    first = reward_model.assemble(tmp_path / "first.safetensors")
    second = reward_model.assemble(tmp_path / "second.safetensors")
    assert first.read_bytes() == second.read_bytes()
    before = first.stat().st_mtime_ns
    assert reward_model.assemble(first).stat().st_mtime_ns == before  # left alone
    with first.open("r+b") as file:
        file.truncate(first.stat().st_size // 2)
    assert reward_model.assemble(first).read_bytes() == second.read_bytes()


def test_what_is_stored_fits_in_git():
    assert reward_model.WEIGHTS.stat().st_size <= 4e6


def test_transformers_loads_it_strictly(demo_clip, pictures):
    state = load_file(demo_clip)
    network = CLIPModel(reward_model.configuration()).eval()
    network.load_state_dict(state, strict=True)
    training, _ = reward_model.stored()
    pixels = torch.nn.functional.interpolate(pictures, (64, 64), mode="area")
    with torch.no_grad():
        theirs, ours = image_embed(network, pixels), image_embed(training, pixels)
    assert (theirs - ours).abs().max() < 1e-5


def test_its_shapes_say_its_sizes(demo_clip, clip):
    assert isinstance(clip, CLIP)
    found, wanted = config_of(load_file(demo_clip)), reward_model.configuration()
    assert found.to_dict() == wanted.to_dict()


@pytest.mark.parametrize(
    "text", ["cat", "a red apple on a blue background", "a weird grey ladybug", "", "zebra"]
)
def test_training_and_the_loaded_network_read_the_same(clip, text):
    network, identifiers = reward_model.stored()
    captions = Captions(clip_tokenizer(), identifiers)
    assert set(identifiers.tolist()) <= set(Captions(clip_tokenizer()).identifiers.tolist())
    with torch.no_grad():
        ours = text_embed(network, rows_of(captions.tokens([text]), len(identifiers)))
    assert (clip.text_embed([text]) - ours).abs().max() < 1e-5


def test_names_the_thing_in_a_picture(clip, pictures):
    every = [[prompt(name) for name in CONCEPTS]] * len(SHOWN)
    named = [CONCEPTS[index] for index in picked(clip, pictures, every)]
    right = sum(name == shown[0] for name, shown in zip(named, SHOWN, strict=True))
    assert right >= 9, named


def test_names_colour_and_background(clip, pictures):
    colours = [[prompt(thing, colour, ground) for colour in COLOURS] for thing, _, ground in SHOWN]
    grounds = [[prompt(thing, colour, g) for g in BACKGROUNDS] for thing, colour, _ in SHOWN]
    right = [
        COLOURS[index] == shown[1]
        for index, shown in zip(picked(clip, pictures, colours), SHOWN, strict=True)
    ] + [
        BACKGROUNDS[index] == shown[2]
        for index, shown in zip(picked(clip, pictures, grounds), SHOWN, strict=True)
    ]
    assert sum(right) >= 18, right


def test_small_changes_of_a_picture_do_not_matter(clip, pictures):
    noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(0))
    noisy = (pictures + 0.1 * noise).clamp(0, 1)
    before, after = clip.image_embed(pictures), clip.image_embed(noisy)
    others = before @ before.T - 2 * torch.eye(len(before))
    assert (cosine_similarity(before, after) > others.amax(1)).all()


def painted(clip: CLIP, pictures: torch.Tensor, sentences: list[str]) -> torch.Tensor:
    """The pictures after 40 short steps up the similarity to their sentences."""
    said, changed = clip.text_embed(sentences), pictures.clone().requires_grad_()
    for _ in range(40):
        score = (clip.image_embed(changed) * said).sum()
        (gradient,) = torch.autograd.grad(score, changed)
        norm = gradient.flatten(1).norm(dim=1)[:, None, None, None]
        changed = (changed.detach() + 2 * gradient / norm).clamp(0, 1).requires_grad_()
    return changed.detach()


def test_its_gradient_paints_another_thing(clip, pictures):
    """The classifier, which the gradient never saw, finds it e times as likely in nearly all."""
    judge = Classifier.load()
    others = [thing for thing, _, _ in (*SHOWN[1:], SHOWN[0])]
    changed = painted(clip, pictures, [prompt(other) for other in others])
    each = torch.arange(len(SHOWN)), torch.tensor([CONCEPTS.index(other) for other in others])
    risen = judge.concepts(changed)[each] - judge.concepts(pictures)[each]
    assert (risen > 1).sum() >= 9, risen


def test_its_gradient_paints_another_background(clip, pictures):
    judge, wanted = Classifier.load(), "pink"
    changed = painted(clip, pictures, [prompt(thing, None, wanted) for thing, _, _ in SHOWN])
    index = BACKGROUNDS.index(wanted)
    before, after = judge.backgrounds(pictures)[:, index], judge.backgrounds(changed)[:, index]
    assert ((after > before + 1) | (after > -0.01)).sum() >= 8, after - before


# Its training


def labels(*rows: tuple[int, int, int]) -> Labels:
    return Labels(*torch.tensor(rows).T)


def test_a_sentence_fits_by_what_it_says():
    red, orange = 1, 2
    same = torch.zeros(3, 4, 4, dtype=torch.bool)
    same[1, NATURAL, orange] = True  # thing 1 is orange by nature
    seen = labels((0, red, 5), (1, NATURAL, 5), (0, red, 5))
    true_colours = torch.tensor([True, True, False])  # the last one is relit
    said = labels((0, NATURAL, OPEN), (0, red, 5), (1, orange, OPEN), (OPEN, red, 6), (2, red, 5))
    right, wrong = fits(seen, true_colours, said, same)
    assert right.tolist() == [
        [True, True, False, False, False],
        [False, False, False, False, False],
        [True, False, False, False, False],
    ]
    assert wrong.tolist() == [
        [False, False, True, True, True],
        [True, True, False, True, True],
        [False, False, True, False, True],
    ]


def test_the_loss_is_each_right_pair_against_the_wrong_ones():
    logits = torch.tensor([[2.0, 1.0, -1.0], [0.5, 3.0, 0.0]])
    right = torch.tensor([[True, False, False], [False, True, False]])
    wrong = torch.tensor([[False, True, True], [True, False, False]])  # one pair is in doubt
    by_picture = (logits[0].softmax(0)[0].log() + logits[1, :2].softmax(0)[1].log()) / 2
    by_sentence = (logits[:, 0].softmax(0)[0].log() + logits[:, 1].softmax(0)[1].log()) / 2
    assert loss_of(logits, right, wrong).item() == pytest.approx(-(by_picture + by_sentence).item())
