"""The nodes that add weighted groups of rewards or regularizers."""

import torch

from ComfyUI_DNO.dno.objective import Objective, Weighted
from ComfyUI_DNO.nodes import combine
from ComfyUI_DNO.regularizers import Probability, Spectrum
from ComfyUI_DNO.rewards import Brightness, Darkness

from ..support.examples import gaussian, picture


def test_combining_rewards_multiplies_weights_and_keeps_names():
    light, dark = Brightness(0.9), Darkness()
    (terms,) = combine.DNOCombineRewards.execute(
        reward_1={"brightness": Weighted(2.0, light)},
        reward_2={"darkness": Weighted(1.0, dark), "brightness": Weighted(1.0, light)},
        reward_4=None,
        weight_1=0.5,
        weight_2=-3.0,
        weight_3=1.0,
        weight_4=1.0,
    ).result
    assert {name: term.weight for name, term in terms.items()} == {
        "brightness": 1.0,
        "darkness": -3.0,
        "brightness 2": -3.0,
    }
    image = picture()
    total, scores = Objective(terms).reward(image)
    assert list(scores) == list(terms)
    torch.testing.assert_close(total, -2 * light(image) - 3 * dark(image))


def test_combined_rewards_combine_again():
    one = combine.DNOCombineRewards.execute(reward_1={"a": Weighted(2.0, Darkness())}, weight_1=2.0)
    (terms,) = combine.DNOCombineRewards.execute(reward_1=one.result[0], weight_1=2.0).result
    assert terms["a"].weight == 8.0


def test_combining_regularizers_works_alike():
    probability, spectrum = Probability(), Spectrum()
    (terms,) = combine.DNOCombineRegularizers.execute(
        regularizer_1={"probability": Weighted(1.0, probability)},
        weight_1=2.0,
        regularizer_2={"spectrum": Weighted(0.5, spectrum)},
        weight_2=3.0,
    ).result
    assert {name: term.weight for name, term in terms.items()} == {
        "probability": 2.0,
        "spectrum": 1.5,
    }
    noise = gaussian(2, 4, 8, 8, scale=1.2)
    total, _ = Objective({}, terms).regularization(noise)
    torch.testing.assert_close(total, 2 * probability(noise) + 1.5 * spectrum(noise))
