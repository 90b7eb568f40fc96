"""DNO Best Seed and the sampler's best_of, beside KSampler run once for each seed."""

from __future__ import annotations

import math

import comfy.model_management as management
import comfy.samplers
import numpy as np
import pytest
import torch
from comfy_extras.nodes_custom_sampler import Noise_RandomNoise, SamplerCustomAdvanced

from ComfyUI_DNO.dno.checks import NonFiniteError
from ComfyUI_DNO.dno.estimate import Estimated
from ComfyUI_DNO.dno.objective import Reward, TermError, Weighted
from ComfyUI_DNO.nodes.best_seed import DNOBestSeed, Trials
from ComfyUI_DNO.nodes.drawing.canvas import number
from ComfyUI_DNO.nodes.drawing.sheet import Tile, reduced, sheet
from ComfyUI_DNO.nodes.history import summary
from ComfyUI_DNO.nodes.host.progress import Progress
from ComfyUI_DNO.nodes.host.sampling import start
from ComfyUI_DNO.nodes.options import Options
from ComfyUI_DNO.nodes.sampler import DNOSamplerCustom
from ComfyUI_DNO.nodes.schema import to_image

from ..support import tiny
from .test_history_nodes import execute
from .test_sampler_node import (
    INPUTS,
    LATENTS,
    REWARD,
    Failing,
    Tilt,
    assert_untouched,
    ksampler,
    state,
)
from .test_sampler_node import parts as parts  # the fixture
from .test_sampler_node import run as climb

pytestmark = [
    pytest.mark.filterwarnings("ignore:Should have:UserWarning"),  # torchsde's own
    pytest.mark.filterwarnings("ignore:To copy construct:UserWarning"),  # dpm_adaptive's own
]

SEED = 8  # the images of the batches below like different ones of the seeds after it
ONE = {"samples": torch.zeros(1, 4, 8, 8)}
INTERRUPT = management.InterruptProcessingException


