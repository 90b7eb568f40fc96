"""Steering against its formula, on a diffusion whose every step is a formula too."""

import math
from dataclasses import replace

import pytest
import torch

from ComfyUI_DNO.dno.checks import NoGradientError
from ComfyUI_DNO.dno.fresh import fresh
from ComfyUI_DNO.dno.method import Ascent, Kept, Then
from ComfyUI_DNO.dno.noise import Noise
from ComfyUI_DNO.dno.objective import Weighted
from ComfyUI_DNO.dno.optimizers import Rotation
from ComfyUI_DNO.dno.projections import TypicalSet, Whitened
from ComfyUI_DNO.dno.steer import FAST, ONE_PASS, Pass, Steer, polished
from ComfyUI_DNO.regularizers import Probability

from ..support.toy import SHAPE, SIGMAS, Blind, Ramp, Toy, normal


def best(iterates):
    return torch.stack([iterate.reward for iterate in iterates]).amax(0)


def plain_of(toy, **options):
    """The noise of the plain sampling, its draws included."""
    task = toy.task(Ramp(), **options)
    toy.render(task.noise)
    return task.noise


def steered_by_hand(toy, noise, degrees, whiten):
    """The loop as `fast.md` writes it, without a tape: the new draws and the sample."""
    keep, angle = TypicalSet(), math.radians(degrees)
    x, draws = noise.initial.detach() * SIGMAS[0], []
    for i, (sigma, following) in enumerate(zip(SIGMAS[:-1], SIGMAS[1:], strict=True)):
        denoised = toy.denoise(x, sigma).detach()
        up = (following**2 * (1 - following**2 / sigma**2)).sqrt()
        x = denoised + (x - denoised) / sigma * (following**2 - up**2).sqrt()
        if up > 0:
            live = denoised.clone().requires_grad_()
            (g,) = torch.autograd.grad(Ramp()(toy.decode(live)).sum(), live)
            turned = math.cos(angle) * noise.injected[i].detach() + math.sin(angle) * whiten([g])[0]
            draws.append(keep([turned])[0])
            x = x + up * draws[-1]
    return draws, x


