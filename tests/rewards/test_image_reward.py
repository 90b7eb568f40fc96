"""ImageReward equals that of the package image-reward, and of imscore."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import BertTokenizer

from ComfyUI_DNO.dno.sharing import sharing
from ComfyUI_DNO.nodes.host.judges import reward_models, tokenizers
from ComfyUI_DNO.rewards import ImageReward, models
from ComfyUI_DNO.rewards.models.building import _WithoutStorage
from ComfyUI_DNO.rewards.models.files import Stored, read
from ComfyUI_DNO.rewards.models.image_reward import ImageRewardModel

from ..support.examples import picture
from ..support.random_weights import hollow
from ..support.tiny_preferences import (
    BERT_SIZES,
    VOCABULARY,
    bert_tokenizer,
    image_reward,
    image_reward_package,
    ported_image_reward,
    write_vocabulary,
)

PROMPT = "Two red  foxes\nunder a tree, Zürich"
SIZES = ((230, 250), (224, 224), (100, 61))


@pytest.fixture(scope="module")
def original():
    return image_reward().requires_grad_(False)


def loaded(weights) -> ImageRewardModel:
    network = models.build(Stored(Path("ImageReward.pt"), weights))
    network.tokenizer = bert_tokenizer()
    return network


@pytest.fixture(scope="module")
def model(original):
    return loaded(original.state_dict())


def original_score(original, pixels, prompt):
    """With a gradient, as its package trains with it."""
    words = bert_tokenizer(BertTokenizer)(
        [prompt] * len(pixels), padding="max_length", truncation=True, max_length=35,
        return_tensors="pt",
    )  # fmt: skip
    return original.score_gard(words.input_ids, words.attention_mask, pixels)[:, 0]


@pytest.mark.parametrize("size", SIZES)
def test_score_and_gradient_are_the_original_s(model, original, size):
    image = picture(2, *size).requires_grad_()
    reward = ImageReward(model, PROMPT)(image)
    theirs = original_score(original, model.preprocess(image), PROMPT)
    torch.testing.assert_close(reward, theirs, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(reward.sum(), image)
    (wanted,) = torch.autograd.grad(theirs.sum(), image)
    assert wanted.abs().max() > 1e-4
    assert (gradient - wanted).abs().max() < 1e-4 * wanted.abs().max()


@pytest.mark.parametrize("size", SIZES)
def test_score_of_an_8_bit_picture_is_the_original_s(model, original, size):
    image = (picture(1, *size) * 255).round() / 255
    bits = Image.fromarray((image[0].movedim(0, -1) * 255).round().byte().numpy())
    reward = ImageReward(model, PROMPT)
    theirs, ours, other = original.score(PROMPT, bits), reward(image), reward(1 - image)
    assert 20 * (ours - theirs).abs() < (other - ours).abs()


def test_score_and_gradient_are_those_of_imscore():
    port = ported_image_reward().requires_grad_(False)
    image = picture(2, 240, 300).requires_grad_()
    reward = ImageReward(loaded(port.state_dict()), PROMPT)(image)
    theirs = port.score(image, [PROMPT] * 2)[:, 0]
    torch.testing.assert_close(reward, theirs, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(reward.sum(), image)
    (wanted,) = torch.autograd.grad(theirs.sum(), image)
    assert (gradient - wanted).abs().max() < 1e-4 * wanted.abs().max()


@pytest.mark.parametrize(
    "prompt", ["a", PROMPT, "Red. fox-tree, " * 30, "ÉTÉ [SEP] 狐 a\tb" + "x" * 120]
)
def test_words_are_those_of_the_original(model, original, prompt):
    theirs = original.blip.tokenizer(
        prompt, padding="max_length", truncation=True, max_length=35, return_tensors="pt"
    )
    ids, mask = model.tokenize(prompt)
    assert torch.equal(ids, theirs.input_ids) and torch.equal(mask, theirs.attention_mask)


def test_the_prompt_matters_and_its_padding_does_not(model):
    image = picture(1, 224, 224)
    fox, tree = (ImageReward(model, text)(image) for text in ("a red fox", "a tree"))
    assert (fox - tree).abs() > 1e-3
    ids, mask = model.tokenize("a red fox")
    cut = int(mask.sum())
    alone = model.reward(image, (ids[:, :cut], mask[:, :cut]))
    torch.testing.assert_close(alone, fox, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_and_climbs_alike(original, model, dtype):
    gradients, rewards = [], []
    for network in (model, loaded(original.state_dict()).to(dtype)):
        image = picture(1, 224, 224).requires_grad_()
        reward = ImageReward(network, PROMPT)(image)
        gradients += torch.autograd.grad(reward.sum(), image)
        rewards.append(reward)
    torch.testing.assert_close(*rewards, rtol=0, atol=10 * torch.finfo(dtype).eps)
    assert torch.cosine_similarity(*(one.flatten() for one in gradients), dim=0) > 0.99


def test_names_and_shapes_of_the_published_size_fit(tmp_path):
    published = {
        "hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12,
        "num_hidden_layers": 12, "max_position_embeddings": 512, "vocab_size": 30524,
    }  # fmt: skip
    file = tmp_path / "med_config.json"
    file.write_text(json.dumps({**BERT_SIZES, **published}))
    with _WithoutStorage(), image_reward_package() as package:
        theirs = package.ImageReward(med_config=str(file))
    model = loaded(hollow(theirs))
    assert isinstance(model, ImageRewardModel)
    assert (model.preprocess.size, model.vocabulary) == (224, 30522)
    assert model.network.vision.config.num_attention_heads == 16
    assert model.network.text.config.num_attention_heads == 12
    unused = count(theirs.blip.vision_proj) + count(theirs.blip.text_proj)
    assert count(model) == count(theirs) - unused == 446_206_689


def count(network):
    return sum(weight.numel() for weight in network.parameters())


def test_layers_are_computed_again_in_backward_and_what_is_seen_is_shared(model):
    calls = []
    parts = model.network.vision.encoder.layers[0].mlp, model.network.text.encoder.layer[0].output
    hooks = [part.register_forward_pre_hook(lambda p, _: calls.append(p)) for part in parts]
    image = picture(1, 224, 224).requires_grad_()
    with sharing():
        total = sum(ImageReward(model, text)(image) for text in ("a fox", "a tree"))
    assert [calls.count(part) for part in parts] == [1, 2]
    total.sum().backward()
    assert [calls.count(part) for part in parts] == [2, 4]
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("name", ["blip.text_encoder.encoder.layer.1.output.dense.bias"])
def test_a_file_without_a_weight_is_refused(original, name):
    weights = {n: tensor for n, tensor in original.state_dict().items() if n != name}
    with pytest.raises(ValueError, match="This ImageReward file is incomplete: text.*missing"):
        loaded(weights)


@pytest.mark.parametrize("vocabulary", ["ImageReward.vocab.txt", "bert-base-uncased/vocab.txt"])
def test_the_vocabulary_lies_beside_the_published_file(original, model, tmp_path, vocabulary):
    file = tmp_path / "ImageReward.pt"
    torch.save(original.state_dict(), file)
    with pytest.raises(FileNotFoundError, match="get vocab.txt from .*bert-base-uncased"):
        reward_models.load(file)
    (tmp_path / vocabulary).parent.mkdir(exist_ok=True)
    write_vocabulary(tmp_path / vocabulary)
    image = picture(1)
    rewards = [ImageReward(one, PROMPT)(image) for one in (reward_models.load(file), model)]
    torch.testing.assert_close(*rewards, rtol=0, atol=0)


@pytest.mark.parametrize("words", [VOCABULARY[:-1], ("fox",) * len(VOCABULARY)])
def test_another_vocabulary_is_refused(model, tmp_path, words):
    (tmp_path / "bert-base-uncased").mkdir()
    (tmp_path / "bert-base-uncased" / "vocab.txt").write_text("\n".join(words))
    with pytest.raises(ValueError, match="vocab.txt does not hold the 67 words of BERT: get it"):
        tokenizers.tokenizer_of(model, tmp_path / "ImageReward.pt")


def test_a_folder_with_its_vocabulary_is_read(model, tmp_path):
    folder = tmp_path / "ImageReward"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    torch.save(ported_image_reward().state_dict(), folder / "pytorch_model.bin")
    write_vocabulary(folder / "vocab.txt")
    network = models.build(read(folder))
    network.tokenizer = tokenizers.tokenizer_of(network, folder)
    assert torch.equal(network.tokenize(PROMPT)[0], model.tokenize(PROMPT)[0])
