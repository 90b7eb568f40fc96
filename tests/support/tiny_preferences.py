"""ImageReward and MPS of the packages image-reward and imscore, at small width.

Their classes are used as they are: only sizes that are written in them are others here, and their
vocabulary is a small one.
"""

import importlib
import json
import string
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from transformers import (
    BertConfig,
    BertTokenizer,
    CLIPConfig,
    modeling_utils,
    pytorch_utils,
)

from ComfyUI_DNO.nodes.host.judges import tokenizers

from .random_weights import randomise

_LETTERS = string.ascii_lowercase
VOCABULARY = (
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_LETTERS, *(f"##{c}" for c in _LETTERS)),
    *(".", ",", "-", "two", "red", "fox", "##es", "under", "a", "tree"),
)
VIT_SIZES = {"embed_dim": 128, "depth": 2, "num_heads": 2}
BERT_SIZES = {
    "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": len(VOCABULARY) + 2,
    "max_position_embeddings": 64, "layer_norm_eps": 1e-12, "add_cross_attention": True,
    "hidden_act": "gelu", "type_vocab_size": 2, "pad_token_id": 0,
}  # fmt: skip
CROSS_SIZES = {"dim": 32, "layer_num": 2, "heads": 2, "dim_head": 16}

_WRAPPER = "fairscale.nn.checkpoint.checkpoint_activations"
_MOVED = ("apply_chunking_to_forward", "find_pruneable_heads_and_indices", "prune_linear_layer")


def write_vocabulary(path: Path) -> None:
    """A small vocab.txt, made like that of bert-base-uncased."""
    path.write_text("\n".join(VOCABULARY) + "\n", encoding="utf-8")


def bert_tokenizer(kind=None):
    """Our own, or one of transformers, with those words."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "vocab.txt"
        write_vocabulary(file)
        return kind(str(file)) if kind else tokenizers.bert_tokenizer(file, len(VOCABULARY))


@contextmanager
def image_reward_package() -> Iterator[ModuleType]:
    """`ImageReward.ImageReward` alone: the package's own start wants much that this does not.

    Functions that transformers has moved since are where they were; fairscale's
    checkpoint_wrapper, which is imported and not used, is torch's.
    """
    if not all(hasattr(pytorch_utils, name) for name in _MOVED):
        pytest.skip("image-reward itself does not run on this transformers")
    folder = Path(find_spec("ImageReward").submodule_search_locations[0])
    shells = {"ImageReward": [str(folder)], "ImageReward.models": [str(folder / "models")]}
    fairscale = "fairscale", "fairscale.nn", "fairscale.nn.checkpoint", _WRAPPER
    for name, paths in (shells | dict.fromkeys(fairscale, [])).items():
        sys.modules[name] = ModuleType(name)
        sys.modules[name].__path__ = paths
    sys.modules[_WRAPPER].checkpoint_wrapper = checkpoint_wrapper
    with ExitStack() as stack:
        for name in _MOVED:
            there = getattr(pytorch_utils, name)
            stack.enter_context(patch.object(modeling_utils, name, there, create=True))
        stack.enter_context(
            patch.object(BertTokenizer, "from_pretrained", lambda _: bert_tokenizer(BertTokenizer))
        )
        yield importlib.import_module("ImageReward.ImageReward")
    for name in [n for n in sys.modules if n.split(".")[0] in ("ImageReward", "fairscale")]:
        del sys.modules[name]


def image_reward(side=224) -> nn.Module:
    """image-reward's, with random weights and a small picture encoder and vocabulary."""
    with image_reward_package() as package, TemporaryDirectory() as folder:
        blip = sys.modules["ImageReward.models.BLIP.blip_pretrain"]
        vit = sys.modules["ImageReward.models.BLIP.vit"].VisionTransformer
        sizes = {**BERT_SIZES, "hidden_size": 768, "num_attention_heads": 12}
        file = Path(folder) / "med_config.json"
        file.write_text(json.dumps(sizes))
        torch.manual_seed(0)
        with patch.object(blip, "create_vit", lambda *_: (vit(side, **VIT_SIZES), 128)):
            return randomise(package.ImageReward(med_config=str(file)).eval())


def ported_image_reward(width=64, side=224) -> nn.Module:
    """imscore's, whose weights RE-N-Y/ImageReward has."""
    port = importlib.import_module("imscore.imreward.model")
    head = port.MLP

    class BLIP(nn.Module):
        def __init__(self, image_size):
            super().__init__()
            heads = width // 64
            sizes = {**BERT_SIZES, "hidden_size": width, "num_attention_heads": heads}
            self.visual_encoder = port.VisionTransformer(side, **VIT_SIZES)
            self.text_encoder = port.BertModel(BertConfig(**sizes, encoder_width=128))
            self.vision_proj, self.text_proj = nn.Linear(128, 24), nn.Linear(width, 24)
            self.tokenizer = bert_tokenizer(BertTokenizer)

    torch.manual_seed(0)
    with patch.object(port, "BLIP", BLIP), patch.object(port, "MLP", lambda _: head(width)):
        return randomise(port.ImageReward().eval())


def ported_mps(config: CLIPConfig, tokenizer, **cross) -> nn.Module:
    """imscore's, whose weights RE-N-Y/mpsv1 has."""
    port = importlib.import_module("imscore.mps.model")
    made, kinds = port.CrossModel, (port.XCLIPModel, port.AutoTokenizer)
    tokenizer.model_max_length = 77  # as that of the original
    torch.manual_seed(0)
    with (
        patch.object(port, "CrossModel", lambda **_: made(**cross)),
        patch.object(kinds[0], "from_pretrained", lambda _: kinds[0](config)),
        patch.object(kinds[1], "from_pretrained", lambda *_, **__: tokenizer),
    ):
        network = port.MPS().eval()
    for tower in (network.mps.model.text_model, network.mps.model.vision_model):
        tower.forward = partial(_without_return_dict, tower.forward)
    return network


def _without_return_dict(forward, *arguments, return_dict=None, **keywords):
    """transformers does not take it any more; the result can be indexed as before."""
    return forward(*arguments, **keywords)