@pytest.mark.parametrize("power", [0.0, 1.0])
def test_a_pass_is_its_formula(power):
    toy, whiten = Toy(), Whitened(power)
    noise = plain_of(toy)
    (iterate,) = Steer((Pass(10, "seed"),), whiten=whiten).iterates(toy.task(Ramp()))
    draws, sample = steered_by_hand(toy, noise, 10, whiten)
    assert torch.equal(iterate.noise.initial, noise.initial)
    for mine, theirs in zip(iterate.noise.injected, draws, strict=True):
        torch.testing.assert_close(mine.detach(), theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(iterate.latent, sample, rtol=1e-4, atol=1e-4)


def test_every_iterate_is_exactly_the_sampling_of_its_noise():
    toy = Toy()
    iterates = list(Steer().iterates(toy.task(Ramp())))
    assert [iterate.step for iterate in iterates] == [0, 1, 2, 3, 4, 5]
    for iterate in iterates:
        with torch.no_grad():
            assert torch.equal(toy.render(iterate.noise), iterate.latent)
    assert torch.equal(iterates[0].latent, toy.render(plain_of(toy)).detach())


def test_the_reward_rises_by_evaluations_alone():
    toy = Toy()
    iterates = list(Steer().iterates(toy.task(Ramp(), batch=4)))
    assert (best(iterates) > iterates[0].reward + 0.1).all()
    assert toy.with_gradient == 0
    assert toy.evaluations == 6 * (len(SIGMAS) - 1)  # no evaluation is for the direction alone
    assert toy.decodings == 6 + 5 * 3  # one per sample, one per draw


def test_one_pass_costs_one_sampling():
    toy = Toy()
    (iterate,) = Steer(ONE_PASS).iterates(toy.task(Ramp()))
    assert toy.evaluations == len(SIGMAS) - 1
    assert (iterate.reward > Ramp()(toy.decode(toy.render(plain_of(toy))))).all()


def test_images_do_not_meet():
    def first_of(seed):
        toy = Toy()
        task = toy.task(Ramp())
        task.noise.initial.data[1] = normal(*SHAPE, seed=seed)
        return [i.latent[0] for i in Steer().iterates(task)]

    for one, other in zip(first_of(1), first_of(2), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_fresh_draws_are_new_standard_and_of_each_image_by_itself():
    noise = Noise(torch.zeros(2, 4, 64, 64), [torch.zeros(2, 4, 64, 64)] * 2)
    one, two = (fresh(noise, 5, index, initial=False) for index in (1, 2))
    assert torch.equal(one.initial, noise.initial)
    every = torch.stack([*one.injected, *two.injected]).detach().flatten(2)
    assert every.mean().abs() < 0.01 and every.std() == pytest.approx(1, abs=0.01)
    rows = every.flatten(0, 1)
    correlation = rows @ rows.T / rows.shape[1] - torch.eye(8)
    assert correlation.abs().max() < 0.05
    single = Noise(torch.zeros(1, 4, 64, 64), [torch.zeros(1, 4, 64, 64)] * 2)
    alone = fresh(single, 5, 1, initial=False)
    assert torch.equal(alone.injected[1][0], one.injected[1][0])


def test_a_pass_from_the_best_starts_at_each_images_best():
    """With an angle of nearly nothing it is a repeat of the best so far."""
    plan = (Pass(12, "seed"), Pass(12, "fresh"), Pass(1e-6))
    loose = Steer(plan, project=TypicalSet(tolerance=10.0, spectrum=False))
    iterates = list(loose.iterates(Toy().task(Ramp(), batch=4)))
    torch.testing.assert_close(iterates[3].reward, best(iterates[:3]), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("eta, scope", [(0.0, "all"), (0.4, "initial")])
def test_what_draws_nothing_is_turned_straight_through(eta, scope):
    """The initial noise alone, by evaluations alone; the first turn is the rotation's formula."""
    toy = Toy(eta)
    iterates = list(Steer().iterates(toy.task(Ramp(), scope=scope)))
    assert [iterate.step for iterate in iterates] == list(range(6))
    assert toy.with_gradient == 0 and toy.evaluations == 6 * (len(SIGMAS) - 1)
    assert (best(iterates) > iterates[0].reward + 0.1).all()
    first, second = Steer().iterates(toy.task(Ramp(), scope=scope)), []
    start = next(first)
    initial = start.noise.initial.detach().clone()
    live = start.latent.clone().requires_grad_()
    (g,) = torch.autograd.grad(Ramp()(toy.decode(live)).sum(), live)
    angle = math.radians(FAST[0].angle)
    turned = math.cos(angle) * initial + math.sin(angle) * Whitened()([g])[0]
    second = next(first)
    torch.testing.assert_close(
        second.noise.initial.detach(), TypicalSet()([turned])[0], rtol=1e-4, atol=1e-4
    )
    for mine, theirs in zip(second.noise.injected, start.noise.injected, strict=True):
        assert torch.equal(mine, theirs)


def test_one_pass_of_what_draws_nothing_is_a_plain_and_a_turned_sampling():
    toy = Toy(0.0)
    iterates = list(Steer(ONE_PASS).iterates(toy.task(Ramp())))
    assert [iterate.step for iterate in iterates] == [0, 1]
    assert (iterates[1].reward > iterates[0].reward).all()


def test_rewards_without_a_gradient_are_steered_by_their_estimate():
    toy = Toy()
    iterates = list(Steer().iterates(toy.task(Blind(), batch=2)))
    exact = list(Steer().iterates(Toy().task(Ramp(), batch=2)))
    gain, full = best(iterates) - iterates[0].reward, best(exact) - exact[0].reward
    assert (gain > 0.5 * full).all() and toy.with_gradient == 0


def test_directions_may_come_from_a_cheaper_decoder():
    """What is reported comes from the decoder; the other one is asked for directions alone."""
    toy, asked = Toy(), []

    def cheap(latent):
        asked.append(1)
        return 0.5 + latent / 8

    iterates = list(Steer().iterates(toy.task(Ramp(), directions=cheap)))
    assert len(asked) == 15 and toy.decodings == 6
    assert (best(iterates) > iterates[0].reward + 0.1).all()
    torch.testing.assert_close(iterates[5].reward, Ramp()(toy.decode(iterates[5].latent)))


def test_it_ends_between_two_evaluations_and_keeps_what_was_done():
    toy = Toy()
    task = toy.task(Ramp(), enough=lambda: toy.evaluations >= 10)
    assert [iterate.step for iterate in Steer().iterates(task)] == [0, 1]
    assert toy.evaluations == 10


def test_a_reward_without_any_gradient_is_told():
    class Flat(Ramp):
        def __call__(self, image):
            return super().__call__(image) * 0

    iterates = Steer().iterates(Toy().task(Flat()))
    assert next(iterates).step == 0 and next(iterates).step == 1
    with pytest.raises(NoGradientError, match="does not change with the picture"):
        next(iterates)


def test_polish_brings_the_noise_back():
    probability = Probability()
    skewed = Noise(normal(2, 8, 32, 32) * 1.05, [normal(2, 8, 32, 32, seed=1) + 0.05])
    before, after = (
        probability.indicator(skewed),
        probability.indicator(polished(skewed, probability)),
    )
    assert (before < 0.3).all() and (after > before + 0.3).all()
    inside = Noise(normal(1, 4, 16, 16, seed=2) / normal(1, 4, 16, 16, seed=2).std())
    if probability(inside) == 0:
        assert torch.equal(polished(inside, probability).initial, inside.initial)


def test_polish_is_one_more_iterate():
    toy = Toy()
    iterates = list(Steer(polish=Probability()).iterates(toy.task(Ramp())))
    assert [iterate.step for iterate in iterates] == list(range(7))
    with torch.no_grad():
        assert torch.equal(toy.render(iterates[6].noise), iterates[6].latent)


def test_then_goes_on_from_each_images_best():
    toy = Toy()
    method = Then(Steer(FAST[:2]), Ascent(Rotation(angle=3.0), iterations=3, clip=0.0))
    assert method.differentiates and method.iterations == 6
    iterates = list(method.iterates(toy.task(Ramp(), batch=3)))
    assert [iterate.step for iterate in iterates] == list(range(7))
    torch.testing.assert_close(iterates[3].reward, best(iterates[:3]))
    assert (best(iterates) >= iterates[3].reward).all() and best(iterates)[0] > iterates[3].reward[
        0
    ]


def test_kept_is_each_images_best_by_the_whole_objective():
    toy, kept = Toy(), Kept()
    with pytest.raises(ValueError, match="Nothing was tried"):
        _ = kept.noise
    (first, second) = list(Steer(FAST[:1] + ONE_PASS).iterates(toy.task(Ramp())))[:2]
    first = replace(first, objective=torch.tensor([0.0, 0.0]))
    second = replace(second, objective=torch.tensor([1.0, -1.0]))
    assert kept.take(first).all() and kept.take(second).tolist() == [True, False]
    assert torch.equal(kept.noise.injected[0][0], second.noise.injected[0][0])
    assert torch.equal(kept.noise.injected[0][1], first.noise.injected[0][1])


def test_regularizers_count_for_what_is_kept_and_are_not_steered_along():
    toy = Toy()
    regularizers = {"probability": Weighted(1.0, Probability())}
    plain = list(Steer().iterates(Toy().task(Ramp())))
    regularized = list(Steer(FAST[:3]).iterates(toy.task(Ramp(), regularizers=regularizers)))
    torch.testing.assert_close(regularized[3].reward, plain[3].reward)
    assert "probability" in regularized[3].terms
    torch.testing.assert_close(
        regularized[3].objective, regularized[3].reward + regularized[3].terms["probability"]
    )
