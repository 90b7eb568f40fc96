"""VQAScore equals the original of the package t2v_metrics, which computes it for 8-bit pictures."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
)

from ComfyUI_DNO.dno.sharing import sharing
from ComfyUI_DNO.rewards import VQAScore, models
from ComfyUI_DNO.rewards.models.files import Stored, read
from ComfyUI_DNO.rewards.models.vqa import VQA, square

from ..support.examples import picture
from ..support.random_weights import hollow, randomise
from ..support.tiny_judges import T5_SIZES, TOWER_SIZES, t5_tokenizer

PROMPT = "two red  foxes\nunder a tree"


@pytest.fixture(scope="module")
def package():
    """The original's network, without the rest of its package and what that needs."""
    where = importlib.util.find_spec("t2v_metrics")
    if where is None:
        pytest.skip("t2v_metrics is not installed: python run.py test installs it.")
    folder = Path(where.submodule_search_locations[0]) / "models/vqascore_models/clip_t5"
    spec = importlib.util.spec_from_file_location("clip_t5", folder / "__init__.py")
    sys.modules["clip_t5"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["clip_t5"])
    return importlib.import_module("clip_t5.model")


@pytest.fixture(scope="module")
def original(package, tmp_path_factory):
    """With random weights, at a small width, and its vocabulary cut as when it is loaded."""
    tower = tmp_path_factory.mktemp("tower")
    torch.manual_seed(0)
    CLIPVisionModel(CLIPVisionConfig(**TOWER_SIZES)).save_pretrained(tower)
    side = TOWER_SIZES["image_size"]
    CLIPImageProcessor(size={"shortest_edge": side}, crop_size=side).save_pretrained(tower)
    config = package.CLIPT5Config(
        **T5_SIZES, mm_vision_tower=str(tower), mm_hidden_size=64, mm_projector_type="mlp2x_gelu",
        mm_vision_select_layer=-2, mm_vision_select_feature="patch",
    )  # fmt: skip
    network = package.CLIPT5ForConditionalGeneration(config).eval()
    return randomise(network.requires_grad_(False))


@pytest.fixture(scope="module")
def published(original):
    """Its weights before the cut, as the file has them."""
    return {as_published(n): tensor.clone() for n, tensor in original.state_dict().items()}


def as_published(name):
    """transformers 5 has no vision_model inside of a CLIPVisionModel."""
    outer = "vision_tower.vision_tower."
    return name.replace(outer, f"{outer}vision_model.") if "vision_model." not in name else name


def loaded(weights, config=None) -> VQA:
    network = models.build(Stored(Path("file"), weights, config or {}))
    network.tokenizer = t5_tokenizer()
    return network


def original_score(original, pixels, prompt):
    """As t2v_metrics computes it, from preprocessed pixels (1,3,S,S)."""
    question = f'Does this figure show "{prompt}"? Please answer yes or no.'
    system = (
        "A chat between a curious user and an artificial intelligence assistant. The assistant "
        "gives helpful, detailed, and polite answers to the user's questions."
    )
    words = t5_tokenizer()
    chunks = [words(part).input_ids for part in (f"{system} USER: ", f"\n{question} ASSISTANT: ")]
    tokens, labels = torch.tensor([chunks[0] + [-200] + chunks[1]]), words("Yes").input_ids
    labels = torch.tensor([labels])
    original.resize_token_embeddings(len(words))
    logits = original(
        input_ids=tokens, attention_mask=tokens.ne(0), labels=labels, images=pixels,
        decoder_attention_mask=labels.ne(-100), use_cache=False, return_dict=True,
    ).logits  # fmt: skip
    return (-torch.nn.functional.cross_entropy(logits[0], labels[0])).exp()


def eight_bit(height, width):
    return (picture(1, height, width) * 255).round() / 255


