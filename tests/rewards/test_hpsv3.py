"""HPSv3 equals the original (as the package imscore carries it) and sees pictures as Qwen2-VL."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import (
    AutoProcessor,
    Qwen2TokenizerFast,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from ComfyUI_DNO.dno.sharing import sharing
from ComfyUI_DNO.rewards import HPSv3, models
from ComfyUI_DNO.rewards.models.files import Stored, read
from ComfyUI_DNO.rewards.models.hpsv3 import HPSv3 as Network
from ComfyUI_DNO.rewards.models.qwen import fitted, prepare

from ..support.examples import picture
from ..support.random_weights import hollow, randomise
from ..support.tiny_judges import (
    WORDS,
    hpsv3_head,
    older_names,
    qwen_config,
    qwen_tokenizer,
    shipped,
    tiny_hpsv3,
)

PIXELS = 256 * 28 * 28
PROMPT = "cute chibi  anime fox,\nsmiling {tail} 狐"
CHAT = (  # what Qwen2-VL's own template makes of one question about a picture
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def processor():
    """Qwen2-VL's: the 14 special words of Qwen2-VL, where Qwen2.5's tokenizer has more."""
    folder = Path(shipped("text_encoders/qwen25_tokenizer"))
    names = json.loads((folder / "tokenizer_config.json").read_text())
    special = [names["added_tokens_decoder"][str(i)]["content"] for i in range(151643, 151657)]
    files = [str(folder / name) for name in ("vocab.json", "merges.txt")]
    tokenizer = Qwen2TokenizerFast(*files, unk_token=None, padding_side="right")
    tokenizer.add_special_tokens({"additional_special_tokens": special})
    seers = Qwen2VLImageProcessor(), tokenizer, Qwen2VLVideoProcessor()
    processor = Qwen2VLProcessor(*seers, chat_template=CHAT)
    assert len(tokenizer) == WORDS - 1
    return processor


@pytest.fixture(scope="module")
def original(processor):
    """The original's class with random weights at a small width, in the state it is used in."""
    source = pytest.importorskip("imscore.hpsv3.model")
    patch = pytest.MonkeyPatch()
    patch.setattr(AutoProcessor, "from_pretrained", lambda *_, **__: processor)
    if not hasattr(source.HPSv3, "visual"):  # transformers 5, for which it was not written
        words = property(lambda self: self.model.language_model)
        look = property(lambda self: lambda *a, **n: self.model.visual(*a, **n).pooler_output)
        patch.setattr(source.HPSv3, "language_model", words, raising=False)
        patch.setattr(source.HPSv3, "visual", look, raising=False)
    torch.manual_seed(0)
    network = source.HPSv3(qwen_config())
    network.rm_head = hpsv3_head(128, (24, 16))
    randomise(network.eval().requires_grad_(False))
    for part in network.modules():  # MizzenAI's loads and trains it after model.to(bfloat16)
        if hasattr(part, "inv_freq"):
            part.inv_freq = part.inv_freq.bfloat16()
    yield network
    patch.undo()


def loaded(weights, config=None) -> Network:
    network = models.build(Stored(Path("file"), weights, config or {}))
    network.tokenizer = qwen_tokenizer()
    return network


def prepared(original, images, prompt):
    """What its own code makes of pictures and prompt, less what transformers 5 adds."""
    batch = original.prepare(list(images), [prompt] * len(images))
    return {name: part for name, part in batch.items() if name != "mm_token_type_ids"}


def eight_bit(height, width):
    return (picture(1, height, width) * 255).round() / 255


@pytest.mark.parametrize("size", [(1024, 1024), (768, 1344), (64, 40), (448, 448), (9, 500)])
def test_sizes_and_patches_are_those_of_qwen2_vl_s_image_processor(size):
    bits = Image.fromarray((eight_bit(*size)[0].permute(1, 2, 0) * 255).round().byte().numpy())
    theirs = Qwen2VLImageProcessor(min_pixels=PIXELS, max_pixels=PIXELS)(bits, return_tensors="pt")
    ours, shape = prepare(eight_bit(*size), PIXELS)
    assert [1, *shape] == theirs["image_grid_thw"][0].tolist()
    assert ours[0].shape == theirs["pixel_values"].shape
    assert (ours[0] - theirs["pixel_values"]).abs().max() < 1.1 / 255 / 0.26


def test_a_picture_that_fits_is_given_on_exactly():
    image = eight_bit(448, 448)
    bits = (image[0] * 255).round().byte()
    theirs = Qwen2VLImageProcessor(min_pixels=PIXELS, max_pixels=PIXELS)(bits, return_tensors="pt")
    torch.testing.assert_close(prepare(image, PIXELS)[0][0], theirs["pixel_values"])


