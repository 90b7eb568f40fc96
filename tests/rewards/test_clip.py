"""CLIP, PickScore and HPSv2 are those of transformers, OpenCLIP, hpsv2 and imscore.

Each original is built at small width with random weights, written in the layout in which its
weights are published, and read by our loader; scores agree to 1e-4, gradients to 1e-3 of theirs.
"""

import copy
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
import torchvision.transforms as T
from safetensors.torch import save_file
from torchvision.transforms import InterpolationMode
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

from ComfyUI_DNO.rewards import CLIPTextSimilarity, HPSv2, PickScore, models
from ComfyUI_DNO.rewards.models.clip import CLIP, CLIPVision, config_of
from ComfyUI_DNO.rewards.models.files import Stored, read
from ComfyUI_DNO.rewards.models.preprocess import CLIP_MEAN, CLIP_STD
from ComfyUI_DNO.rewards.models.words import repaired

from ..support.examples import picture
from ..support.originals import harsh, hpsv2_module, original, pil
from ..support.random_weights import hollow, randomise
from ..support.tiny_models import clip_tokenizer, original_clip

PROMPT = "Two red foxes, under a tree"
PROMPTS = [
    PROMPT,
    "a photograph of an astronaut riding a horse (highly detailed:1.2), 8k!",
    "Café — naïve  “quotes”\nand a new line",
    "don't you think it's 3:45 o'clock?",
    "fox " * 100,
    "a sign that says “it’s ‘open’” … ﬁne &amp; ｆｒｅｅ",
]
SIZES = [(224, 224), (256, 192), (100, 313), (40, 40)]
every_size = pytest.mark.parametrize("size", SIZES)


def saved(path, state):
    """Write weights as published files have them, and read them back as the loader does."""
    if path.suffix == ".safetensors":
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    else:
        torch.save(state, path)
    network = models.build(read(path))
    network.tokenizer = clip_tokenizer()
    return network


def assert_same(ours, theirs, image):
    """Rewards and gradients of (1,3,H,W)."""
    images = [image.clone().requires_grad_() for _ in range(2)]
    rewards = [reward(leaf) for reward, leaf in zip((ours, theirs), images, strict=True)]
    torch.testing.assert_close(rewards[0], rewards[1].reshape(1), atol=1e-4, rtol=1e-4)
    slopes = [torch.autograd.grad(s.sum(), x)[0] for s, x in zip(rewards, images, strict=True)]
    largest = slopes[1].abs().amax()
    assert largest > 0
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-3, atol=1e-3 * float(largest))


def crop(image):
    """torchvision's preprocessing of CLIP, on floats."""
    resized = T.Resize(224, InterpolationMode.BICUBIC)(image)
    return T.Normalize(CLIP_MEAN, CLIP_STD)(T.CenterCrop(224)(resized))


@pytest.fixture(scope="module")
def pretrained():
    """transformers' CLIP at 224 pixels."""
    network = original_clip(image_size=224, patch_size=32)
    torch.nn.init.constant_(network.logit_scale, 4.6)
    return network.requires_grad_(False)


@pytest.fixture(scope="module")
def loaded(pretrained, tmp_path_factory):
    """The same through our loader."""
    folder = tmp_path_factory.mktemp("clip")
    return saved(folder / "model.safetensors", pretrained.state_dict())


@every_size
def test_text_similarity_is_the_cosine_of_transformers(pretrained, loaded, size):
    tokens = clip_tokenizer()([PROMPT], padding=True, return_tensors="pt")

    def theirs(image):
        output = pretrained(pixel_values=crop(image), **tokens)
        return (output.image_embeds * output.text_embeds).sum(dim=1)

    assert_same(CLIPTextSimilarity(loaded, PROMPT), theirs, picture(1, *size))


def test_a_folder_with_its_config_is_the_same(pretrained, loaded, tmp_path):
    pretrained.save_pretrained(tmp_path)
    network = models.build(read(tmp_path))
    image = picture(1, 100, 80)
    assert torch.equal(network.image_embed(image), loaded.image_embed(image))
    network.tokenizer = clip_tokenizer()
    assert torch.equal(network.text_embed(PROMPTS), loaded.text_embed(PROMPTS))


def as_before(network):
    """A copy whose features are tensors, as imscore expects them and transformers 4 gave them."""
    network = copy.deepcopy(network)
    for name in ("get_text_features", "get_image_features"):
        method = getattr(network, name)

        def features(*args, method=method, **inputs):
            output = method(*args, **inputs)
            return getattr(output, "pooler_output", output)

        setattr(network, name, features)
    return network


