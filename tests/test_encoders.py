"""SigLIP, DINOv2 and vision towers are transformers' own; CLIP_VISION is ComfyUI's own."""

import pytest
import torch
from torch.nn.functional import normalize
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    SiglipConfig,
    SiglipModel,
)

from ComfyUI_DNO.nodes import rewards as nodes
from ComfyUI_DNO.nodes.host import reward_models
from ComfyUI_DNO.nodes.host.clip_vision import ComfyVision, as_encoder
from ComfyUI_DNO.rewards import CLIPTextSimilarity, ImageSimilarity, models
from ComfyUI_DNO.rewards.models.clip import CLIPVision
from ComfyUI_DNO.rewards.models.dinov2 import DINOv2
from ComfyUI_DNO.rewards.models.files import Stored, read
from ComfyUI_DNO.rewards.models.siglip import SigLIP, SigLIPVision

from .examples import picture
from .originals import in_8_bits
from .random_weights import hollow
from .tiny_encoders import (
    host_original,
    host_vision,
    original_clip_vision,
    original_dinov2,
    original_siglip,
    original_siglip_vision,
    seeded,
)
from .tiny_judges import t5_tokenizer

HOSTS = ["clip", "siglip", "dinov2"]
every_host = pytest.mark.parametrize("kind", HOSTS)


def gated_dinov2():
    return original_dinov2(use_swiglu_ffn=True)


def dinov2_with_registers():
    sizes = original_dinov2().config.to_dict() | {"num_register_tokens": 3}
    return seeded(lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**sizes)))


def tower(network):
    return getattr(network, "vision_model", network)


def original_embed(network, pixels):
    if isinstance(network, SiglipModel):
        return network.get_image_features(pixel_values=pixels)
    found = network(pixel_values=pixels)
    return found.image_embeds if hasattr(found, "image_embeds") else found.pooler_output


ORIGINALS = {
    "CLIP vision": (original_clip_vision, CLIPVision, 1),
    "SigLIP": (original_siglip, SigLIP, 0),
    "SigLIP vision": (original_siglip_vision, SigLIPVision, 0),
    "DINOv2": (original_dinov2, DINOv2, 1),
    "gated DINOv2": (gated_dinov2, DINOv2, 1),
    "DINOv2 with registers": (dinov2_with_registers, DINOv2, 4),
}


@pytest.mark.parametrize("name", ORIGINALS)
@pytest.mark.parametrize("stored_as", ["file", "folder"])
def test_embeddings_patches_and_gradients_are_those_of_transformers(name, stored_as, tmp_path):
    make, kind, others = ORIGINALS[name]
    theirs = make()
    if stored_as == "folder":
        theirs.save_pretrained(tmp_path)
        ours = models.build(read(tmp_path))
    else:
        ours = models.build(Stored("file", theirs.state_dict()))
    assert type(ours) is kind
    image, given = (picture(2, 50, 71).requires_grad_() for _ in range(2))
    pixels = ours.preprocess(given)
    embed, wanted = ours.image_embed(image), normalize(original_embed(theirs, pixels), dim=-1)
    assert embed.shape[1] == ours.width
    torch.testing.assert_close(embed, wanted, atol=1e-5, rtol=1e-4)
    slopes = [
        torch.autograd.grad((e[:, ::2] * 3).sum(), x)[0]
        for e, x in ((embed, image), (wanted, given))
    ]
    torch.testing.assert_close(*slopes, atol=1e-3 * float(slopes[1].abs().amax()), rtol=1e-3)
    hidden = tower(theirs)(pixel_values=pixels, output_hidden_states=True).hidden_states
    hidden = hidden or vision_states(theirs, pixels)
    for found, layer in zip(ours.patches(image), (1, 2, 3), strict=True):
        torch.testing.assert_close(found, hidden[layer][:, others:], atol=1e-4, rtol=1e-3)