class Count(Reward):
    """Without a gradient: how many pixels are lighter than mid-grey on the left, in hundreds."""

    differentiable = False

    def __call__(self, image):
        assert not torch.is_inference_mode_enabled()
        left = image[..., : image.shape[-1] // 2]
        return (left > 0.5).float().sum((1, 2, 3)) / 100


class LatentSum(Reward):
    """Scores the sample in the model's own space."""

    space = "latent"

    def __call__(self, latent):
        return latent.sum((1, 2, 3))


class Broken(Reward):
    """Gives what a function gives."""

    def __init__(self, rule):
        self.rule = rule

    def __call__(self, image):
        return self.rule(image)


COUNT = {"count": Weighted(1.0, Count())}


def best_seed(parts, latent=ONE, reward=REWARD, seeds=4, seed=5, **changes):
    model, vae, positive, negative = parts
    outputs, ui = execute(
        DNOBestSeed, model=model, positive=positive, negative=negative, latent_image=latent,
        vae=changes.pop("vae", vae), reward=reward, seed=seed, **INPUTS | changes, seeds=seeds,
    )  # fmt: skip
    (latent,), (best,), (text,), scores, (drawn,) = outputs
    return latent, best, text, scores, drawn, ui


def by_hand(parts, latent, seeds, reward=REWARD, seed=5, **changes):
    """KSampler, VAE Decode and the reward for every seed: latents, and rewards (N,B)."""
    samples = [ksampler(parts, latent, seed + offset, **changes) for offset in range(seeds)]
    rewards = []
    for each in samples:
        with torch.inference_mode():
            image = to_image(parts[1].decode(each))
        rewards.append(sum(term.weight * term.function(image) for term in reward.values()))
    return samples, torch.stack(rewards)


def assert_is_the_best_of_ksampler(parts, latent, seeds=4, **changes):
    samples, rewards = by_hand(parts, latent, seeds, **changes)
    rewards = rewards.mean(1)
    handed, best, _, scores, *_ = best_seed(parts, latent, seeds=seeds, **changes)
    assert scores == pytest.approx(rewards.tolist(), abs=1e-5)
    assert best == 5 + int(rewards.argmax())
    assert torch.equal(handed["samples"], samples[best - 5])
    assert len({round(score, 6) for score in scores}) == seeds


@pytest.mark.parametrize("latent", LATENTS.values(), ids=LATENTS)
def test_the_best_is_ksamplers(parts, latent):
    assert_is_the_best_of_ksampler(parts, latent, denoise=0.8)


@pytest.mark.parametrize("name", ["euler", "ddim", "dpmpp_sde", "uni_pc", "lcm"])
def test_the_best_is_ksamplers_with_every_kind_of_sampler(parts, name):
    assert_is_the_best_of_ksampler(parts, ONE, seeds=3, sampler_name=name)


def test_every_seed_is_ksamplers(parts):
    """The first of one seed alone is the best: so each is checked for itself."""
    for seed in (5, 6, 2**64 - 2):
        latent = best_seed(parts, LATENTS["masked"], seeds=1, seed=seed)[0]
        assert torch.equal(latent["samples"], ksampler(parts, LATENTS["masked"], seed))
        assert latent["noise_mask"] is LATENTS["masked"]["noise_mask"]


def test_behind_the_largest_seed_comes_0(parts):
    """With euler: newer ComfyUI's ancestral samplers cannot take the largest one on the CPU."""
    euler = dict(sampler_name="euler")
    handed, best, text, scores, *_ = best_seed(parts, seed=2**64 - 1, seeds=2, **euler)
    lines = [line.split(" ")[0] for line in text.splitlines()]
    assert lines == ["seed", str(2**64 - 1), "0"]
    assert best == [2**64 - 1, 0][int(np.argmax(scores))]
    assert torch.equal(handed["samples"], ksampler(parts, ONE, best, **euler))


def test_scores_are_shown_for_each_seed_and_term(parts):
    reward = REWARD | {"count": Weighted(0.1, Count())}
    _, best, text, scores, _, ui = best_seed(parts, reward=reward, seeds=3)
    head, *lines = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    assert head == ["seed", "reward", "tilt", "count"]
    assert [line[0] for line in lines] == [f"{s} *" if s == best else str(s) for s in (5, 6, 7)]
    assert [line[1] for line in lines] == [number(score) for score in scores]
    counts = by_hand(parts, ONE, 3, COUNT)[1][:, 0]
    assert [line[3] for line in lines] == [number(count) for count in counts.tolist()]
    assert ui["text"] == [text]


@pytest.mark.parametrize("batch", [1, 5])
def test_the_sheet_has_every_seeds_pictures_best_first(parts, batch):
    latent = {"samples": torch.zeros(batch, 4, 8, 8)}
    samples, rewards = by_hand(parts, latent, 3)
    tiles = []
    for index in rewards.mean(1).argsort(descending=True).tolist():
        with torch.inference_mode():
            picture = reduced(to_image(parts[1].decode(samples[index])), 3)
        assert picture.width == min(batch, 4) * picture.height
        tiles.append(Tile(picture, str(5 + index), float(rewards[index].mean())))
    *_, drawn, ui = best_seed(parts, latent, seeds=3)
    assert np.array_equal(drawn[0].mul(255).round().byte(), sheet(tiles))
    assert len(ui["images"]) == 1


def test_a_reward_of_the_latent_is_given_the_models_own(parts):
    reward = {"sum": Weighted(1.0, LatentSum())}
    samples, _ = by_hand(parts, ONE, 3)
    own = [parts[0].model.process_latent_in(each).sum().item() for each in samples]
    assert best_seed(parts, reward=reward, seeds=3)[3] == pytest.approx(own, rel=1e-4)


def test_nothing_is_left_behind_and_an_interrupt_stays_one(parts):
    before = state(parts)
    best_seed(parts, seeds=2)
    assert_untouched(parts, before)

    def interrupt(scores):
        management.interrupt_current_processing()
        return scores

    failing = Failing(interrupt)
    with pytest.raises(INTERRUPT):
        best_seed(parts, reward={"failing": Weighted(1.0, failing)}, seeds=9)
    assert failing.calls == 3
    assert_untouched(parts, before)
    assert not management.processing_interrupted()


BAD = {
    "no reward": (dict(reward=None), "reward input is not a DNO reward"),
    "no vae": (dict(vae=None), "vae input is empty"),
    "denoise 0": (dict(denoise=0.0), "denoise above 0"),
    "zero size": (dict(latent={"samples": torch.zeros(1, 4, 0, 8)}), "size zero"),
    "channels": (dict(latent={"samples": torch.ones(1, 16, 8, 8)}), "16 channels and the model"),
    "frames": (dict(latent={"samples": torch.zeros(1, 4, 3, 8, 8)}), "3 frames"),
    "NaN": (
        dict(reward={"log": Weighted(1.0, Broken(lambda image: image.mean((1, 2, 3)) * math.nan))}),
        "^The reward 'log' gave nan for picture 0 of seed 5.$",
    ),
    "fails": (
        dict(reward={"log": Weighted(1.0, Broken(lambda image: [][0]))}),
        "^The reward 'log' failed: list index out of range",
    ),
}


@pytest.mark.parametrize(("inputs", "sentence"), BAD.values(), ids=BAD)
def test_bad_inputs_get_a_sentence(parts, inputs, sentence):
    before = state(parts)
    with pytest.raises((ValueError, TermError), match=sentence) as caught:
        best_seed(parts, **inputs)
    assert "\n" not in str(caught.value)
    assert_untouched(parts, before)


class Blind(Reward):
    """Scores every picture alike, those of NaN included."""

    differentiable = False

    def __call__(self, image):
        return torch.ones(len(image))


def overflowing(parts, monkeypatch, target, attribute, calls):
    """These calls of `target.attribute`, counted from 0, give NaN."""
    count, original = iter(range(999)), getattr(target, attribute)

    def call(*arguments, **keywords):
        lost = next(count) in calls
        result = original(*arguments, **keywords)
        return result * float("nan") if lost else result

    monkeypatch.setattr(target, attribute, call)


@pytest.mark.parametrize("lost", [{0}, {1}, {2, 3}])
def test_a_seed_whose_picture_is_not_finite_is_never_the_best(parts, monkeypatch, caplog, lost):
    plain = best_seed(parts)
    overflowing(parts, monkeypatch, parts[1].first_stage_model, "decode", lost)
    handed, best, text, scores, *_ = best_seed(parts)
    assert {index for index, score in enumerate(scores) if score != score} == lost
    left = {index: plain[3][index] for index in range(4) if index not in lost}
    assert best == 5 + max(left, key=left.get)
    assert torch.equal(handed["samples"], ksampler(parts, ONE, best))
    said = f"Seed {5 + max(lost)}: the decoded picture is not finite"
    assert text.splitlines()[-1].startswith(said) and "VAE" in text and said in caplog.text


def test_an_overflow_is_told_with_what_overflowed(parts, monkeypatch):
    blind = {"blind": Weighted(1.0, Blind())}
    overflowing(parts, monkeypatch, parts[1].first_stage_model, "decode", range(99))
    monkeypatch.setattr(parts[1], "vae_dtype", torch.float16)
    decode = parts[1].first_stage_model.decode
    monkeypatch.setattr(parts[1].first_stage_model, "decode", lambda z, **k: decode(z.float(), **k))
    with pytest.raises(ValueError, match="^Seed 8: .* The VAE overflowed in float16: .*--fp32-vae"):
        best_seed(parts, reward=blind)
    overflowing(parts, monkeypatch, parts[0].model, "apply_model", range(99))
    with pytest.raises(ValueError, match="^Seed 8: the model's latent is not finite"):
        best_seed(parts, reward=blind)


def test_a_thousand_seeds_keep_only_the_pictures_that_are_shown(parts):
    trials = Trials(list(range(100)))
    for seed in trials.seeds:
        reward = float(seed * 37 % 100)
        trials.add([reward], {"tilt": [reward]}, torch.tensor([seed]), torch.zeros(1, 3, 4, 4))
    assert len(trials.pictures) == 64
    assert {trials.rewards[index] for index in trials.pictures} == set(range(36, 100))
    assert trials.samples.tolist() == [trials.best] and trials.rewards[trials.best] == 99


# best_of of the DNO Sampler


def start_of(history):
    """The latent of iteration 0, by its picture as bytes."""
    return history.film.images[0]


def bytes_of(parts, samples):
    with torch.inference_mode():
        return to_image(parts[1].decode(samples)).mul(255).round().byte()


NAMES = ["euler", "euler_ancestral", "dpmpp_sde", "ddim", "uni_pc", "dpm_adaptive"]


@pytest.mark.parametrize(
    ("name", "latent", "memory"),
    [*((name, ONE, "automatic") for name in NAMES), ("dpmpp_sde", LATENTS["wide"], "least")],
    ids=[*NAMES, "wide"],
)
def test_the_climb_starts_at_the_best_seeds_picture(parts, name, latent, memory):
    handed, best, *_ = best_seed(parts, latent, sampler_name=name)
    options = Options(best_of=4, memory=memory)
    out, history, noise, *_ = climb(
        parts, latent, iterations=0, sampler_name=name, options=options
    ).result
    assert torch.equal(out["samples"], handed["samples"])
    assert history.start == f"the best of 4 seeds, {best}" and noise.seed == best
    after = climb(parts, latent, iterations=1, sampler_name=name, options=options)[1]
    assert torch.equal(start_of(after), bytes_of(parts, handed["samples"]))
    assert torch.equal(after.records[0].reward, history.records[0].reward)


@pytest.mark.parametrize(
    ("name", "reward"),
    [("euler", REWARD), ("dpmpp_2m_sde", REWARD), ("euler_ancestral", COUNT)],
    ids=["euler", "dpmpp_2m_sde", "estimated"],
)
def test_each_image_of_a_batch_picks_its_own(parts, name, reward):
    latent = {"samples": torch.zeros(3, 4, 8, 8)}
    inputs = dict(seed=SEED, sampler_name=name)
    samples, rewards = by_hand(parts, latent, 4, reward, **inputs)
    winners = rewards.argmax(0)
    assert len(set(winners.tolist())) > 1
    inputs |= dict(options=Options(best_of=4), gradient=Estimated(samples=2))
    out, history, *_ = climb(parts, latent, reward, iterations=0, **inputs).result
    for image, index in enumerate(winners.tolist()):
        assert torch.equal(out["samples"][image], samples[index][image])
    seeds = ", ".join(str(SEED + index) for index in winners.tolist())
    assert history.start == f"the best of 4 seeds, {seeds}"
    assert f" Started from the best of 4 seeds, {seeds}." in summary(history)
    climbed = climb(parts, latent, reward, iterations=1, **inputs)[1]
    assert torch.equal(start_of(climbed), bytes_of(parts, out["samples"]))


@pytest.mark.parametrize("name", ["picked from a batch", "masked", "image to image"])
def test_candidates_are_drawn_as_ksampler_draws_them(parts, name):
    latent, inputs = LATENTS[name], dict(denoise=0.7)
    samples, rewards = by_hand(parts, latent, 3, **inputs)
    out = climb(parts, latent, iterations=0, options=Options(best_of=3), **inputs)[0]["samples"]
    for image, index in enumerate(rewards.argmax(0).tolist()):
        assert torch.equal(out[image], samples[index][image])


def test_ddim_with_a_mask_shares_one_seed(parts):
    """It draws the kept region's noise for the whole batch by itself: the best on average."""
    latent, inputs = LATENTS["masked"], dict(sampler_name="ddim", steps=4)
    samples, rewards = by_hand(parts, latent, 4, seed=6, **inputs)
    best = int(rewards.mean(1).argmax())
    assert best > 0
    out, history, noise, *_ = climb(
        parts, latent, iterations=0, seed=6, options=Options(best_of=4), **inputs
    ).result
    assert torch.equal(out["samples"], samples[best]) and noise.seed == 6 + best


def test_the_climb_goes_on_from_there(parts):
    plain = climb(parts, ONE, iterations=3)
    better = climb(parts, ONE, iterations=3, options=Options(best_of=6))[1]
    assert better.records[0].reward > plain[1].records[0].reward
    assert better.best.reward > better.records[0].reward + 1e-4
    one = climb(parts, ONE, iterations=3, options=Options(best_of=1))
    assert one[1].start == "" and one[1].seconds_before == 0
    assert torch.equal(one[0]["samples"], plain[0]["samples"])


def test_the_noise_and_sampler_outputs_replay_it(parts):
    model, _, positive, negative = parts
    made = climb(parts, options=Options(best_of=3)).result
    latent, history, noise, sampler, sigmas, _ = made
    with torch.inference_mode():
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(INPUTS["cfg"])
        out = SamplerCustomAdvanced.execute(noise, guider, sampler, sigmas, LATENTS["empty"])[0]
    assert torch.equal(out["samples"], latent["samples"])


@pytest.mark.parametrize("seed", [5, 2**64 - 4])
def test_the_custom_form_starts_from_the_best_too(parts, seed):
    model, vae, positive, negative = parts
    expected = climb(parts, options=Options(best_of=3), seed=seed, iterations=1)
    with torch.inference_mode():
        aligned = DNOSamplerCustom.execute(
            comfy.samplers.sampler_object("euler_ancestral"), vae, REWARD, 1, 0.05,
            options=Options(best_of=3),
        )[0]  # fmt: skip
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(3.0)
        sigmas = tiny.sigmas(model, "euler_ancestral", 3)
        out = SamplerCustomAdvanced.execute(
            Noise_RandomNoise(seed), guider, aligned, sigmas, LATENTS["empty"]
        )[0]
    assert torch.equal(out["samples"], expected[0]["samples"])
    assert aligned.climbed.history.start == expected[1].start


def test_the_text_counts_candidates_and_the_time_is_counted(parts, monkeypatch):
    told = []
    monkeypatch.setattr(
        Progress, "picture", lambda self, image, text, *_: told.append((image.shape, text))
    )
    history = climb(parts, ONE, iterations=1, options=Options(best_of=3))[1]
    assert [text.split(",")[0] for _, text in told[:3]] == [f"best of 3: {k}/3" for k in (1, 2, 3)]
    assert told[3][1].startswith("iteration 0 of 1: ")
    assert {shape for shape, _ in told} == {(1, 3, 64, 64)}
    assert 0 < history.seconds_before < history.records[0].seconds
    each = history.records[1].seconds - history.seconds_before
    assert history.seconds_each == pytest.approx(each / 2)


def test_the_bar_ends_full(parts, monkeypatch):
    seen = []
    bar = "comfy.utils.ProgressBar.update_absolute"
    monkeypatch.setattr(bar, lambda self, value, total, preview=None: seen.append((value, total)))
    climb(parts, ONE, iterations=2, options=Options(best_of=3))
    best = len(seen)
    best_seed(parts, seeds=3)
    for part, length in ((seen[:best], 6), (seen[best:], 3)):
        values, totals = zip(*part, strict=True)
        assert list(values) == sorted(values) and len(set(totals)) == 1
        assert values[0] < totals[0] / length and values[-1] == totals[0]


def test_an_interrupt_among_the_candidates_stays_one(parts):
    before = state(parts)

    def interrupt(rewards):
        management.interrupt_current_processing()
        return rewards

    failing = Failing(interrupt)
    with pytest.raises(INTERRUPT):
        climb(parts, reward={"failing": Weighted(1.0, failing)}, options=Options(best_of=9))
    assert failing.calls == 3
    assert_untouched(parts, before)


def test_a_candidate_that_is_not_finite_is_named(parts):
    nan = Failing(lambda rewards: rewards * float("nan"))
    with pytest.raises(NonFiniteError, match="not finite .* for candidate 2 of best_of"):
        climb(parts, reward={"nan": Weighted(1.0, nan)}, options=Options(best_of=4))


def test_a_given_noise_without_a_seed_is_the_first_candidate(parts):
    """As a program that calls guider.sample without a seed."""
    assert start.seed_at(None, 3) == 3
    aligned = DNOSamplerCustom.execute(
        comfy.samplers.sampler_object("euler"), parts[1], {"tilt": Weighted(1.0, Tilt())}, 0, 0.05,
        options=Options(best_of=2),
    )[0]  # fmt: skip
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    latent = torch.zeros_like(noise)
    with torch.inference_mode():
        tiny.guider(parts[0]).sample(
            noise, latent, aligned, tiny.sigmas(parts[0], "euler", 2), disable_pbar=True
        )
    assert aligned.climbed.history.start in ("the best of 2 seeds, 0", "the best of 2 seeds, 1")