@every_size
def test_pick_score_is_imscore_s(pretrained, loaded, size):
    package = original("imscore.pickscore.model")
    processor = CLIPProcessor(CLIPImageProcessor(), clip_tokenizer())
    with (
        patch.object(package.AutoProcessor, "from_pretrained", lambda name: processor),
        patch.object(package.CLIPModel, "from_pretrained", lambda name: as_before(pretrained)),
    ):
        theirs = package.PickScorer()
    network = models.build(
        Stored(Path("model.safetensors"), theirs.state_dict())
    )  # prefix "model."
    network.tokenizer = clip_tokenizer()
    for given in (network, loaded):
        assert_same(
            PickScore(given, PROMPT), lambda x: theirs.score(x, [PROMPT]), picture(1, *size)
        )


@pytest.mark.parametrize("size", [(224, 224), (300, 227), (231, 500)])
def test_pick_score_of_an_8_bit_picture_is_transformers_from_picture_and_prompt_on(
    pretrained, loaded, size
):
    image = harsh(*size)
    given = CLIPProcessor(CLIPImageProcessor(), clip_tokenizer())(
        images=pil(image[0]), text=[PROMPT], return_tensors="pt", padding=True
    )
    with torch.no_grad():
        theirs = pretrained(**given).logits_per_image[0]
    ours = PickScore(loaded, PROMPT)(image)
    torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-2)  # of -100 to 100; its rounding


@every_size
def test_text_similarity_is_imscore_s_clip_score_over_its_scale(pretrained, loaded, size):
    package = original("imscore.preference.model")
    tokenizer = clip_tokenizer()
    tokenizer.model_max_length = 77  # as in the folder of a CLIP
    processor = CLIPProcessor(CLIPImageProcessor(), tokenizer)
    with (
        patch.object(package.AutoProcessor, "from_pretrained", lambda name: processor),
        patch.object(package.AutoModel, "from_pretrained", lambda name: pretrained),
    ):
        theirs = package.CLIPScore("clip")
    theirs.tform.transforms[0].interpolation = InterpolationMode.BICUBIC  # it forgot CLIP's
    scale = float(pretrained.logit_scale.exp())
    assert_same(
        CLIPTextSimilarity(loaded, PROMPT),
        lambda x: theirs.score(x, [PROMPT]) / scale,
        picture(1, *size),
    )


def open_clip_network(package, **sizes):
    """OpenCLIP's own class, here with OpenAI's sizes of heads and activation."""
    vision = {"layers": 2, "width": 64, "head_width": 64, "patch_size": 32} | sizes
    text = {"layers": 2, "width": 64, "heads": 1}
    network = package.CLIP(
        32, package.CLIPVisionCfg(**vision), package.CLIPTextCfg(**text), quick_gelu=True
    )
    return randomise(network.eval().requires_grad_(False))


@every_size
def test_a_clip_of_open_clip_is_read_from_its_names(tmp_path, size):
    package = original("open_clip.model")
    torch.manual_seed(0)
    network = open_clip_network(package)
    loaded = saved(tmp_path / "open_clip_pytorch_model.bin", network.state_dict())
    tokens = original("open_clip").tokenize([PROMPT])

    def theirs(image):
        seen = network.encode_image(crop(image), normalize=True)
        return (seen * network.encode_text(tokens, normalize=True)).sum(dim=1)

    assert_same(CLIPTextSimilarity(loaded, PROMPT), theirs, picture(1, *size))
    tower = {n: t for n, t in network.state_dict().items() if n.startswith("visual.")}
    alone = models.build(Stored(Path("visual.safetensors"), tower))
    assert type(alone) is CLIPVision
    image = picture(1, *size)
    torch.testing.assert_close(alone.image_embed(image), loaded.image_embed(image))


def test_prompts_are_the_same_tokens_as_open_clip_s():
    theirs = original("open_clip").tokenize(PROMPTS)
    network = CLIP(original_clip(layers=1))
    network.tokenizer = clip_tokenizer()
    ours, end = network.tokenize(PROMPTS), 49407
    for mine, yours in zip(ours, theirs, strict=True):
        length = int((yours == end).nonzero()[0]) + 1  # beyond it they pad differently
        assert mine[:length].tolist() == yours[:length].tolist()


def test_letters_are_repaired_as_open_clip_repairs_them():
    cleaned = original("open_clip.tokenizer").basic_clean
    ranges = (range(0x20, 0x7F), range(0xA0, 0x3200), range(0xFB00, 0xFB07), range(0xFE00, 0x10000))
    letters = [f"a {chr(code)}b" for part in ranges for code in part]
    assert len(letters) > 12000
    marked = ["a\u0301 e", "&lt;b&gt; &amp;amp; x", "<b>&eacute;</b>", "line\r\nbreak", "😀"]
    for text in letters + marked:
        assert repaired(text).split() == cleaned(text).split()