def vision_states(network, pixels):
    """Of a SigLIP with both towers, whose vision part alone does not record them."""
    states = [tower(network).embeddings(pixels)]
    for layer in tower(network).encoder.layers:
        found = layer(states[-1], None)
        states.append(found[0] if isinstance(found, tuple) else found)
    return states


def test_text_similarity_by_siglip_is_transformers():
    original, words = original_siglip(), t5_tokenizer()
    network = models.build(Stored("file", original.state_dict()))
    network.tokenizer = words
    prompt = "two red foxes under a tree, " * 5  # is cut off at the tower's 16 places
    tokens = words([prompt], padding="max_length", max_length=16, truncation=True)
    assert len(tokens.input_ids[0]) == 16
    image = picture(2)
    ids = torch.tensor(tokens.input_ids)
    found = original(pixel_values=network.preprocess(image), input_ids=ids)
    wanted = (found.image_embeds * found.text_embeds).sum(dim=1)
    ours = CLIPTextSimilarity(network, prompt)(image)
    torch.testing.assert_close(ours, wanted, atol=1e-4, rtol=0)


def test_a_siglip_without_its_words_compares_pictures_and_says_what_texts_need(tmp_path):
    original_siglip().save_pretrained(tmp_path)
    network = reward_models.load(tmp_path / "model.safetensors")
    assert ImageSimilarity(network, picture(1))(picture(1)).isfinite()
    with pytest.raises(ValueError, match="load it as the Hugging Face folder"):
        CLIPTextSimilarity(network, "a fox")


def test_a_siglip_without_its_pooling_head_has_the_mean_of_its_patches():
    original = original_siglip_vision()
    weights = {n: t for n, t in original.state_dict().items() if ".head." not in n}
    network, image = models.build(Stored("file", weights)), picture(2)
    assert not network.pooled
    mean = original(pixel_values=network.preprocess(image)).last_hidden_state.mean(dim=1)
    torch.testing.assert_close(network.image_embed(image), normalize(mean, dim=-1))


def published_siglip():
    sizes = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27,
             "num_attention_heads": 16}  # fmt: skip
    config = SiglipConfig(
        text_config=sizes, vision_config=sizes | {"image_size": 384, "patch_size": 14}
    )
    return SiglipModel(config), {"image_size": 384, **sizes}


def published_dinov2():
    sizes = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
             "image_size": 518, "patch_size": 14, "layer_norm_eps": 1e-6}  # fmt: skip
    return Dinov2Model(Dinov2Config(**sizes)), sizes


@pytest.mark.parametrize("published, kind, millions", [
    (published_siglip, SigLIP, 878), (published_dinov2, DINOv2, 304),
])  # fmt: skip
def test_the_published_sizes_are_recognised_by_names_and_shapes(published, kind, millions):
    with torch.device("meta"):
        original, sizes = published()
    found = models.build(Stored("file", hollow(original)))
    assert type(found) is kind
    weights, theirs = (sum(w.numel() for w in n.parameters()) for n in (found, original))
    assert weights == theirs and round(weights / 1e6) == millions
    config = tower(found.network).config
    assert {name: getattr(config, name) for name in sizes} == sizes
    assert config.hidden_act == tower(original).config.hidden_act


@every_host
def test_clip_vision_embeds_as_comfyui_does_without_rounding(kind):
    host = host_vision(kind)
    encoder = as_encoder(host)
    side = host.image_size
    image = in_8_bits(picture(2, side, side))  # as it is, nothing is resized or rounded
    found = host.encode_image(image.movedim(1, -1)).image_embeds
    wanted = normalize(found.mean(dim=1) if kind == "siglip" else found, dim=-1)
    torch.testing.assert_close(encoder.image_embed(image), wanted, atol=1e-5, rtol=1e-4)
    assert encoder.width == wanted.shape[1]
    other = picture(1, 2 * side, 4 * side)
    found = host.encode_image(other.movedim(1, -1), crop=kind != "siglip").image_embeds
    wanted = normalize(found.mean(dim=1) if kind == "siglip" else found, dim=-1)
    torch.testing.assert_close(encoder.image_embed(other), wanted, atol=5e-3, rtol=0)


