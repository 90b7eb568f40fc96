"""Aesthetic predictors are the originals: imscore's for v2, and for v2.5 the published layers."""

from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from ComfyUI_DNO.nodes.host.judges.clip_vision import as_encoder
from ComfyUI_DNO.rewards import Aesthetic, models
from ComfyUI_DNO.rewards.models.aesthetic import AestheticHead
from ComfyUI_DNO.rewards.models.clip import CLIPVision
from ComfyUI_DNO.rewards.models.files import Stored, read
from ComfyUI_DNO.rewards.models.siglip import SigLIPVision

from ..support.examples import picture
from ..support.originals import original
from ..support.random_weights import randomise
from ..support.tiny_encoders import (
    LAIONHead,
    host_vision,
    original_clip_vision,
    original_siglip_vision,
    prefixed,
    published,
    seeded,
    v25_head,
)
from ..support.tiny_models import tiny

SIZES = [(224, 224), (256, 192), (100, 313)]


def built(state):
    return models.build(Stored(Path("file"), state))


@pytest.fixture(scope="module")
def scorer():
    """imscore's, its head as published, on a small CLIP with L/14's embedding."""
    package = original("imscore.aesthetic.model")
    sizes = {"image_size": 224, "patch_size": 32, "projection_dim": 768}
    clip = original_clip_vision(**sizes)
    make = package.CLIPVisionModelWithProjection
    with patch.object(make, "from_pretrained", lambda name: clip):
        network = package.LAIONAestheticScorer().eval()
    randomise(network.mlp)
    return network.requires_grad_(False)


def assert_same(reward, reference, size):
    images = [picture(1, *size).requires_grad_() for _ in range(2)]
    ours, theirs = (f(x) for f, x in zip((reward, reference), images, strict=True))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    slopes = [
        torch.autograd.grad(s.sum(), x)[0] for s, x in zip((ours, theirs), images, strict=True)
    ]
    largest = float(slopes[1].abs().amax())
    assert largest > 0
    torch.testing.assert_close(*slopes, atol=1e-3 * largest, rtol=1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_a_file_of_imscore_holds_head_and_encoder(scorer, size):
    model = built(scorer.state_dict())
    assert isinstance(model, AestheticHead) and type(model.encoder) is CLIPVision
    assert_same(Aesthetic(model), scorer.score, size)


@pytest.mark.parametrize("size", SIZES)
def test_the_head_alone_reads_an_encoder_of_its_own(scorer, size, tmp_path):
    torch.save(scorer.mlp.state_dict(), tmp_path / "sac+logos+ava1-l14-linearMSE.pth")
    head = models.build(read(tmp_path / "sac+logos+ava1-l14-linearMSE.pth"))
    assert head.encoder is None
    encoder = built(published(scorer.clip))
    assert_same(Aesthetic(head, encoder), scorer.score, size)


def test_head_and_encoder_side_by_side_are_read_too(scorer):
    state = prefixed(**{"": scorer.clip}) | scorer.mlp.state_dict()
    image = picture(2, 224, 224)
    torch.testing.assert_close(Aesthetic(built(state))(image), scorer.score(image))


def test_clip_vision_of_comfyui_is_an_encoder():
    head, host = seeded(lambda: LAIONHead(32)), host_vision("clip")
    encoder, image = as_encoder(host), picture(2)
    rewards = Aesthetic(built(head.state_dict()), encoder)(image)
    torch.testing.assert_close(rewards, head(encoder.image_embed(image))[:, 0])


@pytest.fixture(scope="module")
def v25():
    """The layers of the published file, and a small SigLIP."""
    return seeded(lambda: v25_head(64)), original_siglip_vision()


def v25_reward(head, siglip, preprocess):
    def reward(image):
        pooled = siglip(pixel_values=preprocess(image)).pooler_output
        return head["scoring_head"](normalize(pooled, dim=-1))[:, 0]

    return reward


@pytest.mark.parametrize("whole", [True, False])
def test_v2_5_reads_siglip_s_pooled_embedding(v25, whole):
    head, siglip = v25
    encoder = built(published(siglip))
    if whole:  # as the model of its package is saved
        model = built(published(siglip) | prefixed(layers__=head))
        assert type(model.encoder) is SigLIPVision
        reward = Aesthetic(model)
    else:
        reward = Aesthetic(built(head.state_dict()), encoder)
    assert_same(reward, v25_reward(head, siglip, encoder.preprocess), (50, 70))


def test_published_sizes_are_recognised():
    inner = (1024, 128, 64, 16, 1)
    published = {
        "layers.": ((768, *inner), (0, 2, 4, 6, 7), "clip"),
        "scoring_head.": ((1152, *inner), (0, 2, 4, 6, 8), "siglip"),
    }
    for prefix, (sizes, numbers, family) in published.items():
        pairs = zip(numbers, sizes, sizes[1:], strict=False)
        layers = {number: nn.Linear(inner, outer) for number, inner, outer in pairs}
        state = {
            f"{prefix}{number}.{name}": tensor
            for number, layer in layers.items()
            for name, tensor in layer.state_dict().items()
        }
        head = built(state)
        assert isinstance(head, AestheticHead)
        assert (head.family, head.width) == (family, sizes[0])


def test_the_head_of_another_network_is_not_taken_for_one():
    assert type(tiny("ImageReward")) is not AestheticHead  # its head has the same names
    shapes = {f"layers.{n}.weight": (8, 8) for n in (0, 2, 4, 6, 7)}
    assert not AestheticHead.matches(shapes)
    shapes["layers.7.weight"] = (1, 8)
    assert AestheticHead.matches(shapes)
    assert not AestheticHead.matches(shapes | {"decoder.weight": (3, 3)})


@pytest.mark.parametrize("encoder, message", [
    (lambda: None, "has no encoder; connect CLIP ViT-L/14"),
    (lambda: built(published(original_clip_vision(projection_dim=48))),
     "reads 32 numbers of CLIP ViT-L/14, and encoder gives 48 of CLIP vision"),
    (lambda: built(published(original_siglip_vision())), "gives 64 of SigLIP vision"),
])  # fmt: skip
def test_a_wrong_encoder_is_refused_in_one_sentence(encoder, message):
    head = built(LAIONHead(32).state_dict())
    with pytest.raises(ValueError, match=f"^Aesthetic: .*{message}"):
        Aesthetic(head, encoder())


def test_siglip_of_comfyui_is_refused_for_it_has_no_pooling(v25):
    head = built(v25[0].state_dict())
    with pytest.raises(ValueError, match="pooled embedding, which ComfyUI's CLIP vision models"):
        Aesthetic(head, as_encoder(host_vision("siglip")))


def test_an_incomplete_head_is_refused():
    state = LAIONHead(32).state_dict()
    del state["layers.4.bias"]
    with pytest.raises(ValueError, match="incomplete: 2.bias"):
        built(state)
