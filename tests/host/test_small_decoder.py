"""The small decoder that is there is named as Load VAE names it."""

import comfy.latent_formats as formats
import folder_paths
import nodes
import pytest
import torch

from ComfyUI_DNO.dno.objective import Weighted
from ComfyUI_DNO.nodes.host.picture.small import hint, small_decoder
from ComfyUI_DNO.nodes.host.progress import Progress
from ComfyUI_DNO.nodes.sampler import DNOSampler
from ComfyUI_DNO.rewards import Darkness

from ..support import tiny, vaes

FILES = ("taesdxl_decoder.safetensors", "taesdxl_encoder.safetensors", "taesd_decoder.pth")


@pytest.fixture
def approximations(tmp_path, monkeypatch):
    for name in FILES:
        (tmp_path / name).touch()
    kinds = folder_paths.folder_names_and_paths["vae_approx"][1]
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, "vae_approx", ([str(tmp_path)], kinds | {".pth"})
    )
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})


def test_what_is_there_is_found_for_its_latent_format(approximations):
    assert small_decoder(formats.SDXL()) == "taesdxl"
    assert "taesdxl" in nodes.VAELoader.INPUT_TYPES()["required"]["vae_name"][0]
    assert "taesdxl" in hint(formats.SDXL(), vaes.build("SD, SDXL"))


def test_half_of_it_or_none_is_not_named(approximations):
    assert small_decoder(formats.SD15()) is None  # no encoder, and Load VAE wants both
    assert small_decoder(formats.Flux()) is None
    assert small_decoder(formats.LTXV()) is None
    assert hint(formats.Flux(), vaes.build("Flux")) == ""


@pytest.mark.parametrize("small", [False, True], ids=["the full decoder", "the small decoder"])
def test_the_node_tells_of_it_unless_it_climbs_with_it(approximations, monkeypatch, small):
    told = []
    for name in ("picture", "finish"):
        monkeypatch.setattr(Progress, name, lambda self, image, text, strip=None: told.append(text))
    model = tiny.unet()
    model.model.latent_format = formats.SDXL()
    with torch.inference_mode():
        DNOSampler.execute(
            model, tiny.conditioning(1), tiny.conditioning(2), {"samples": torch.zeros(1, 4, 8, 8)},
            tiny.vae() if small else vaes.build("SD, SDXL"), {"dark": Weighted(1.0, Darkness())}, 5,
            steps=2, cfg=3.0, sampler_name="euler", scheduler="normal", denoise=1.0,
            learning_rate=0.1, iterations=1,
        )  # fmt: skip
    assert len(told) == 3 and not any("ecoding" in text for text in told)  # it fits as a whole
    assert all(("taesdxl" in text) is not small for text in told)