@every_host
def test_clip_vision_has_transformers_patches(kind):
    encoder, original = as_encoder(host_vision(kind)), host_original(kind)
    image = picture(1, 60, 60)
    found = original(pixel_values=encoder.preprocess(image), output_hidden_states=True)
    others = 0 if kind == "siglip" else 1
    for ours, layer in zip(encoder.patches(image), (1, 2, 3), strict=True):
        theirs = found.hidden_states[layer][:, others:]
        torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=1e-2)  # ComfyUI's are fp16


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_clip_vision_passes_an_exact_gradient_though_its_layers_write_in_place(kind):
    encoder = as_encoder(host_vision(kind))
    image = picture(1, 8, 6, dtype=torch.float64).requires_grad_()

    def score(x):
        patches = torch.stack([tokens.square().mean() for tokens in encoder.patches(x)])
        return encoder.image_embed(x)[:, ::2].sum() + patches.sum()

    assert torch.autograd.gradcheck(score, image, eps=1e-6, atol=1e-6, rtol=1e-4)


def test_clip_vision_of_dinov2_passes_the_gradient_of_transformers():
    encoder, original = as_encoder(host_vision("dinov2")), host_original("dinov2")
    image = picture(1, 60, 80).requires_grad_()
    pixels = encoder.preprocess(image)
    ours = encoder.image_embed(image)[:, ::2].sum()
    theirs = normalize(original(pixel_values=pixels).pooler_output, dim=-1)[:, ::2].sum()
    slopes = [torch.autograd.grad(score, image, retain_graph=True)[0] for score in (ours, theirs)]
    torch.testing.assert_close(*slopes, atol=1e-3 * float(slopes[1].abs().amax()), rtol=1e-3)


@every_host
def test_clip_vision_keeps_little_and_leaves_the_host_s_model_as_it_was(kind):
    host = host_vision(kind)
    encoder = as_encoder(host)
    before = host.encode_image(picture(1).movedim(1, -1)).image_embeds
    image = picture(1).requires_grad_()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        score = encoder.image_embed(image).sum()
    per_layer = [
        t for t in kept if t.ndim == 3 and t.shape[1:] == encoder.patches(image)[0].shape[1:]
    ]
    assert len(kept) < 40
    assert len(per_layer) < 16  # 4 layers keep their inputs; recorded, each keeps more than 10
    torch.autograd.grad(score, image)
    assert all("forward" not in vars(part) for part in host.model.modules())
    assert not any(part._forward_hooks for part in host.model.modules())
    assert torch.equal(host.encode_image(picture(1).movedim(1, -1)).image_embeds, before)


def test_the_same_clip_vision_is_the_same_encoder_and_other_things_stay_what_they_are():
    host = host_vision("clip")
    assert as_encoder(host) is as_encoder(host)
    assert isinstance(as_encoder(host), ComfyVision)
    assert as_encoder(host).patcher is host.patcher
    assert as_encoder("text") == "text"


NODES = {node.__name__: node for node in nodes.NODES}


@pytest.mark.parametrize("reward", ["ImageSimilarity", "StyleSimilarity", "Aesthetic"])
def test_a_node_takes_both_links(reward):
    from comfy_execution.validation import validate_node_input

    found = NODES[f"DNO{reward}Reward"].GET_NODE_INFO_V1()["input"]
    socket = (found["required"] | found.get("optional", {}))["encoder"][0]
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
        assert term.score(picture(2)).shape == (2,)


def test_something_else_is_refused_in_one_sentence():
    node = NODES["DNOImageSimilarityReward"]
    with pytest.raises(ValueError, match="encoder is of kind Linear; connect a CLIP or vision enc"):
        node.execute(encoder=torch.nn.Linear(1, 1), reference=picture(1).movedim(1, -1), weight=1.0)