def test_a_picture_too_long_is_refused():
    with pytest.raises(ValueError, match="2001 x 10 is too long"):
        fitted(10, 2001, PIXELS)


@pytest.mark.parametrize("names", ["older", "newer"])
def test_score_and_gradient_are_the_original_s(original, names):
    weights = original.state_dict()
    model = loaded(older_names(weights) if names == "older" else weights)
    image = picture(2, 60, 84).requires_grad_()
    reward = HPSv3(model, PROMPT)(image)
    (gradient,) = torch.autograd.grad(reward.sum(), image)
    batch = prepared(original, image.detach(), PROMPT)
    patches, _ = prepare(image, PIXELS)
    theirs = original(**{**batch, "pixel_values": patches.flatten(0, 1)})["logits"][:, 0]
    torch.testing.assert_close(reward, theirs, rtol=1e-4, atol=1e-5)
    (wanted,) = torch.autograd.grad(theirs.sum(), image)
    assert (gradient - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_score_of_an_8_bit_picture_is_the_original_s_from_picture_and_prompt_on(original):
    model, image = loaded(original.state_dict()), eight_bit(448, 448)
    batch = prepared(original, image + 1e-5, PROMPT)  # it rounds down to 8 bits
    theirs = original(**batch)["logits"][:, 0]
    torch.testing.assert_close(HPSv3(model, PROMPT)(image), theirs, rtol=1e-4, atol=1e-5)
    assert (HPSv3(model, "a car")(image) - theirs).abs() > 1e-3


def test_gradient_is_that_of_finite_differences(original):
    reward, image = HPSv3(loaded(original.state_dict()), PROMPT), picture(1, 448, 448)
    image.requires_grad_()
    (gradient,) = torch.autograd.grad(reward(image).sum(), image)
    step = 1e-2 * gradient / gradient.norm()
    with torch.no_grad():
        risen = reward(image + step) - reward(image - step)
    torch.testing.assert_close(risen[0], 2 * (gradient * step).sum(), rtol=0.02, atol=0)


def test_half_precision_keeps_the_head_and_the_angles_as_they_were(original):
    model = loaded(original.state_dict()).to(torch.bfloat16)
    parts = model.network
    assert parts.rm_head[0].weight.dtype == torch.float32
    assert parts.model.language_model.layers[0].mlp.up_proj.weight.dtype == torch.bfloat16
    angles = (parts.model.language_model.rotary_emb, parts.model.visual.rotary_pos_emb)
    before = [part.inv_freq.clone() for part in angles]
    half = HPSv3(model, PROMPT)(picture(1, 60, 84))
    model.to(torch.float32)
    assert all(part.inv_freq.dtype == torch.bfloat16 for part in angles)
    assert all(torch.equal(part.inv_freq, was) for part, was in zip(angles, before, strict=True))
    assert half.dtype == torch.float32
    whole = HPSv3(loaded(original.state_dict()), PROMPT)(picture(1, 60, 84))
    assert (half - whole).abs() < 0.1


def test_layers_are_computed_again_in_backward_and_features_shared(original):
    model, calls = loaded(original.state_dict()), []
    model.network.model.visual.blocks[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    image = picture(1, 60, 84).requires_grad_()
    with sharing():
        total = sum(HPSv3(model, text)(image) for text in ("a fox", "a car"))
    assert len(calls) == 1
    total.sum().backward()
    assert len(calls) == 2


def test_a_folder_with_its_config_is_the_same(tmp_path):
    weights = tiny_hpsv3()
    save_file(weights, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(qwen_config(layers=1, depth=1).to_dict()))
    folder, image = models.build(read(tmp_path)), picture(1, 60, 84)
    folder.tokenizer = qwen_tokenizer()
    rewards = [HPSv3(one, PROMPT)(image) for one in (folder, loaded(weights))]
    torch.testing.assert_close(*rewards)


def test_names_and_shapes_of_the_published_size_fit(processor, monkeypatch):
    """Qwen2-VL-7B, whose words were cut to the tokenizer's when HPSv3 added its own."""
    source = pytest.importorskip("imscore.hpsv3.model")
    monkeypatch.setattr(AutoProcessor, "from_pretrained", lambda *_, **__: processor)
    with torch.device("meta"):
        theirs = source.HPSv3(qwen_config(3584, 18944, 28, (28, 4), 32, 1280))
    model = loaded(older_names(hollow(theirs)))
    assert isinstance(model, Network)
    counts = [sum(w.numel() for w in one.parameters()) for one in (model, theirs)]
    assert counts[0] == counts[1] - WORDS * 3584  # less the word head


def test_weights_without_the_reward_s_word_are_refused():
    weights = tiny_hpsv3()
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"][:-1]
    with pytest.raises(ValueError, match="lacks the word"):
        loaded(weights)
