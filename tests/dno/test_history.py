"""What the history keeps, and when the stopping rules stop."""

import pytest
import torch

from ComfyUI_DNO.dno.film import Film, Moments
from ComfyUI_DNO.dno.history import History
from ComfyUI_DNO.dno.noise import Noise
from ComfyUI_DNO.dno.stopping import Patience, Target, TimeBudget, first_reason

from ..support.histories import history_of, iterate


def test_the_best_is_kept_for_each_image_by_itself():
    history = history_of([0.1, 0.5, 0.3], [0.4, 0.2, 0.3], [0.3, 0.6, 0.3])
    assert history.best.step.tolist() == [1, 2, 0]  # an equal score does not replace the first
    assert history.best.objective.tolist() == pytest.approx([0.4, 0.6, 0.3])
    assert history.best.latent[:, 0, 0, 0].tolist() == [1, 2, 0]
    assert history.best.noise.initial[:, 0, 0, 0].tolist() == [1.5, 2.5, 0.5]
    assert history.best.image[:, 0, 0, 0].tolist() == pytest.approx([0.1, 0.2, 0.0])


def test_the_best_is_the_best_by_the_whole_objective():
    history = History()
    history.add(iterate(0, [0.0], rewards=[0.2]), 1.0)
    history.add(iterate(1, [-1.0], rewards=[0.9]), 2.0)  # the regularizer eats it up
    assert history.best.step.tolist() == [0]
    assert history.best.reward.tolist() == pytest.approx([0.2])


def test_the_best_that_was_read_does_not_change_afterwards():
    history = history_of([0.1, 0.5])
    before = history.best
    history.add(iterate(1, [0.4, 0.2]), 2.0)
    assert before.step.tolist() == [0, 0] and history.best.step.tolist() == [1, 0]
    assert before.noise.initial[:, 0, 0, 0].tolist() == [0.5, 0.5]
    kept = history.best
    history.add(iterate(2, [0.0, 0.0]), 3.0)
    assert history.best is kept


def test_what_is_kept_does_not_change_with_the_noise():
    noise = Noise(torch.zeros(1, 2, 3, 3), [torch.zeros(1, 4)])
    first = iterate(0, [1.0], noise=noise)
    history = History()
    history.add(first, 1.0)
    with torch.no_grad():
        noise.initial.add_(7)
        noise.injected[0].add_(7)
        first.latent.add_(7)
    assert history.best.noise.initial.abs().max() == 0
    assert history.best.noise.injected[0].abs().max() == 0
    assert history.best.latent.abs().max() == 0


def test_injected_draws_that_come_later_are_kept_too():
    history = History()
    history.add(iterate(0, [0.0, 0.0], noise=Noise(torch.zeros(2, 1, 2, 2))), 1.0)
    later = Noise(torch.ones(2, 1, 2, 2), [torch.full((2, 3), 4.0)])
    history.add(iterate(1, [1.0, -1.0], noise=later), 2.0)
    assert history.best.noise.initial[:, 0, 0, 0].tolist() == [1, 0]
    assert history.best.noise.injected[0][0].tolist() == [4, 4, 4]


def test_numbers_at_the_best_of_each_image():
    history = history_of([0.1, 0.5], [0.4, 0.2], [0.3, 0.6])
    read = history.at_best(lambda record: record.terms["light"])
    assert read.tolist() == pytest.approx([1.4, 1.6])
    probability = history.at_best(lambda record: record.indicators["P(z)"])
    assert probability.tolist() == pytest.approx([1 / 2, 1 / 3])


def test_an_empty_history_has_no_best():
    history = History()
    assert history.records == [] and history.stop_reason == ""
    with pytest.raises(ValueError, match="nothing was sampled"):
        _ = history.best


def test_the_film_keeps_bytes_and_rounds():
    film = Film()
    film.add(0, torch.tensor([-0.5, 0.0, 0.5, 1.0, 2.0, 0.999]).reshape(1, 3, 1, 2))
    assert film.images[0].dtype == torch.uint8
    assert film.images[0].flatten().tolist() == [0, 0, 128, 255, 255, 255]


def test_the_film_thins_itself_under_its_limit_and_stays_even():
    picture = torch.zeros(1, 3, 10, 10)
    film = Film(limit=8 * picture.numel())
    for step in range(101):
        film.add(step, picture)
        assert film.bytes <= film.limit
    assert film.stride == 16
    assert sorted(film.images) == list(range(0, 101, 16))


def test_a_film_of_pictures_above_the_limit_keeps_two():
    film = Film(limit=1)
    for step in range(9):
        film.add(step, torch.zeros(1, 3, 4, 4))
    assert sorted(film.images) == [0, 8]


def test_moments_are_kept_as_they_were_within_their_bound():
    noise = Noise(torch.zeros(1, 2, 4, 4), [torch.zeros(1, 2, 4, 4)])
    moments = Moments(limit=6 * 3 * 32 * 4)  # of fp32: a latent and two noises each
    for step in range(20):
        with torch.no_grad():
            noise.initial.fill_(step)
        moments.add(step, torch.full((1, 2, 4, 4), float(step)), noise)
        assert moments.bytes <= moments.limit
    assert sorted(moments.kept) == [0, 4, 8, 12, 16] and moments.stride == 4
    for step, moment in moments.kept.items():
        assert (moment.latent == step).all() and (moment.noise.initial == step).all()
        assert len(moment.noise.injected) == 1


def test_the_first_picture_stays_whatever_is_better():
    history = history_of([0.1, 0.5], [0.4, 0.2], [0.3, 0.6])
    assert torch.equal(history.first, iterate(0, [0.1, 0.5]).image)


def test_target_waits_for_every_image_and_takes_their_best():
    rule = Target(0.5)
    history = history_of([0.6, 0.1])
    assert rule(history) is None
    history.add(iterate(1, [0.0, 0.5]), 2.0)  # the first has reached it before
    assert rule(history) == "reward target 0.5 reached"


def test_patience_counts_from_the_last_image_that_improved():
    rule, history = Patience(2), history_of([0.5, 0.5])
    for step, objectives, stops in [
        (1, [0.4, 0.6], False),
        (2, [0.4, 0.5], False),
        (3, [0.4, 0.5], True),
    ]:
        history.add(iterate(step, objectives), step + 1.0)
        assert bool(rule(history)) is stops
    assert rule(history) == "no better for 2 iterations"
    history.add(iterate(4, [0.9, 0.5]), 5.0)
    assert rule(history) is None


def test_the_time_budget_leaves_room_for_one_more_iteration():
    history = history_of([0.0], [0.0], [0.0])  # 6 seconds, 2 each
    assert TimeBudget(8.0)(history) is None
    assert TimeBudget(7.9)(history) == "time budget of 7.9 s used"


def test_the_first_rule_that_stops_gives_the_reason():
    history = history_of([0.5], [0.4])
    rules = (Patience(9), Target(0.5), TimeBudget(1.0))
    assert first_reason(rules, history) == "reward target 0.5 reached"
    assert first_reason(rules[:1], history) is None
    assert first_reason((), history) is None
