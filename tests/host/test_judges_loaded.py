"""Large reward models in the published layouts, loaded as ComfyUI's, and their nodes."""

import json

import comfy.latent_formats
import comfy.model_management as management
import folder_paths
import pytest
import torch
from safetensors.torch import save_file

from ComfyUI_DNO.dno.objective import Weighted
from ComfyUI_DNO.nodes.host.judges import reward_folders, reward_models
from ComfyUI_DNO.nodes.rewards import NODES as REWARD_NODES
from ComfyUI_DNO.nodes.sampler import DNOSampler
from ComfyUI_DNO.rewards import LRM

from ..support import tiny
from ..support.examples import picture
from ..support.tiny_judges import tiny_clip_flant5, tiny_hpsv3, tiny_lrm
from ..support.tiny_models import tiny as tiny_model

PROMPT = "a red fox"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    monkeypatch.delitem(folder_paths.folder_names_and_paths, "reward_models", raising=False)
    yield tmp_path / "reward_models"
    management.unload_all_models()
    folder_paths.folder_names_and_paths.pop("reward_models", None)


def write_hpsv3(folder):
    folder.mkdir()
    save_file(tiny_hpsv3(), folder / "HPSv3.safetensors")


def write_clip_flant5(folder):
    """As on its page, with a tokenizer of its own, which is not needed."""
    where = folder / "clip-flant5-xl"
    where.mkdir(parents=True)
    torch.save(tiny_clip_flant5(), where / "pytorch_model.bin")
    (where / "config.json").write_text(json.dumps({"model_type": "clip_t5"}))
    (where / "spiece.model").write_bytes(b"not read")


def write_lrm(folder):
    state, configs = tiny_lrm()
    where = folder / "lrm_sd15"
    for part, config in configs.items():
        (where / part).mkdir(parents=True)
        tensors = {n.partition(".")[2]: t for n, t in state.items() if n.startswith(f"{part}.")}
        name = "diffusion_pytorch_model" if part == "unet" else "model"
        save_file(tensors, where / part / f"{name}.safetensors")
        (where / part / "config.json").write_text(json.dumps(config))
    rest = {p: {"weight": state[f"{p}.weight"]} for p in ("visual_projection", "text_projection")}
    torch.save(rest | {"logit_scale": 2.6592}, where / "state_dict.pt")


KINDS = {
    "HPSv3.safetensors": (write_hpsv3, "DNOHPSv3Reward", picture(1)),
    "clip-flant5-xl": (write_clip_flant5, "DNOVQAScoreReward", picture(1)),
    "lrm_sd15": (write_lrm, "DNOLRMReward", torch.randn(1, 4, 16, 16)),
}


@pytest.mark.parametrize("name", KINDS)
def test_is_listed_by_one_name_loaded_by_comfyui_and_scores(folder, name):
    write, node_id, seen = KINDS[name]
    write(folder)
    assert reward_folders.names() == [name]
    network = reward_models.load(reward_folders.path_of(name))
    assert network.patcher.model is network
    node = next(node for node in REWARD_NODES if node.__name__ == node_id)
    widgets = {i.id: i.default for i in node.GET_SCHEMA().inputs if hasattr(i, "default")}
    (terms,) = node.execute(**{**widgets, "model": network, "prompt": PROMPT}).result
    assert network.patcher in [loaded.model for loaded in management.current_loaded_models]
    (term,) = terms.values()
    seen = seen.clone().requires_grad_()
    term.function(seen).sum().backward()
    assert seen.grad.abs().sum() > 0


def test_the_head_of_hpsv3_stays_as_exact_as_its_file(folder):
    write_hpsv3(folder)
    network = reward_models.load(folder / "HPSv3.safetensors", torch.bfloat16)
    dtypes = {name: weight.dtype for name, weight in network.named_parameters()}
    head = {name for name in dtypes if "rm_head" in name}
    assert {dtypes[name] for name in head} == {torch.float32}
    assert {dtype for name, dtype in dtypes.items() if name not in head} == {torch.bfloat16}
    reward_models.bring_in(network)
    assert network.network.rm_head[0].weight.dtype == torch.float32


def test_comfyui_moves_it_outside_of_inference_mode(folder):
    write_lrm(folder)
    network, modes = reward_models.load(folder / "lrm_sd15"), []
    move = network._apply

    def moved(*arguments, **named):
        modes.append(torch.is_inference_mode_enabled())
        return move(*arguments, **named)

    network._apply = moved
    with torch.inference_mode():
        reward_models.bring_in(network)
        management.unload_all_models()
    assert len(modes) >= 2
    assert not any(modes)


@pytest.mark.parametrize("format", ["SD15", "SDXL"])
def test_lrm_climbs_in_the_sampler_and_sees_the_latent_as_the_unet_made_it(format):
    model = tiny.unet()
    model.model.latent_format = getattr(comfy.latent_formats, format)()
    reward = LRM(tiny_model("LRM"), PROMPT)
    latent = {"samples": torch.zeros(2, 4, 8, 8)}
    with torch.inference_mode():
        output = DNOSampler.execute(
            model, tiny.conditioning(1), tiny.conditioning(2), latent, tiny.vae(),
            {"LRM": Weighted(1.0, reward)}, 5, steps=3, cfg=3.0, sampler_name="euler",
            scheduler="normal", denoise=1.0, learning_rate=0.05, iterations=4,
        )  # fmt: skip
    out, history = output.result[0]["samples"].clone(), output.result[1]
    rewards = reward(out * model.model.latent_format.scale_factor)
    torch.testing.assert_close(rewards, history.best.reward, rtol=1e-3, atol=1e-3)
    assert (history.best.reward > history.records[0].reward + 0.01).all()