@pytest.fixture(scope="module")
def preference():
    """hpsv2's own network with the widths of ViT-H-14, which say its heads and activation."""
    package = hpsv2_module("model")
    torch.manual_seed(0)
    vision = {"layers": 1, "width": 1280, "head_width": 80, "patch_size": 56}
    text = {"layers": 1, "width": 1024, "heads": 16}
    network = package.CLIP(
        64, package.CLIPVisionCfg(**vision), package.CLIPTextCfg(**text), output_dict=True
    )
    return randomise(network.eval().requires_grad_(False))


@pytest.fixture(scope="module")
def judge(preference, tmp_path_factory):
    """The same from HPSv2's pickle."""
    state = {"epoch": 3, "name": "hps", "state_dict": preference.state_dict(), "optimizer": {}}
    return saved(tmp_path_factory.mktemp("hps") / "HPS_v2.1_compressed.pt", state)


@pytest.mark.parametrize("size", [(225, 225), (256, 192), (100, 313), (40, 40)])
def test_hpsv2_is_the_original_s_from_an_8_bit_picture_and_prompt_on(preference, judge, size):
    prepare = hpsv2_module("transform").image_transform(224, False, resize_longest_max=True)
    image = harsh(*size)
    tokens = original("open_clip").tokenize([PROMPT])
    output = preference(prepare(pil(image[0]))[None], tokens)
    theirs = (output["image_features"] @ output["text_features"].T).diagonal()
    torch.testing.assert_close(HPSv2(judge, PROMPT)(image), theirs, atol=1e-4, rtol=0)


@pytest.mark.parametrize("size", [(225, 225), (256, 192), (100, 313)])
def test_hpsv2_and_its_gradient_are_imscore_s(preference, size):
    package = original("imscore.hps.model")
    created = (preference, None, None)
    with patch.object(package, "create_model_and_transforms", lambda *a, **k: created):
        theirs = package.HPSv2()
    network = models.build(
        Stored(Path("model.safetensors"), theirs.state_dict())
    )  # prefix "model."
    network.tokenizer = clip_tokenizer()
    assert_same(HPSv2(network, PROMPT), lambda x: theirs.score(x, [PROMPT]), picture(1, *size))


def published(name):
    """Sizes as in the published config.json, on which transformers' own class is built."""
    vision = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32,
              "num_attention_heads": 16, "patch_size": 14, "hidden_act": "gelu"}  # fmt: skip
    text = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
            "num_attention_heads": 16, "hidden_act": "gelu"}  # fmt: skip
    if name == "CLIP-L":
        vision |= {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
                   "hidden_act": "quick_gelu"}  # fmt: skip
        text |= {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
                 "num_attention_heads": 12, "hidden_act": "quick_gelu"}  # fmt: skip
    return vision, text, {"CLIP-H": 1024, "CLIP-L": 768}[name]


@pytest.mark.parametrize("name, weights", [("CLIP-H", 986_109_441), ("CLIP-L", 427_616_513)])
def test_the_published_sizes_are_recognised_by_names_and_shapes(name, weights):
    vision, text, joint = published(name)
    with torch.device("meta"):
        sizes = CLIPConfig(vision_config=vision, text_config=text, projection_dim=joint)
        network = CLIPModel(sizes)
    state = hollow(network)
    rebuilt = models.build(Stored(Path("file"), state))
    assert type(rebuilt) is CLIP
    assert sum(weight.numel() for weight in rebuilt.parameters()) == weights
    config = config_of(state)
    for ours, theirs in ((config.vision_config, vision), (config.text_config, text)):
        assert {key: getattr(ours, key) for key in theirs} == theirs


def test_open_clip_s_vit_h_14_is_read_as_clip_h():
    package = original("open_clip.model")
    vision = {"layers": 32, "width": 1280, "head_width": 80, "patch_size": 14}
    text = {"layers": 24, "width": 1024, "heads": 16}
    with torch.device("meta"):
        network = package.CLIP(1024, package.CLIPVisionCfg(**vision), package.CLIPTextCfg(**text))
    rebuilt = models.build(Stored(Path("HPS_v2.1_compressed.pt"), hollow(network)))
    assert type(rebuilt) is CLIP
    assert sum(weight.numel() for weight in rebuilt.parameters()) == 986_109_441
    sizes, _, _ = published("CLIP-H")
    assert {key: getattr(rebuilt.network.config.vision_config, key) for key in sizes} == sizes
