"""Each optimizer's rule against its own formula, and what all of them have in common."""

import math
import threading

import pytest
import torch

from ComfyUI_DNO.dno.block_norms import BlockNorms
from ComfyUI_DNO.dno.optimizers import (
    LBFGS,
    OPTIMIZERS,
    SGD,
    Adam,
    Langevin,
    Projected,
    Rotation,
    Spectral,
)  # fmt: skip
from ComfyUI_DNO.dno.projections import Sphere, TypicalSet, Whitened, rotated

EVERY = [*(cls() for cls in OPTIMIZERS), Spectral(), Projected(SGD(), BlockNorms(), Sphere())]
names = [type(optimizer).__name__ for optimizer in EVERY]


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


TARGET = draws(1, 2, 8, 8, seed=9)


def reward(leaves):
    """(B,): a smooth bowl with uneven curvature, higher is better."""
    curvature = torch.linspace(0.5, 3.0, 64).reshape(8, 8)
    return -sum(((leaf - TARGET).square() * curvature).mean((1, 2, 3)) for leaf in leaves)


def pull(leaves):
    live = [leaf.detach().requires_grad_() for leaf in leaves]
    with torch.enable_grad():
        return list(torch.autograd.grad(reward(live).sum(), live))


def climb(optimizer, leaves, rate=0.05, steps=5):
    """The noise before each step and after the last; how many gradients were asked for."""
    step, path, asked = optimizer.start(leaves, rate), [], []
    for _ in range(steps):
        path.append([leaf.clone() for leaf in leaves])

        def gradients():
            asked.append(1)
            return pull(leaves)

        step(gradients, reward(leaves))
    if hasattr(step, "close"):
        step.close()
    return [*path, [leaf.clone() for leaf in leaves]], len(asked)


@pytest.mark.parametrize("optimizer", EVERY, ids=names)
def test_the_reward_rises(optimizer):
    leaves = [draws(2, 2, 8, 8, seed=s) for s in range(2)]
    rate = 2.0 if isinstance(optimizer, Spectral) else 0.5
    path, _ = climb(optimizer, leaves, rate, steps=12)
    best = torch.stack([reward(point) for point in path]).amax(0)
    assert (best > reward(path[0]) + 0.05).all()


@pytest.mark.parametrize("optimizer", EVERY, ids=names)
def test_images_do_not_meet(optimizer):
    def first_of(seed):
        leaves = [torch.cat([draws(1, 2, 8, 8), draws(1, 2, 8, 8, seed=seed)])]
        return climb(optimizer, leaves)[0][-1][0][0]

    torch.testing.assert_close(first_of(1), first_of(2), rtol=1e-4, atol=1e-5)


def test_rotation_is_its_formula_and_tries_again_from_the_best():
    """z <- K(cos z + sin g); a turn that does not help is halved, and asks for no gradient."""
    settings, keep, whiten = Rotation(angle=40.0, largest=80.0), TypicalSet(), Whitened()
    leaves = [draws(1, 2, 8, 8)]
    step, angle = settings.start(leaves, 0.0), math.radians(40.0)
    best, value = leaves[0].clone(), reward(leaves)
    direction = whiten(pull(leaves))[0]
    halved = 0
    step(lambda: pull(leaves), value)
    for _ in range(8):
        expected = rotated(best, direction, torch.tensor([angle]), keep)
        torch.testing.assert_close(leaves[0], expected, rtol=1e-4, atol=1e-4)
        if reward(leaves) > value:
            best, value, angle = (
                leaves[0].clone(),
                reward(leaves),
                min(angle * 1.2, math.radians(80)),
            )
            direction = whiten(pull(leaves))[0]
            step(lambda: pull(leaves), value)
        else:
            angle, halved = angle / 2, halved + 1
            step(lambda: pytest.fail("no gradient is needed"), reward(leaves))
    assert 0 < halved < 8


