"""The demo checkpoint: the same bytes each time, the same numbers in ComfyUI, pictures that fit."""

import comfy.model_management
import nodes
import pytest
import torch

from demo.checkpoint import assemble
from demo.classifier import COLOUR_CLASSES, Classifier
from demo.clip import LENGTH, POSITIONS, TEXT_WIDTH, Tokens
from demo.mmdit import Denoiser
from demo.vae import Decoder, Encoder
from demo.vocabulary import BACKGROUNDS, CONCEPTS, prompt
from demo.weights import read_weights

PLAIN = ("apple", "cat", "dog", "penguin", "heart", "star", "tree", "car", "house", "frog")
COLOURED = (("rocket", "red", "white"), ("skull", "pink", "black"), ("fish", "orange", "blue"))


@pytest.fixture(scope="module")
def weights():
    return read_weights()


@pytest.fixture(scope="module")
def classifier():
    return Classifier.load()


@pytest.fixture(scope="module")
def draw(demo_model):
    """Prompt and seed -> picture (1, 3, 128, 128), through ComfyUI's own nodes."""
    model, clip, vae = demo_model

    @torch.inference_mode()
    def picture(text: str, seed: int = 0) -> torch.Tensor:
        encode = nodes.CLIPTextEncode().encode
        (positive,), (negative,) = encode(clip, text), encode(clip, "")
        (latent,) = nodes.EmptyLatentImage().generate(128, 128, 1)
        sampled = nodes.KSampler().sample(
            model, seed, 20, 3.0, "euler", "simple", positive, negative, latent
        )
        (image,) = nodes.VAEDecode().decode(vae, sampled[0])
        return image.movedim(-1, 1)

    return picture


def tokens_of(clip, weights, text: str) -> Tokens:
    """ComfyUI's own tokens of a prompt, as rows of the stored table."""
    row = {int(token): row + 1 for row, token in enumerate(weights.identifiers)}
    numbers = [int(pair[0]) for pair in clip.tokenize(text)["l"][0][:POSITIONS]]
    end = next(place for place, number in enumerate(numbers) if number == 49407)
    special = [place == 0 or place >= end for place in range(POSITIONS)]
    rows = [
        0 if flag else row.get(number, 0) for number, flag in zip(numbers, special, strict=True)
    ]
    return Tokens(torch.tensor([rows]), torch.tensor([special]), torch.tensor([end]))


def test_assembly_gives_the_same_bytes_each_time(tmp_path):
    first, second = assemble(tmp_path / "first.safetensors"), assemble(tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.safetensors", "second"]
    before = first.stat().st_mtime_ns
    assert assemble(first).stat().st_mtime_ns == before  # the right file is left alone


def test_assembly_replaces_a_broken_file(tmp_path):
    target = tmp_path / "checkpoint.safetensors"
    target.write_bytes(b"\0" * 100)
    assemble(target)
    whole = target.stat().st_size
    with target.open("r+b") as file:
        file.truncate(whole // 2)
    assert assemble(target).stat().st_size == whole


def test_loads_as_model_clip_and_vae_of_the_sd3_family(demo_model):
    model, clip, vae = demo_model
    assert type(model.model).__name__ == "SD3"
    assert clip is not None
    assert vae.latent_channels == 16


@pytest.mark.parametrize("text", ["", "cat", "a red apple on a blue background", "a weird dog"])
def test_training_and_comfyui_compute_the_same(demo_model, weights, text):
    model, clip, _ = demo_model
    network = Denoiser(len(weights.identifiers) + 1)
    network.load_state_dict(weights.denoiser)
    tokens = tokens_of(clip, weights, text)
    sigma = torch.tensor([0.7])
    latent = torch.randn(1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    comfy.model_management.load_models_gpu([model])
    with torch.inference_mode():
        hidden, pooled = network.text(tokens)
        context, extra = clip.encode_from_tokens(clip.tokenize(text), return_pooled=True)
        padded = torch.cat([hidden, hidden[:, -1:].expand(-1, LENGTH - POSITIONS, -1)], 1)
        assert torch.allclose(context[..., :TEXT_WIDTH], padded, atol=1e-4)
        assert torch.allclose(extra[:, :TEXT_WIDTH], pooled, atol=1e-4)
        ours = network(latent, sigma, tokens)
        theirs = model.model.diffusion_model(latent, sigma * 1000, context=context, y=extra)
    assert (ours - theirs).abs().max() < 1e-3


def test_training_and_comfyui_decode_and_encode_the_same(demo_model, weights):
    model, _, vae = demo_model
    encoder, decoder = Encoder(), Decoder()
    encoder.load_state_dict(weights.encoder)
    decoder.load_state_dict(weights.decoder)
    image = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        latent = encoder(image.movedim(-1, 1))
        theirs = vae.encode(image)
        assert torch.allclose(model.model.process_latent_in(theirs), latent, atol=1e-3)
        decoded = decoder(latent).clamp(0, 1).movedim(1, -1)
        assert torch.allclose(vae.decode(theirs), decoded, atol=1e-3)


def test_draws_what_the_prompt_says(draw, classifier):
    verdicts = [
        CONCEPTS[classifier.concepts(draw(prompt(name), seed)).argmax()] == name
        for seed, name in enumerate(PLAIN)
    ]
    assert sum(verdicts) >= 0.8 * len(PLAIN)


@pytest.mark.parametrize(("concept", "colour", "background"), COLOURED)
def test_draws_the_colours_that_the_prompt_says(draw, classifier, concept, colour, background):
    image = draw(prompt(concept, colour, background))
    assert BACKGROUNDS[classifier.backgrounds(image).argmax()] == background
    assert COLOUR_CLASSES[classifier.colours(image).argmax()] == colour
    assert classifier.recognised(image, concept) > 0.5


def test_a_prompt_of_unknown_words_still_gives_a_picture(draw):
    image = draw("zebra quantum xylophone")
    assert image.isfinite().all()
    assert image.std() > 0.05


def test_filler_words_do_no_harm(draw, classifier):
    image = draw("a very detailed photo of a small red car on a blue background")
    assert classifier.recognised(image, "car") > 0.5


def test_the_classifier_is_differentiable_and_takes_any_size(classifier):
    image = torch.rand(2, 3, 96, 160, requires_grad=True)
    classifier.recognised(image, "cat").sum().backward()
    assert image.grad.abs().sum() > 0
    assert classifier.concepts(image).exp().sum(1).tolist() == pytest.approx([1, 1], abs=1e-4)
