"""The demo's workflow on a real ComfyUI server, over HTTP, as any client would run it."""

import copy
import io
import math
import time

import numpy as np
import pytest
from PIL import Image

from demo import job, switch

DEMO = switch.recorded()
pytestmark = pytest.mark.skipif(
    not (job.ROOT / "demo" / "weights.safetensors").exists(), reason="no demo checkpoint yet"
)


def shortened(**changes) -> dict:
    """The demo's workflow with fewer steps and other values on its DNO Sampler."""
    prompt = copy.deepcopy(DEMO)
    for node in prompt.values():
        if node["class_type"] in ("KSampler", "DNOSampler"):
            node["inputs"]["steps"] = 4
    prompt[job.find(prompt, "DNOSampler")]["inputs"] |= {"iterations": 3} | changes
    return prompt


def sampler_of(prompt: dict) -> dict:
    return prompt[job.find(prompt, "DNOSampler")]["inputs"]


def pixels(client, prompt: dict, entry: dict, name: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(job.picture(client, prompt, entry, name))))


def sentence(server, prompt: dict) -> str:
    """What the user is told about a prompt that cannot run."""
    try:
        entry = server.wait(server.submit(prompt), timeout=60)
    except job.Failure as refused:
        return str(refused)
    text = job.failure(entry)
    assert text, "it ran"
    return text


def test_pictures_and_record(server):
    prompt = shortened(learning_rate=0.1)
    entry = server.wait(server.submit(prompt), timeout=120)
    assert job.failure(entry) is None
    before, after, history = (pixels(server, prompt, entry, name) for name in job.PICTURES)
    assert before.shape == after.shape == (128, 128, 3)
    assert history.shape == (512, 768, 3) and history.std() > 0
    made = job.report(prompt, entry)
    assert made["prompt"] == "a penguin" and made["iterations"] == 3
    assert all(math.isfinite(made[name]) for name in job.NUMBERS)
    assert made["reward_after"] > made["reward_before"]
    # Darkness is 1 - mean, so the record can be read off the pictures, to their rounding.
    assert 1 - before.mean() / 255 == pytest.approx(made["reward_before"], abs=0.005)
    assert 1 - after.mean() / 255 == pytest.approx(made["reward_after"], abs=0.005)


def test_no_iterations_is_ksampler(server):
    prompt = shortened(iterations=0, sampler_name="dpmpp_2m")
    prompt[job.find(prompt, "KSampler")]["inputs"]["sampler_name"] = "dpmpp_2m"
    entry = server.wait(server.submit(prompt), timeout=120)
    assert job.failure(entry) is None
    before, after = (pixels(server, prompt, entry, name) for name in ("before", "after"))
    assert (before == after).all()


def test_a_second_time_it_is_all_there_at_once(server):
    prompt = shortened(learning_rate=0.1)
    first, second = (server.wait(server.submit(prompt), timeout=120) for _ in range(2))
    assert job.report(prompt, first) == job.report(prompt, second)
    for name in job.PICTURES:
        assert (pixels(server, prompt, first, name) == pixels(server, prompt, second, name)).all()


def test_an_interrupt_stops_it_and_the_next_prompt_runs(server):
    long = shortened(iterations=10000)
    prompt_id = server.submit(long)
    time.sleep(4)
    assert not server._json(f"/history/{prompt_id}")
    asked = time.monotonic()
    server.interrupt()
    entry = server.wait(prompt_id, timeout=30)
    assert job.failure(entry) == "The workflow was interrupted."
    assert time.monotonic() - asked < 10  # one evaluation of the model, on a busy machine
    after = shortened(iterations=1)
    assert job.failure(server.wait(server.submit(after), timeout=120)) is None


def test_a_missing_vae_is_one_sentence(server):
    prompt = shortened()
    del sampler_of(prompt)["vae"]
    text = sentence(server, prompt)
    assert "DNOSampler" in text and "vae" in text and len(text) < 200


def test_denoise_0_is_one_sentence(server):
    text = sentence(server, shortened(denoise=0.0))
    assert text.startswith("DNOSampler: denoise is 0") and len(text) < 200


def test_a_reward_in_the_wrong_place_is_one_sentence(server):
    prompt = shortened()
    regularizer = sampler_of(prompt)["regularizer"]
    sampler_of(prompt)["reward"] = regularizer
    text = sentence(server, prompt)
    assert "DNO_REGULARIZER" in text and len(text) < 300


def test_a_negative_number_of_iterations_is_one_sentence(server):
    text = sentence(server, shortened(iterations=-2))
    assert "iterations" in text and len(text) < 200
