"""A local hub with one small CLIP, and Download Reward Model run against it."""

import json

import pytest
import torch
from safetensors.torch import save

from ComfyUI_DNO.nodes.host.judges import download
from ComfyUI_DNO.nodes.host.judges import hub as node_hub
from ComfyUI_DNO.nodes.reward_models import DNODownloadRewardModel
from ComfyUI_DNO.rewards.models.catalogue import by_label

from . import hub as hubs
from .tiny_models import clip_config, original_clip

NAME = "CLIP ViT-L/14"
PAGE = "openai/clip-vit-large-patch14"
LOAD = "clip-vit-large-patch14"
STEP = 2**16


@pytest.fixture(scope="module")
def clip_files():
    weights = {name: tensor.half() for name, tensor in original_clip().state_dict().items()}
    return {
        "config.json": json.dumps(clip_config().to_dict()).encode(),
        "model.safetensors": save(weights),
        "pytorch_model.bin": b"not wanted",
    }


@pytest.fixture
def hub(reward_folder, monkeypatch, clip_files):
    """A hub with one small CLIP, asked for 64 KB at a time."""
    monkeypatch.setattr(download, "_SMALLEST", STEP)
    monkeypatch.setattr(download, "_LARGEST", 16 * STEP)
    monkeypatch.setattr(node_hub, "_PAUSE", 0.01)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with hubs.running({PAGE: dict(clip_files)}) as (made, address):
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield made


def run(name=NAME, **inputs):
    with torch.inference_mode():
        return DNODownloadRewardModel.execute(model=by_label(name).label, **inputs).result[0]


def refusal(name=NAME, kind=RuntimeError, **inputs):
    with pytest.raises(kind) as caught:
        run(name, **inputs)
    said = str(caught.value)
    assert "\n" not in said and said.endswith("."), said
    return said


def held(folder):
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
