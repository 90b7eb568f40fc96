"""SigLIP, DINOv2 and vision towers of CLIP are those of transformers."""

from pathlib import Path

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

from ComfyUI_DNO.nodes.host.judges import reward_models
from ComfyUI_DNO.rewards import CLIPTextSimilarity, ImageSimilarity, models
from ComfyUI_DNO.rewards.models.clip import CLIPVision
from ComfyUI_DNO.rewards.models.dinov2 import DINOv2
from ComfyUI_DNO.rewards.models.files import Stored, read
from ComfyUI_DNO.rewards.models.siglip import SigLIP, SigLIPVision

from ..support.examples import picture
from ..support.random_weights import hollow
from ..support.tiny_encoders import (
    original_clip_vision,
    original_dinov2,
    original_siglip,
    original_siglip_vision,
    published,
    seeded,
)
from ..support.tiny_judges import t5_tokenizer


def gated_dinov2():
    return original_dinov2(use_swiglu_ffn=True)


def dinov2_with_registers():
    sizes = original_dinov2().config.to_dict() | {"num_register_tokens": 3}
    return seeded(lambda: Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**sizes)))


def tower(network):
    return getattr(network, "vision_model", network)


def original_embed(network, pixels):
    if isinstance(network, SiglipModel):
        output = network.get_image_features(pixel_values=pixels)
        return getattr(output, "pooler_output", output)
    output = network(pixel_values=pixels)
    return output.image_embeds if hasattr(output, "image_embeds") else output.pooler_output


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
        ours = models.build(Stored(Path("file"), published(theirs)))
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
    for patches, layer in zip(ours.patches(image), (1, 2, 3), strict=True):
        torch.testing.assert_close(patches, hidden[layer][:, others:], atol=1e-4, rtol=1e-3)


def vision_states(network, pixels):
    """Of a SigLIP with both towers, whose vision part alone does not record them."""
    states = [tower(network).embeddings(pixels)]
    for layer in tower(network).encoder.layers:
        output = layer(states[-1], None)
        states.append(output[0] if isinstance(output, tuple) else output)
    return states


def test_text_similarity_by_siglip_is_transformers():
    original, words = original_siglip(), t5_tokenizer()
    network = models.build(Stored(Path("file"), published(original)))
    network.tokenizer = words
    prompt = "two red foxes under a tree, " * 5  # is cut off at the tower's 16 places
    tokens = words([prompt], padding="max_length", max_length=16, truncation=True)
    assert len(tokens.input_ids[0]) == 16
    image = picture(2)
    ids = torch.tensor(tokens.input_ids)
    output = original(pixel_values=network.preprocess(image), input_ids=ids)
    wanted = (output.image_embeds * output.text_embeds).sum(dim=1)
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
    weights = {n: t for n, t in published(original).items() if ".head." not in n}
    network, image = models.build(Stored(Path("file"), weights)), picture(2)
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
    rebuilt = models.build(Stored(Path("file"), hollow(original)))
    assert type(rebuilt) is kind
    weights, theirs = (sum(w.numel() for w in n.parameters()) for n in (rebuilt, original))
    assert weights == theirs and round(weights / 1e6) == millions
    config = tower(rebuilt.network).config
    assert {name: getattr(config, name) for name in sizes} == sizes
    assert config.hidden_act == tower(original).config.hidden_act


def test_a_tower_that_was_written_alone_is_read_as_the_published_one():
    image = picture(1)
    for make, kind in ((original_siglip_vision, SigLIPVision), (original_clip_vision, CLIPVision)):
        weights = published(make())
        alone = {n.removeprefix("vision_model."): t for n, t in weights.items()}
        alone.pop("visual_projection.weight", None)
        weights.pop("visual_projection.weight", None)
        networks = [models.build(Stored(Path("file"), state)) for state in (weights, alone)]
        assert type(networks[0]) is type(networks[1]) is kind
        assert torch.equal(*(network.image_embed(image) for network in networks))
