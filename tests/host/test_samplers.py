"""Every sampler of ComfyUI: bitwise KSampler's picture, and the exact gradient."""

from __future__ import annotations

import warnings

import comfy.k_diffusion.sampling as k_diffusion
import comfy.sample
import comfy.samplers
import pytest
import torch

from ComfyUI_DNO.dno.noise import Noise

from ..support import tiny
from ..support.probe import directional_derivatives, look

PREDICTIONS = [tiny.ModelType.EPS, tiny.ModelType.V_PREDICTION, tiny.ModelType.FLOW]
NAMES = comfy.samplers.SAMPLER_NAMES
RANDOM = {
    "euler_ancestral",
    "dpmpp_2m_sde",
    "dpmpp_sde",
    "lcm",
    "ddpm",
    "er_sde",
    "seeds_2",
    "sa_solver",
}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # k-diffusion's and torchsde's own


@pytest.fixture(scope="module", params=PREDICTIONS, ids=lambda prediction: prediction.name)
def model(request):
    return tiny.unet(request.param)


def closed_form(apply_model, arguments):
    """A smooth denoiser in double precision; ComfyUI's networks end in fp32."""
    x, sigma = arguments["input"], arguments["timestep"].reshape(-1, 1, 1, 1).double()
    text = arguments["c"]["c_crossattn"].double().mean((1, 2)).reshape(-1, 1, 1, 1)
    near = torch.tanh(x * (0.7 + 0.3 * text) / (1 + sigma))
    return 1.3 * near + 0.2 * torch.sin(torch.roll(x, 1, -1) / (1 + sigma) + text)


@pytest.fixture
def double_precision():
    torch.set_default_dtype(torch.float64)  # uni_pc makes coefficients of the default type
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", NAMES)
def test_first_picture_is_ksamplers_bit_for_bit(model, name):
    latent = torch.zeros(2, 4, 8, 8)
    noise, sigmas = comfy.sample.prepare_noise(latent, 3), tiny.sigmas(model, name)
    expected = tiny.guider(model).sample(
        noise,
        latent,
        comfy.samplers.sampler_object(name),
        sigmas.clone(),
        seed=3,
        disable_pbar=True,
    )

    def render(sampling):
        noise = Noise(sampling.noise)
        with torch.enable_grad():
            first = sampling.render(noise)
        assert first.requires_grad
        with torch.no_grad():
            replayed = sampling.render(noise)
        assert torch.equal(first, replayed)
        if name in RANDOM:
            assert len(noise.injected) >= 1
        return first

    assert torch.equal(look(tiny.guider(model), name, sigmas, noise, latent, render), expected)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "dpm_adaptive"])
def test_gradient_is_exact(model, name, double_precision):
    derivatives = _derivatives(model, name)
    exact, differences = derivatives
    assert min(abs(exact - difference) for difference in differences) <= 1e-7 * abs(exact)


def test_dpm_adaptive_is_exact_for_its_sequence_of_steps(model, double_precision, monkeypatch):
    """Its step sizes jump with the error; held as in the first sampling, the gradient is exact."""
    played: list[list] = []

    class Player(k_diffusion.PIDStepSizeController):
        plan: list | None = None

        def __init__(self, *arguments):
            super().__init__(*arguments)
            self._log, self._position = [], 0
            played.append(self._log)

        def propose_step(self, error):
            accept = super().propose_step(error)
            if self._position < len(played[0]):
                accept, self.h = played[0][self._position]
            self._log.append((accept, self.h))
            self._position += 1
            return accept

    monkeypatch.setattr(k_diffusion, "PIDStepSizeController", Player)
    exact, differences = _derivatives(model, "dpm_adaptive")
    assert min(abs(exact - difference) for difference in differences) <= 1e-6 * abs(exact)


def _derivatives(model, name):
    smooth = model.clone()
    smooth.set_model_unet_function_wrapper(closed_form)
    latent = torch.zeros(2, 4, 8, 8, dtype=torch.float64)
    noise = comfy.sample.prepare_noise(latent.float(), 3).double()
    derivatives = []

    def derive(sampling):
        # Newer ComfyUI brings what it samples from down to fp32.
        for name in ("noise", "latent_image", "sigmas"):
            setattr(sampling, name, getattr(sampling, name).double())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            derivatives.append(directional_derivatives(sampling))
        return sampling.noise

    look(tiny.guider(smooth), name, tiny.sigmas(model, name).double(), noise, latent, derive)
    return derivatives[0]


@pytest.mark.parametrize(
    "name", ["euler", "euler_ancestral", "dpmpp_2m_sde", "uni_pc", "euler_cfg_pp"]
)
def test_gradient_through_a_network(model, name):
    latent = torch.zeros(1, 4, 8, 8)
    noise = comfy.sample.prepare_noise(latent, 3)
    derivatives = []

    def derive(sampling):
        derivatives.append(directional_derivatives(sampling, steps=(3e-2, 1e-2)))
        return sampling.noise

    look(tiny.guider(model), name, tiny.sigmas(model, name), noise, latent, derive)
    exact, differences = derivatives[0]
    assert min(abs(exact - difference) for difference in differences) <= 2e-3 * abs(exact)