def original_pixels(image):
    """Padded with the mean colour as 8-bit, then by CLIP's own image processor."""
    height, width = image.shape[-2:]
    side = max(height, width)
    bits = Image.fromarray((image[0].permute(1, 2, 0) * 255).round().byte().numpy())
    canvas = Image.new("RGB", (side, side), (122, 116, 104))
    canvas.paste(bits, ((side - width) // 2, (side - height) // 2))
    size = TOWER_SIZES["image_size"]
    process = CLIPImageProcessor(size={"shortest_edge": size}, crop_size=size)
    return process.preprocess(canvas, return_tensors="pt")["pixel_values"]


@pytest.mark.parametrize("size", [(64, 64), (40, 71), (71, 40), (12, 9)])
def test_preprocessing_is_the_original_s_up_to_8_bit_rounding(published, size):
    image = eight_bit(*size)
    ours = loaded(published).preprocess(square(image))
    assert (ours - original_pixels(image)).abs().max() < 1.6 / 255 / 0.26


@pytest.mark.parametrize("scale", ["probability", "log-probability"])
def test_score_and_gradient_are_the_original_s(published, original, package, scale, monkeypatch):
    model, image = loaded(published), picture(2, 42, 42).requires_grad_()
    reward = VQAScore(model, PROMPT, scale)(image)
    (gradient,) = torch.autograd.grad(reward.sum(), image)
    tower = type(original.get_vision_tower())
    monkeypatch.setattr(tower, "forward", tower.forward.__wrapped__)  # without its no_grad
    pixels = model.preprocess(image)
    theirs = torch.stack([original_score(original, one[None], PROMPT) for one in pixels])
    theirs = theirs if scale == "probability" else theirs.log()
    torch.testing.assert_close(reward, theirs, rtol=1e-4, atol=1e-7)
    (wanted,) = torch.autograd.grad(theirs.sum(), image)
    assert (gradient - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_score_of_an_8_bit_picture_is_the_original_s(published, original):
    image = eight_bit(60, 33)
    theirs = original_score(original, original_pixels(image), PROMPT).log()
    ours = VQAScore(loaded(published), PROMPT, "log-probability")(image)
    other = VQAScore(loaded(published), PROMPT, "log-probability")(1 - image)
    assert 10 * (ours - theirs).abs() < (other - ours).abs()


def test_a_folder_in_shards_with_its_config_is_the_same(published, tmp_path):
    parts = [dict(list(published.items())[start::2]) for start in (0, 1)]
    names = [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]
    where = {key: name for name, part in zip(names, parts, strict=True) for key in part}
    for name, part in zip(names, parts, strict=True):
        torch.save(part, tmp_path / name)
    index = json.dumps({"weight_map": where})
    (tmp_path / "pytorch_model.bin.index.json").write_text(index)
    config = {**T5_SIZES, "model_type": "clip_t5", "mm_vision_select_layer": -2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    folder, image = models.build(read(tmp_path)), picture(1, 30, 42)
    folder.tokenizer = t5_tokenizer()
    rewards = [VQAScore(one, PROMPT)(image) for one in (folder, loaded(published))]
    torch.testing.assert_close(*rewards)


def test_the_names_of_imscore_s_file_are_known(published):
    def renamed(name):
        towers = name.replace("vision_tower.vision_tower.", "v.")
        return towers if towers.startswith(("v.", "mm_projector.")) else f"t5.{name}"

    other = loaded({renamed(name): tensor for name, tensor in published.items()})
    image = picture(1, 30, 42)
    rewards = [VQAScore(one, PROMPT)(image) for one in (other, loaded(published))]
    torch.testing.assert_close(*rewards)


def test_layers_are_computed_again_in_backward_and_features_shared(published):
    model, calls = loaded(published), []
    model.network.vision.encoder.layers[0].mlp.register_forward_pre_hook(
        lambda *_: calls.append(torch.is_grad_enabled())
    )
    image = picture(1, 42, 42).requires_grad_()
    with sharing():
        total = sum(VQAScore(model, text)(image) for text in ("a fox", "a car"))
    assert len(calls) == 1
    total.sum().backward()
    assert len(calls) == 2


@pytest.mark.parametrize(
    "width, inner, heads", [(2048, 5120, 32), (4096, 10240, 64)], ids=["xl", "xxl"]
)
def test_names_and_shapes_of_the_published_sizes_fit(package, width, inner, heads, monkeypatch):
    sight = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
        image_size=336, patch_size=14,
    )  # fmt: skip
    tower = sys.modules["clip_t5.model.multimodal_encoder.clip_encoder"]
    monkeypatch.setattr(
        tower.CLIPVisionTower, "load_model",
        lambda self: setattr(self, "vision_tower", CLIPVisionModel(sight)),
    )  # fmt: skip
    sizes = {"d_model": width, "d_kv": 64, "num_heads": heads, "d_ff": inner, "num_layers": 24}
    with torch.device("meta"):
        theirs = package.CLIPT5ForConditionalGeneration(
            package.CLIPT5Config(
                **{**T5_SIZES, **sizes, "num_decoder_layers": 24}, mm_vision_tower="openai/",
                mm_hidden_size=1024, mm_vision_select_layer=-2, mm_projector_type="mlp2x_gelu",
            )
        )  # fmt: skip
    weights = {as_published(name): tensor for name, tensor in hollow(theirs).items()}
    model = loaded(weights)
    assert isinstance(model, VQA)
    assert model.preprocess.size == 336
    last = "vision_tower.vision_tower.vision_model.encoder.layers.23."
    used = [
        t for n, t in weights.items() if not n.endswith("embed_tokens.weight") and last not in n
    ]
    spare = 2 * 28 * width  # words, of shared and lm_head
    ours = sum(weight.numel() for weight in model.parameters())
    assert ours == sum(tensor.numel() for tensor in used) - spare


def test_weights_without_the_vision_tower_are_refused(published):
    part = {n: t for n, t in published.items() if not n.startswith("vision_tower")}
    with pytest.raises(ValueError, match="no vision tower"):
        loaded(part)
