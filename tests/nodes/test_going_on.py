"""A climb that goes on from another run's noise: its first iterate is that run's best, bitwise."""

from __future__ import annotations

import comfy.samplers
import folder_paths
import pytest
import torch
from comfy_extras.nodes_custom_sampler import Noise_RandomNoise, SamplerCustomAdvanced

from ComfyUI_DNO.nodes.history_iteration import DNOHistoryIteration
from ComfyUI_DNO.nodes.noise import DNOLoadNoise, DNOSaveNoise
from ComfyUI_DNO.nodes.options import Options
from ComfyUI_DNO.nodes.sampler import DNOSamplerCustom, DNOSamplerHistory

from .test_sampler_node import INPUTS, LATENTS, REWARD, ksampler, parts, run  # noqa: F401

pytestmark = pytest.mark.filterwarnings("ignore:Should have:UserWarning")  # torchsde's own
WHOLE = Options(memory="call")  # no kernels but a plain sampling's
DRAWING = ["euler", "euler_ancestral", "dpmpp_2m_sde", "dpmpp_sde"]


@pytest.fixture(autouse=True)
def output(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))


def climbed(parts, **inputs):  # noqa: F811
    """(latent, history, noise, sampler, sigmas, before) of a run."""
    return run(parts, **{"options": WHOLE} | inputs).result


@pytest.mark.parametrize("name", DRAWING)
@pytest.mark.parametrize("latent", ["empty", "masked"])
def test_it_starts_at_the_best_of_the_run_before(parts, name, latent):  # noqa: F811
    inputs = dict(latent=LATENTS[latent], sampler_name=name)
    first, history, noise, *_ = climbed(parts, **inputs)
    assert (history.best.step > 0).all()
    start, *_ = climbed(parts, iterations=0, seed=99, noise=noise, **inputs)
    assert torch.equal(start["samples"], first["samples"])
    further = climbed(parts, iterations=2, seed=99, noise=noise, **inputs)[1]
    assert torch.equal(further.records[0].reward, history.best.reward)
    assert (further.best.reward >= history.best.reward).all()
    assert len(further.best.noise.injected) == len(history.best.noise.injected)


@pytest.mark.parametrize("effort", ["one pass", "fast", "thorough"])
def test_it_goes_on_from_and_by_every_effort(parts, effort):  # noqa: F811
    first, history, noise, *_ = climbed(parts, iterations=-1, effort=effort)
    start, told, again, *_ = climbed(parts, iterations=0, noise=noise)
    assert torch.equal(start["samples"], first["samples"])
    further = climbed(parts, iterations=-1, effort=effort, noise=again)[1]
    if effort != "one pass":  # which draws no plain picture
        assert torch.equal(further.records[0].reward, history.best.reward)


def test_it_goes_on_from_a_file(parts):  # noqa: F811
    first, history, noise, *_ = climbed(parts)
    for given in (history, noise):
        with torch.inference_mode():
            (name,) = DNOSaveNoise.execute(given, "kept").result
            loaded = DNOLoadNoise.execute(name).result[0]
        start, *_ = climbed(parts, iterations=2, noise=loaded)
        assert start is not None
        start, *_ = climbed(parts, iterations=0, noise=loaded)
        assert torch.equal(start["samples"], first["samples"])


def test_it_goes_on_from_the_best_of_several_seeds(parts):  # noqa: F811
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    several = Options(memory="call", best_of=3)
    first, _, noise, *_ = climbed(parts, latent=latent, options=several)
    start, *_ = climbed(parts, latent=latent, iterations=0, noise=noise)
    assert torch.equal(start["samples"], first["samples"])


@pytest.mark.parametrize("latent", ["empty", "picked from a batch"])
def test_random_noise_is_that_seed(parts, latent):  # noqa: F811
    given = climbed(parts, latent=LATENTS[latent], seed=1, noise=Noise_RandomNoise(5))
    seeded = climbed(parts, latent=LATENTS[latent], seed=5)
    assert torch.equal(given[0]["samples"], seeded[0]["samples"])


