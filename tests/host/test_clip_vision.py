"""CLIP_VISION of ComfyUI as an encoder: its own maths, without rounding, with a gradient."""

import pytest
import torch
from comfy_execution.validation import validate_node_input
from torch.nn.functional import normalize

from ComfyUI_DNO.nodes import rewards as nodes
from ComfyUI_DNO.nodes.host.judges import reward_models
from ComfyUI_DNO.nodes.host.judges.clip_vision import ComfyVision, as_encoder

from ..nodes.test_sampler_node import parts as parts  # the fixture
from ..nodes.test_sampler_node import run
from ..support.examples import picture
from ..support.originals import in_8_bits
from ..support.tiny_encoders import host_original, host_vision

HOSTS = ["clip", "siglip", "dinov2"]
every_host = pytest.mark.parametrize("kind", HOSTS)
NODES = {node.__name__: node for node in nodes.NODES}


@every_host
def test_clip_vision_embeds_as_comfyui_does_without_rounding(kind):
    host = host_vision(kind)
    encoder = as_encoder(host)
    side = host.image_size
    image = in_8_bits(picture(2, side, side))  # as it is, nothing is resized or rounded
    embeds = host.encode_image(image.movedim(1, -1)).image_embeds
    wanted = normalize(embeds.mean(dim=1) if kind == "siglip" else embeds, dim=-1)
    torch.testing.assert_close(encoder.image_embed(image), wanted, atol=1e-5, rtol=1e-4)
    assert encoder.width == wanted.shape[1]
    other = picture(1, 2 * side, 4 * side)
    embeds = host.encode_image(other.movedim(1, -1), crop=kind != "siglip").image_embeds
    wanted = normalize(embeds.mean(dim=1) if kind == "siglip" else embeds, dim=-1)
    torch.testing.assert_close(encoder.image_embed(other), wanted, atol=1e-2, rtol=0)


@every_host
def test_clip_vision_has_transformers_patches(kind):
    encoder, original = as_encoder(host_vision(kind)), host_original(kind)
    image = picture(1, 60, 60)
    output = original(pixel_values=encoder.preprocess(image), output_hidden_states=True)
    others = 0 if kind == "siglip" else 1
    with torch.no_grad():  # where layers write into what the one before gave
        alone = encoder.patches(image)
    for ours, same, layer in zip(encoder.patches(image), alone, (1, 2, 3), strict=True):
        assert torch.equal(ours, same)
        theirs = output.hidden_states[layer][:, others:]
        torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=1e-2)  # ComfyUI's are fp16


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_clip_vision_passes_an_exact_gradient_though_its_layers_write_in_place(kind):
    encoder = as_encoder(host_vision(kind))
    image = picture(1, 8, 6, dtype=torch.float64).requires_grad_()

    def total(x):
        patches = torch.stack([tokens.square().mean() for tokens in encoder.patches(x)])
        return encoder.image_embed(x)[:, ::2].sum() + patches.sum()

    assert torch.autograd.gradcheck(total, image, eps=1e-6, atol=1e-6, rtol=1e-4)


def test_clip_vision_of_dinov2_passes_the_gradient_of_transformers():
    encoder, original = as_encoder(host_vision("dinov2")), host_original("dinov2")
    image = picture(1, 60, 80).requires_grad_()
    pixels = encoder.preprocess(image)
    ours = encoder.image_embed(image)[:, ::2].sum()
    theirs = normalize(original(pixel_values=pixels).pooler_output, dim=-1)[:, ::2].sum()
    slopes = [torch.autograd.grad(total, image, retain_graph=True)[0] for total in (ours, theirs)]
    torch.testing.assert_close(*slopes, atol=1e-3 * float(slopes[1].abs().amax()), rtol=1e-3)


@every_host
def test_clip_vision_keeps_little_and_leaves_the_host_s_model_as_it_was(kind):
    host = host_vision(kind)
    encoder = as_encoder(host)
    before = host.encode_image(picture(1).movedim(1, -1)).image_embeds
    image = picture(1).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        total = encoder.image_embed(image).sum()
    per_layer = [
        t for t in kept if t.ndim == 3 and t.shape[1:] == encoder.patches(image)[0].shape[1:]
    ]
    assert len(kept) < 40
    assert len(per_layer) < 16  # 4 layers keep their inputs; recorded, each keeps more than 10
    torch.autograd.grad(total, image)
    assert all("forward" not in vars(part) for part in host.model.modules())
    assert not any(part._forward_hooks for part in host.model.modules())
    assert torch.equal(host.encode_image(picture(1).movedim(1, -1)).image_embeds, before)


def test_the_same_clip_vision_is_the_same_encoder_and_other_things_stay_what_they_are():
    host = host_vision("clip")
    assert as_encoder(host) is as_encoder(host)
    assert isinstance(as_encoder(host), ComfyVision)
    assert as_encoder(host).patcher is host.patcher
    assert as_encoder("text") == "text"


@pytest.mark.parametrize("reward", ["ImageSimilarity", "StyleSimilarity", "Aesthetic"])
def test_a_node_takes_both_links(reward):
    inputs = NODES[f"DNO{reward}Reward"].GET_NODE_INFO_V1()["input"]
    socket = (inputs["required"] | inputs.get("optional", {}))["encoder"][0]
    assert socket == "DNO_REWARD_MODEL,CLIP_VISION"
    for link in ("DNO_REWARD_MODEL", "CLIP_VISION"):
        assert validate_node_input(link, socket)
    assert not validate_node_input("CLIP", socket)
    text = NODES["DNOCLIPTextSimilarityReward"].GET_NODE_INFO_V1()["input"]["required"]
    assert text["model"][0] == "DNO_REWARD_MODEL"


@every_host
@pytest.mark.parametrize("reward", ["ImageSimilarity", "StyleSimilarity"])
def test_clip_vision_of_an_earlier_node_becomes_a_reward(kind, reward):
    with torch.inference_mode():
        host, reference = host_vision(kind), picture(2, seed=7).movedim(1, -1)
        node = NODES[f"DNO{reward}Reward"]
        (terms,) = node.execute(encoder=host, reference=reference, weight=1.0).result
    (term,) = terms.values()
    assert reward_models.networks_in(terms) == [as_encoder(host)]
    with torch.no_grad():
        assert term.function(picture(2)).shape == (2,)


@every_host
def test_clip_vision_of_an_earlier_node_is_climbed_by_the_sampler(kind, parts):
    with torch.inference_mode():
        host = host_vision(kind)
        reference = picture(1, seed=7).movedim(1, -1)
        node = NODES["DNOImageSimilarityReward"]
        (terms,) = node.execute(encoder=host, reference=reference, weight=1.0).result
        node = NODES["DNOStyleSimilarityReward"]
        (style,) = node.execute(encoder=host, reference=reference, weight=1.0).result
    before = {name: id(weight) for name, weight in host.model.named_parameters()}
    _, history = run(parts, reward=terms | style, iterations=4).result[:2]
    first, *_, last = history.records
    assert (last.reward > first.reward).all()
    assert {name: id(weight) for name, weight in host.model.named_parameters()} == before


def test_something_else_is_refused_in_one_sentence():
    node = NODES["DNOImageSimilarityReward"]
    with pytest.raises(ValueError, match="encoder is of kind Linear; connect a CLIP or vision enc"):
        node.execute(encoder=torch.nn.Linear(1, 1), reference=picture(1).movedim(1, -1), weight=1.0)
