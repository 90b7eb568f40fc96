"""A folder of reward models for a test, and what is put into it."""

import json
from functools import cache
from pathlib import Path

import comfy.model_management as management
import folder_paths
import pytest
import torch
from safetensors.torch import save_file

from ComfyUI_DNO.nodes.reward_models import DNOLoadRewardModel

from .tiny_models import clip_config, original_clip


@pytest.fixture
def reward_folder(tmp_path, monkeypatch):
    """models/reward_models of this ComfyUI, for one test: empty, and not there at first."""
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    monkeypatch.delitem(folder_paths.folder_names_and_paths, "reward_models", raising=False)
    yield tmp_path / "models" / "reward_models"
    management.unload_all_models()
    folder_paths.folder_names_and_paths.pop("reward_models", None)


def write_clip(path: Path, change=lambda weights: weights, **sizes) -> Path:
    """A small CLIP in the layout of transformers, as one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.clone() for name, tensor in _clip(*sizes.items()).items()}
    save_file(change(weights), path)
    return path


@cache
def _clip(*sizes):
    return original_clip(**dict(sizes)).state_dict()


def write_clip_folder(path: Path) -> Path:
    """A small CLIP as a folder of Hugging Face."""
    write_clip(path / "model.safetensors")
    (path / "config.json").write_text(json.dumps(clip_config().to_dict()))
    return path


def load(name, **inputs):
    """As ComfyUI runs the node, in inference mode."""
    with torch.inference_mode():
        return DNOLoadRewardModel.execute(name=name, **inputs).result[0]


def refusal(name):
    """The one sentence with which the node refuses a file."""
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load(name)
    said = str(caught.value)
    assert "\n" not in said and said.endswith("."), said
    return said