def test_the_custom_form_goes_on_from_a_replayed_sampler(parts):  # noqa: F811
    model, vae, positive, negative = parts
    first, history, noise, sampler, sigmas, _ = climbed(parts)
    with torch.inference_mode():
        aligned = DNOSamplerCustom.execute(sampler, vae, REWARD, 2, 0.05, options=WHOLE)[0]
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(INPUTS["cfg"])
        out = SamplerCustomAdvanced.execute(noise, guider, aligned, sigmas, LATENTS["empty"])[0]
        told, *_, before = DNOSamplerHistory.execute(aligned, out).result
    assert torch.equal(told.records[0].reward, history.best.reward)
    assert torch.equal(before, history.best.image.movedim(1, -1))


def test_another_number_of_draws_is_told_and_those_left_over_go(parts):  # noqa: F811
    noise = climbed(parts)[2]
    told = []
    for name in ("euler", "euler_ancestral"):
        steps = {"steps": 5} if name == "euler_ancestral" else {}
        with pytest.MonkeyPatch.context() as patch:
            show = "ComfyUI_DNO.nodes.host.progress.Progress.finish"
            patch.setattr(show, lambda self, image, text, standing: told.append(text))
            history = climbed(parts, iterations=1, noise=noise, sampler_name=name, **steps)[1]
        assert len(history.best.noise.injected) == (0 if name == "euler" else 4)
    assert "brought 2 draws of its sampler and this sampling takes 0" in told[0]
    assert "brought 2 draws of its sampler and this sampling takes 4" in told[1]


def test_noise_of_another_size_is_told(parts):  # noqa: F811
    noise = climbed(parts)[2]
    for wrong in (LATENTS["wide"], {"samples": torch.zeros(1, 4, 8, 8)}):
        with pytest.raises(ValueError, match="use the latent size and batch of the DNO Sampler"):
            climbed(parts, latent=wrong, noise=noise)

    class Other:
        seed = 3

        def generate_noise(self, latent):
            return torch.zeros(2, 16, 8, 8)

    with pytest.raises(ValueError, match=r"^The noise input has shape \(2, 16, 8, 8\), and latent"):
        climbed(parts, noise=Other())


@pytest.mark.parametrize("step", [0, 1, 2])
def test_another_iteration_is_handed_on_as_it_was(parts, step):  # noqa: F811
    latent, history, *_ = climbed(parts)
    with torch.inference_mode():
        chosen, noise, image = DNOHistoryIteration.execute(history, step).result
    if step == 0:
        assert torch.equal(chosen["samples"], ksampler(parts))
    again, told, *_ = climbed(parts, iterations=0, noise=noise)
    assert torch.equal(again["samples"], chosen["samples"])
    assert torch.equal(told.records[0].reward, history.records[step].reward)
    assert (image - told.first.movedim(1, -1)).abs().max() <= 0.5 / 255 + 1e-6


def test_before_is_the_first_picture_of_every_image_drawn_once(parts):  # noqa: F811
    calls = torch.zeros(())

    def count(apply_model, arguments):
        calls.add_(1)
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    model = parts[0].clone()
    model.set_model_unet_function_wrapper(count)
    *_, before = climbed((model, *parts[1:]), iterations=0)
    assert before.shape == (2, 64, 64, 3) and before.dtype == torch.float32
    assert before.device.type == "cpu" and int(calls) == INPUTS["steps"]
    with torch.inference_mode():
        picture = parts[1].decode(ksampler(parts))
    assert torch.allclose(before, picture, atol=1e-5)
    history = climbed(parts)[1]
    assert torch.equal(history.first.movedim(1, -1), before)


def test_a_moment_that_was_not_kept_gives_way_to_the_nearest(parts):  # noqa: F811
    history = climbed(parts, iterations=3)[1]
    del history.moments.kept[1], history.film.kept[3]
    made = DNOHistoryIteration.execute(history, 1)
    assert made.ui["text"][0].endswith(
        "Iteration 1 was not kept, to save memory; this is the nearest."
    )
    assert made.ui["text"][0].startswith("Iteration 0: reward ")
    assert DNOHistoryIteration.execute(history, 3).ui["text"][0].startswith("Iteration 2: ")
    with pytest.raises(ValueError, match="ends with iteration 3: there is no iteration 4"):
        DNOHistoryIteration.execute(history, 4)
