"""Running encoders: once for all rewards, layer by layer again in backward, in half precision."""

from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch.nn.functional import cosine_similarity

from ComfyUI_DNO.dno.autograd import scaled
from ComfyUI_DNO.dno.objective import Objective, Weighted
from ComfyUI_DNO.rewards import (
    CLIPTextSimilarity,
    Cutouts,
    HPSv2,
    ImageSimilarity,
    PickScore,
    StyleSimilarity,
    models,
)
from ComfyUI_DNO.rewards.models import running
from ComfyUI_DNO.rewards.models.files import Stored
from ComfyUI_DNO.rewards.models.vision import tower_of

from ..support.examples import picture
from ..support.tiny_encoders import TINY
from ..support.tiny_models import clip_tokenizer, original_clip

PROMPT = "a red fox"
ENCODERS = ["CLIP vision", "SigLIP", "SigLIP vision", "DINOv2"]


def clip(dtype=torch.float32, **sizes):
    network = models.build(Stored(Path("clip"), original_clip(**sizes).state_dict()))
    network.tokenizer = clip_tokenizer()
    return network.to(dtype)


def gradient(reward, image, weight=1.0):
    image = image.clone().requires_grad_()
    value = reward(image)
    return value.detach(), torch.autograd.grad(weight * value.sum(), image)[0] / weight


def count(network):
    """A list that grows by one with each picture that is encoded."""
    seen = []
    network.network.vision_model.register_forward_hook(lambda *arguments: seen.append(1))
    return seen


def test_rewards_on_one_encoder_encode_a_picture_once_per_iteration():
    network = clip()
    terms = {
        "text": CLIPTextSimilarity(network, PROMPT),
        "another text": CLIPTextSimilarity(network, "a green tree"),
        "image": ImageSimilarity(network, picture(2, seed=7)),
        "style": StyleSimilarity(network, picture(1, seed=8)),
    }
    calls = count(network)
    objective = Objective({name: Weighted(1.0, term) for name, term in terms.items()})
    image = picture(2).requires_grad_()
    total, _ = objective.reward(image)
    (shared,) = torch.autograd.grad(total.sum(), image)
    assert len(calls) == 1
    apart = sum(gradient(term, image.detach())[1] for term in terms.values())
    assert len(calls) == 1 + len(terms)
    torch.testing.assert_close(shared, apart, rtol=1e-4, atol=1e-7)
    objective.reward(image)
    assert len(calls) == 2 + len(terms)


def test_what_is_prepared_otherwise_is_encoded_by_itself():
    network = clip()
    terms = [CLIPTextSimilarity(network, PROMPT), HPSv2(network, PROMPT), HPSv2(network, "a tree")]
    calls = count(network)
    Objective({str(i): Weighted(1.0, term) for i, term in enumerate(terms)}).reward(picture())
    assert len(calls) == 2  # the middle for CLIP, the whole for both HPSv2


def test_rewards_under_the_same_cutouts_share_their_parts():
    network = clip()
    calls, cutouts = count(network), Cutouts(count=3)
    terms = [CLIPTextSimilarity(network, text) for text in (PROMPT, "a tree")]
    rewards = {str(i): Weighted(1.0, cutouts(term)) for i, term in enumerate(terms)}
    Objective(rewards).reward(picture())
    assert len(calls) == 4


class Saved:
    """Bytes that autograd keeps, each storage once, without the weights'."""

    def __init__(self, network):
        self.known = {weight.untyped_storage().data_ptr() for weight in network.parameters()}
        self.bytes = 0

    def pack(self, tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.known:
            self.known.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor


def kept_bytes(network, image):
    saved = Saved(network)
    with torch.autograd.graph.saved_tensors_hooks(saved.pack, lambda tensor: tensor):
        total = network.image_embed(image.clone().requires_grad_()).sum()
    return saved.bytes, total


def layers_of(network):
    return tower_of(network.network).encoder


@pytest.mark.parametrize("title", ENCODERS)
def test_recomputing_keeps_less_and_changes_nothing(title):
    network = models.build(Stored(Path(title), TINY[title]())).double()
    image = picture(2, dtype=torch.float64)
    encoder = layers_of(network)
    layers = getattr(encoder, "layers", None) or encoder.layer
    reward = StyleSimilarity(network, picture(1, seed=7, dtype=torch.float64))
    value, slope = gradient(reward, image)
    kept, _ = kept_bytes(network, image)
    assert not any("forward" in vars(layer) for layer in layers)
    for layer in layers:
        del running._recomputers[layer]
    plain_value, plain_slope = gradient(reward, image)
    plain, _ = kept_bytes(network, image)
    assert torch.equal(value, plain_value)
    torch.testing.assert_close(slope, plain_slope, rtol=1e-9, atol=1e-14)
    assert kept < plain / 2


def agree(ours, theirs):
    """Cosine; 0 where one is longer than the other by a twentieth."""
    if abs(ours.norm() / theirs.norm() - 1) > 0.05:
        return 0.0
    return float(cosine_similarity(ours.flatten(), theirs.flatten(), dim=0))


@pytest.mark.parametrize("dtype, value_apart, alike", [
    (torch.float16, 2e-3, 0.9995), (torch.bfloat16, 2e-2, 0.99),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["text", "image", "style"])
def test_half_precision_agrees_with_single(dtype, value_apart, alike, kind):
    def reward(network):
        if kind == "text":
            return CLIPTextSimilarity(network, PROMPT)
        return {"image": ImageSimilarity, "style": StyleSimilarity}[kind](
            network, picture(1, seed=7)
        )

    image = picture(2)
    value, slope = gradient(reward(clip(layers=4)), image)
    half_value, half_slope = gradient(reward(clip(dtype, layers=4)), image)
    assert half_value.dtype == half_slope.dtype == torch.float32
    torch.testing.assert_close(half_value, value, atol=value_apart, rtol=value_apart)
    assert agree(half_slope, slope) > alike


@pytest.mark.parametrize("weight", [1e-6, 1e-3, 1e6])
def test_a_small_or_large_weight_does_not_drown_the_gradient_of_fp16(weight):
    image = picture(1, 64, 64)
    _, slope = gradient(PickScore(clip(), PROMPT), image)
    half = PickScore(clip(torch.float16), PROMPT)
    assert agree(gradient(half, image, weight)[1], slope) > 0.999


@pytest.mark.parametrize("weight", [1e-6, 1e6])
def test_without_scaling_it_would(weight):
    image = picture(1, 64, 64)
    _, slope = gradient(PickScore(clip(), PROMPT), image)
    half = PickScore(clip(torch.float16), PROMPT)
    with patch.object(scaled._Scale, "fit", lambda *arguments: None):
        unscaled = gradient(half, image, weight)[1]
    assert not agree(unscaled, slope) > 0.9
