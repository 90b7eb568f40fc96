"""MPS equals the original's port in imscore."""

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import transformers
from transformers import CLIPConfig

from ComfyUI_DNO.dno.sharing import sharing
from ComfyUI_DNO.rewards import MPS, PickScore, models
from ComfyUI_DNO.rewards.models.building import _WithoutStorage
from ComfyUI_DNO.rewards.models.files import Stored, read
from ComfyUI_DNO.rewards.models.mps import MPSModel

from ..support.examples import picture
from ..support.random_weights import hollow
from ..support.tiny_models import clip_tokenizer, original_mps
from ..support.tiny_preferences import ported_mps

PROMPT = "two red  foxes\nunder a tree, Zürich"
SIZES = ((230, 250), (224, 224), (100, 61))


class Exact(torch.Tensor):
    """Is not rounded to half precision, as the original rounds pictures on their way."""

    def half(self):
        return self


@pytest.fixture(scope="module")
def original():
    """Random, except that the second and the fifth word of PROMPT are unlike the condition."""
    network = original_mps().requires_grad_(False)
    reader, projection = network.mps.model.text_model, network.mps.model.text_projection
    tokens = network._tokenize([network.condition, PROMPT])
    rows = reader(tokens).last_hidden_state.flatten(0, 1)
    wanted, weight = torch.ones(2, len(rows), 1)
    wanted[[77 + 2, 77 + 5]], weight[[77 + 2, 77 + 5]] = -1, 10
    projection.weight *= 0.02
    projection.weight[:1] = torch.linalg.lstsq(rows * weight, wanted * weight).solution.T
    return network


def loaded(weights) -> MPSModel:
    network = models.build(Stored(Path("mps.safetensors"), weights))
    network.tokenizer = clip_tokenizer()
    return network


@pytest.fixture(scope="module")
def model(original):
    return loaded(original.state_dict())