def test_rotation_judges_each_image_by_itself():
    leaves = [draws(2, 2, 8, 8)]
    step = Rotation(angle=10.0).start(leaves, 0.0)
    start = leaves[0].clone()
    step(lambda: [draws(2, 2, 8, 8, seed=3)], torch.tensor([0.0, 0.0]))
    turned = leaves[0].clone()
    step(lambda: [draws(2, 2, 8, 8, seed=4)], torch.tensor([1.0, -1.0]))
    moved = torch.nn.functional.cosine_similarity(leaves[0].flatten(1), start.flatten(1)).acos()
    before = torch.nn.functional.cosine_similarity(turned.flatten(1), start.flatten(1)).acos()
    assert moved[0] > 1.2 * before[0]  # went on from where it was better
    assert moved[1] == pytest.approx(float(before[1]) / 2, rel=0.2)  # half the turn, from the start


def test_lbfgs_is_torchs_own_with_its_line_search():
    leaves, reference = [draws(1, 2, 8, 8)], draws(1, 2, 8, 8).requires_grad_()
    path, _ = climb(LBFGS(), leaves, rate=1.0, steps=12)
    points = []
    optimizer = torch.optim.LBFGS(
        [reference], lr=1.0, line_search_fn="strong_wolfe", history_size=10, max_iter=100,
        tolerance_grad=0.0, tolerance_change=0.0, max_eval=12,
    )  # fmt: skip

    def closure():
        points.append(reference.detach().clone())
        optimizer.zero_grad()
        loss = -reward([reference]).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    for mine, theirs in zip(path, points[:12], strict=False):
        torch.testing.assert_close(mine[0], theirs, rtol=1e-4, atol=1e-5)
    assert reward(path[-1]) > -1e-3


def test_lbfgs_leaves_no_thread_behind():
    before = threading.active_count()
    climb(LBFGS(), [draws(3, 2, 8, 8)], rate=1.0, steps=2)
    assert threading.active_count() == before


def test_lbfgs_at_its_optimum_stays():
    leaves = [TARGET.clone()]
    path, _ = climb(LBFGS(), leaves, rate=1.0, steps=4)
    assert torch.equal(path[-1][0], TARGET)


def test_langevin_leaves_the_standard_normal_as_it_is():
    leaves = [draws(1, 4, 64, 64)]
    step = Langevin(gamma=0.5).start(leaves, 1.0)
    for _ in range(20):
        step(lambda: [torch.zeros_like(leaves[0])], torch.zeros(1))
    assert leaves[0].std() == pytest.approx(1.0, abs=0.02)
    correlation = (leaves[0] * draws(1, 4, 64, 64)).mean()
    assert abs(correlation) < 0.03


def test_projected_is_the_gradient_then_the_optimizer_then_the_noise():
    leaves, gradient = [draws(2, 4, 8, 8)], draws(2, 4, 8, 8, seed=1)
    expected, start = BlockNorms()([gradient])[0], leaves[0].clone()
    optimizer = Projected(SGD(momentum=0.0), gradient=BlockNorms(), noise=Sphere())
    optimizer.start(leaves, 0.1)(lambda: [gradient.clone()], torch.zeros(2))
    length = start.flatten(1).norm(dim=1).reshape(2, 1, 1, 1)
    moved = start + 0.1 * expected
    moved = moved * length / moved.flatten(1).norm(dim=1).reshape(2, 1, 1, 1)
    torch.testing.assert_close(leaves[0], moved)


def test_spectral_is_adam_on_the_coefficients():
    leaves, gradient = [draws(1, 2, 8, 8)], draws(1, 2, 8, 8, seed=1)
    start = torch.fft.rfft2(leaves[0])
    Spectral(Adam()).start(leaves, 0.3)(lambda: [gradient.clone()], torch.zeros(1))
    # The first step of Adam is its rate times the sign, of real and imaginary part each.
    pulled = torch.fft.rfft2(gradient)
    stepped = start + 0.3 * (pulled.real.sign() + 1j * pulled.imag.sign())
    difference = torch.fft.irfft2(stepped, s=(8, 8)) - leaves[0]
    assert difference.abs().max() < 0.02  # coefficients that are real have no sign to go by
