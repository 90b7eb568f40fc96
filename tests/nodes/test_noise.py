"""Noise looked at, mixed, saved and loaded."""

from __future__ import annotations

import json

import comfy.samplers
import folder_paths
import numpy as np
import pytest
import torch
from comfy_extras.nodes_custom_sampler import Noise_RandomNoise, SamplerCustomAdvanced

from ComfyUI_DNO.dno.noise import Noise
from ComfyUI_DNO.dno.slerp import slerp
from ComfyUI_DNO.nodes.drawing.spectrum import ring_powers
from ComfyUI_DNO.nodes.host.noise_files import load
from ComfyUI_DNO.nodes.host.sampling.replay import FixedNoise
from ComfyUI_DNO.nodes.noise import (  # fmt: skip
    DNOInspectNoise,
    DNOLoadNoise,
    DNOMixNoise,
    DNOSaveNoise,
    as_noise,
)
from ComfyUI_DNO.nodes.options import Options
from ComfyUI_DNO.nodes.sampler import DNOSampler
from ComfyUI_DNO.nodes.verdict import verdict

from ..support import tiny
from ..support.histories import history_of
from ..support.toy import normal

LATENT = {"samples": torch.zeros(1, 4, 16, 16)}


@pytest.fixture(autouse=True)
def output(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    return tmp_path


def test_fresh_noise_is_gaussian():
    text, probability = verdict(
        Noise(normal(1, 4, 32, 32, seed=10), [normal(1, 4, 32, 32, seed=20)])
    )
    assert text.startswith("Image 0: Gaussian") and probability > 0.05


@pytest.mark.parametrize(
    "spoil, word",
    [
        (lambda z: z * 1.3, "mean and variance are off"),
        (lambda z: z + 0.3, "mean and variance are off"),
        (lambda z: z + torch.linspace(-0.5, 0.5, 32), "hides in its frequencies"),
        (lambda z: z / 0, "NaN or infinity"),
    ],
)
def test_other_noise_is_told(spoil, word):
    z = normal(1, 4, 32, 32)
    z = (z - z.mean()) / z.std()
    spoilt = spoil(z)
    if "hides" in word:
        spoilt = (spoilt - spoilt.mean()) / spoilt.std()
    assert word in verdict(Noise(spoilt))[0]


def test_the_spectrum_of_white_noise_lies_at_one():
    power, spread = ring_powers(Noise(normal(2, 16, 32, 32), [normal(2, 16, 32, 32, seed=1)]))
    assert ((power - 1) / spread).abs().max() < 4.5
    assert ((power - 1) / spread).std() == pytest.approx(1, abs=0.3)


@pytest.mark.parametrize("kind", ["noise", "latent", "history", "random"])
def test_any_noise_is_inspected(kind):
    if kind == "noise":
        given, latent = FixedNoise(normal(1, 4, 16, 16), 7), None
    elif kind == "latent":
        given, latent = {"samples": normal(1, 4, 16, 16)}, None
    elif kind == "history":
        given, latent = history_of([0.1], [0.2]), None
    else:
        given, latent = Noise_RandomNoise(3), LATENT
    with torch.inference_mode():
        plot, text, probability = DNOInspectNoise.execute(given, 256, 128, latent).result
    assert plot.shape == (1, 128, 256, 3) and plot.std() > 0
    assert text.startswith("Image 0") and 0 <= probability <= 1
    assert np.isfinite(plot.numpy()).all()


def test_a_noise_without_a_size_is_told():
    with pytest.raises(ValueError, match="connect the latent"):
        as_noise(Noise_RandomNoise(3))


def test_slerp_is_the_arc():
    a, b = normal(2, 4, 8, 8), normal(2, 4, 8, 8, seed=1)
    a, b = (16 * t / t.flatten(1).norm(dim=1).reshape(2, 1, 1, 1) for t in (a, b))
    torch.testing.assert_close(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b)
    middle = slerp(a, b, 0.5)
    torch.testing.assert_close(middle.flatten(1).norm(dim=1), torch.full((2,), 16.0))
    torch.testing.assert_close(middle, slerp(b, a, 0.5))
    torch.testing.assert_close(slerp(a, a, 0.3), a)
    with pytest.raises(ValueError, match="of one size"):
        slerp(a, b[:, :1], 0.5)


def test_mixed_noise_stays_a_noise():
    (mixed,) = DNOMixNoise.execute(Noise_RandomNoise(1), Noise_RandomNoise(2), 0.3).result
    drawn = mixed.generate_noise(LATENT)
    assert mixed.seed == 1 and drawn.shape == LATENT["samples"].shape
    assert drawn.std() == pytest.approx(1, abs=0.1)


class Ramp:
    differentiable = True

    def __call__(self, image):
        return (image * torch.linspace(1, -1, image.shape[-1]).to(image)).mean((1, 2, 3)) * 10


def test_a_saved_noise_replays_its_picture(output):
    from ComfyUI_DNO.dno.objective import Weighted

    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    with torch.inference_mode():
        model, vae = tiny.unet(tiny.ModelType.FLOW), tiny.vae()
        outputs = DNOSampler.execute(
            model, tiny.conditioning(1), tiny.conditioning(2), latent, vae,
            {"ramp": Weighted(1.0, Ramp())}, 5, 3, 3.0, "euler_ancestral", "normal", 1.0, -1, 0.05,
            options=Options(), effort="one pass",
        ).result  # fmt: skip
        (name,) = DNOSaveNoise.execute(outputs[1], "my noise").result
        assert name == "my noise_00001.safetensors" and (output / "dno_noise" / name).exists()
        (second,) = DNOSaveNoise.execute(outputs[1], "my noise").result
        assert second == "my noise_00002.safetensors"
        sampler = comfy.samplers.sampler_object("euler_ancestral")
        noise, replay, prompt = DNOLoadNoise.execute(name, sampler).result
        assert json.loads(prompt) == {}
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(tiny.conditioning(1), tiny.conditioning(2))
        guider.set_cfg(3.0)
        sigmas = tiny.sigmas(model, "euler_ancestral", 3)
        replayed = SamplerCustomAdvanced.execute(noise, guider, replay, sigmas, latent)[0]
    assert torch.equal(replayed["samples"], outputs[0]["samples"])


def test_files_of_another_kind_are_told(output):
    import safetensors.torch

    (output / "dno_noise").mkdir()
    path = output / "dno_noise" / "other.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, str(path))
    with pytest.raises(ValueError, match="holds no noise"):
        load(path)
    with pytest.raises(ValueError, match="save a noise first"):
        DNOLoadNoise.execute("nothing.safetensors")
    with pytest.raises(ValueError, match="save a noise first"):
        DNOLoadNoise.execute("../../etc/passwd")
