"""The small decoder that is there is named as Load VAE names it."""

import comfy.latent_formats as formats
import folder_paths
import nodes
import pytest

from ComfyUI_DNO.nodes.host.picture.small import hint, small_decoder

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
    assert "taesdxl" in hint(formats.SDXL())


def test_half_of_it_or_none_is_not_named(approximations):
    assert small_decoder(formats.SD15()) is None  # no encoder, and Load VAE wants both
    assert small_decoder(formats.Flux()) is None
    assert small_decoder(formats.LTXV()) is None
    assert hint(formats.Flux()) == ""