@pytest.mark.parametrize("size", SIZES)
def test_score_and_gradient_are_the_original_s(model, original, size):
    image = picture(2, *size).requires_grad_()
    reward = MPS(model, PROMPT)(image)
    theirs = original.score(image.as_subclass(Exact), [PROMPT] * 2).as_subclass(torch.Tensor)
    torch.testing.assert_close(reward, theirs, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(reward.sum(), image)
    (wanted,) = torch.autograd.grad(theirs.sum(), image)
    assert wanted.abs().max() > 1e-5
    assert (gradient - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_score_is_the_original_s_up_to_its_rounding_to_half_precision(model, original):
    image = picture(2, 240, 200)
    theirs = original.score(image, [PROMPT] * 2)
    torch.testing.assert_close(MPS(model, PROMPT)(image), theirs, rtol=1e-3, atol=1e-3)


def test_words_unlike_the_condition_are_not_looked_at(model, original):
    condition = original.mps.model.get_text_features(original._tokenize([original.condition]))[0]
    words = original.mps.model.get_text_features(original._tokenize([PROMPT]))[0]
    likeness = (words @ condition.mT).amax(dim=2)
    prompt = model.text_embed(PROMPT)
    assert torch.equal(prompt.seen[:, 0], likeness / likeness.max() > 0.01)
    assert 0 < (~prompt.seen).sum() < 9  # of these weights, which transformers 4 and 5 draw apart
    image = picture(1, 224, 224)
    every = prompt._replace(seen=torch.ones_like(prompt.seen))
    assert (model.reward(image, every) - model.reward(image, prompt)).abs() > 1e-3


def test_names_as_the_original_network_has_them_are_the_same(model, original):
    bare = original.mps.state_dict()
    assert "cross_model.layers.0.0.fn.to_q.weight" in bare
    image = picture(1)
    for prefix in ("", "module."):
        same = loaded({prefix + name: tensor for name, tensor in bare.items()})
        torch.testing.assert_close(MPS(same, PROMPT)(image), MPS(model, PROMPT)(image))


def test_places_stay_exact_in_half_precision(original, model):
    half = loaded(original.state_dict()).half()
    torch.testing.assert_close(half.cross.turns, model.cross.turns, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_and_climbs_alike(original, model, dtype):
    gradients, rewards = [], []
    for network in (model, loaded(original.state_dict()).to(dtype)):
        image = picture(1, 224, 224).requires_grad_()
        reward = MPS(network, PROMPT)(image)
        gradients += torch.autograd.grad(reward.sum(), image)
        rewards.append(reward)
    loose = 20 if transformers.__version__ >= "5" else 10  # of a hundred times the cosine
    torch.testing.assert_close(*rewards, rtol=0, atol=loose * torch.finfo(dtype).eps)
    assert torch.cosine_similarity(*(one.flatten() for one in gradients), dim=0) > 0.99


def test_names_and_shapes_of_the_published_size_fit():
    huge = CLIPConfig(
        text_config={
            "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
            "num_attention_heads": 16, "hidden_act": "gelu",
        },
        vision_config={
            "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32,
            "num_attention_heads": 16, "patch_size": 14, "hidden_act": "gelu",
        },
        projection_dim=1024,
    )  # fmt: skip
    with _WithoutStorage():
        theirs = ported_mps(huge, clip_tokenizer(), dim=1024, layer_num=4, heads=16)
    model = loaded(hollow(theirs))
    assert isinstance(model, MPSModel)
    assert model.clip.preprocess.size == 224
    vision, text = model.clip.network.vision_model.config, model.clip.network.text_model.config
    assert (vision.num_attention_heads, text.num_attention_heads) == (16, 16)
    assert vision.hidden_act == text.hidden_act == "gelu"
    biases = 8 * 1024  # of the norms, which are no parameters in the original
    assert count(model) == count(theirs) + biases


def count(network):
    return sum(weight.numel() for weight in network.parameters())


def test_layers_are_computed_again_in_backward_and_what_is_seen_is_shared(model):
    calls = []
    parts = model.clip.network.vision_model.encoder.layers[0].mlp, model.cross.layers[0].at_words
    hooks = [part.register_forward_pre_hook(lambda p, _: calls.append(p)) for part in parts]
    image = picture(1, 224, 224).requires_grad_()
    with sharing():
        total = sum(MPS(model, text)(image) for text in ("a fox", "a tree"))
    assert [calls.count(part) for part in parts] == [1, 2]
    total.sum().backward()
    assert [calls.count(part) for part in parts] == [2, 4]
    for hook in hooks:
        hook.remove()


def test_a_file_without_a_weight_is_refused(original):
    weights = original.state_dict()
    for name in ("mps.cross_model.layers.1.1.fn.attn_out.weight", "mps.model.logit_scale"):
        part = {n: tensor for n, tensor in weights.items() if n != name}
        with pytest.raises(ValueError, match="This (MPS|CLIP) file is incomplete: .*missing"):
            loaded(part)
    cross = {name: tensor for name, tensor in weights.items() if "cross_model" in name}
    with pytest.raises(ValueError, match="This MPS file is incomplete: it has no CLIP"):
        loaded(cross)


def test_the_published_pickle_of_a_whole_network_is_refused(tmp_path, monkeypatch):
    module = ModuleType("trainer.models.clip_model")
    module.CLIPModel = type("CLIPModel", (torch.nn.Linear,), {"__module__": module.__name__})
    for name in ("trainer", "trainer.models", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    file = tmp_path / "MPS_overall_checkpoint.pth"
    torch.save(module.CLIPModel(2, 2), file)
    with pytest.raises(ValueError, match="pickled code.*get it as safetensors from RE-N-Y/mpsv1"):
        read(file)


def test_it_is_no_clip_to_other_rewards(model):
    with pytest.raises(ValueError, match="model is of kind MPS; connect a CLIP model"):
        PickScore(model, PROMPT)
