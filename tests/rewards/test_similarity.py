"""Similarity to a reference picture: of content, and of style wherever it is."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import cosine_similarity, layer_norm

from ComfyUI_DNO.rewards import ImageSimilarity, StyleSimilarity, models
from ComfyUI_DNO.rewards.models.files import Stored

from ..support.examples import picture
from ..support.tiny_encoders import TINY, original_clip_vision, published

TITLES = ["CLIP vision", "SigLIP", "SigLIP vision", "DINOv2"]
every_title = pytest.mark.parametrize("title", TITLES)


def encoder(title):
    return models.build(Stored(Path(title), TINY[title]()))


@every_title
def test_content_is_compared_by_the_cosine_of_embeddings(title):
    network, references, image = encoder(title), picture(2, seed=7), picture(3)
    one, other = (network.image_embed(references[i : i + 1]) for i in range(2))
    cosines = [cosine_similarity(network.image_embed(image), e) for e in (one, other)]
    torch.testing.assert_close(ImageSimilarity(network, references[:1])(image), cosines[0])
    nearest = torch.maximum(*cosines)
    torch.testing.assert_close(ImageSimilarity(network, references)(image), nearest)


@every_title
@pytest.mark.parametrize("reward, best", [(ImageSimilarity, 1.0), (StyleSimilarity, 0.0)])
def test_the_reference_itself_is_best(title, reward, best):
    network, reference = encoder(title), picture(2, seed=7)
    similarity = reward(network, reference)
    torch.testing.assert_close(similarity(reference), torch.full((2,), best), atol=1e-5, rtol=0)
    assert (similarity(picture(2)) < best - 1e-4).all()


@every_title
def test_style_is_the_formula_of_its_page(title):
    network, image, reference = encoder(title), picture(2), picture(1, seed=7)

    def statistics(tokens):
        tokens = layer_norm(tokens.double(), tokens.shape[-1:])
        return tokens.mean(0), torch.cov(tokens.T, correction=0)

    def apart(ours, theirs):
        size = ours.square().sum() + theirs.square().sum()
        return (ours - theirs).square().sum() / size / 2

    for number, reward in enumerate(StyleSimilarity(network, reference)(image)):
        layers = zip(network.patches(image), network.patches(reference), strict=True)
        terms = []
        for ours, theirs in layers:
            (m, c), (n, d) = statistics(ours[number]), statistics(theirs[0])
            terms.append(apart(m, n) + apart(c, d))
        wanted = -torch.stack(terms).mean()
        torch.testing.assert_close(reward.double(), wanted, rtol=1e-4, atol=1e-6)


def test_the_nearest_of_several_styles_counts():
    network, image, references = encoder("CLIP vision"), picture(3), picture(2, seed=7)
    rewards = [StyleSimilarity(network, references[i : i + 1])(image) for i in range(2)]
    torch.testing.assert_close(StyleSimilarity(network, references)(image), torch.maximum(*rewards))


def test_style_does_not_care_where_things_are_and_content_does():
    original = original_clip_vision()
    network = models.build(Stored(Path("file"), published(original)))
    torch.nn.init.zeros_(network.network.vision_model.embeddings.position_embedding.weight)
    reference = picture(1, 32, 32, seed=7)  # of 16 patches of 8 pixels
    moved = reference.roll((8, 16), dims=(2, 3))
    style = StyleSimilarity(network, reference)
    assert style(moved) > -1e-6 > -1e-3 > style(picture(1, 32, 32))
    placed = models.build(Stored(Path("file"), published(original_clip_vision())))
    assert ImageSimilarity(placed, reference)(moved) < 1 - 1e-4


def test_style_can_be_climbed():
    reward, image = StyleSimilarity(encoder("DINOv2"), picture(1, seed=7)), picture(2)
    before = reward(image)
    for _ in range(10):
        leaf = image.clone().requires_grad_()
        (slope,) = torch.autograd.grad(reward(leaf).sum(), leaf)
        image = (image + 0.01 * slope.sign()).clamp(0, 1)
    assert (reward(image) > 0.7 * before).all()
