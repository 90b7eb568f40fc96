"""What several terms of an objective have in common is computed once; rewards of the latent."""

import pytest
import torch

from ComfyUI_DNO.dno.ascent import ascend
from ComfyUI_DNO.dno.noise import Noise
from ComfyUI_DNO.dno.objective import Objective, Reward, TermError, Weighted
from ComfyUI_DNO.dno.sharing import once, sharing
from ComfyUI_DNO.rewards import Brightness, Crop, Minimum


class Encoder:
    """Counts how often it encodes."""

    def __init__(self):
        self.calls = 0

    def __call__(self, image):
        return once(self, image, self._encode)

    def _encode(self, image):
        self.calls += 1
        return (image * 3).tanh()


class Feature(Reward):
    def __init__(self, encoder, channel):
        self.encoder, self.channel = encoder, channel

    def __call__(self, image):
        return self.encoder(image)[:, self.channel].mean((1, 2))


class OfLatent(Reward):
    space = "latent"

    def __call__(self, latent):
        return -latent.square().flatten(1).mean(1)


def test_an_encoder_of_several_rewards_runs_once_per_scoring_and_keeps_the_gradient():
    encoder = Encoder()
    terms = {str(c): Weighted(c + 1.0, Feature(encoder, c)) for c in range(3)}
    image = torch.rand(2, 3, 8, 8, requires_grad=True)
    total, _ = Objective(terms).reward(image)
    (shared,) = torch.autograd.grad(total.sum(), image)
    assert encoder.calls == 1
    apart = sum(term.weight * term.function(image).sum() for term in terms.values())
    torch.testing.assert_close(shared, torch.autograd.grad(apart, image)[0])
    assert encoder.calls == 4


def test_another_image_or_another_scoring_is_computed_anew():
    encoder, image = Encoder(), torch.rand(1, 3, 4, 4)
    objective = Objective({"a": Weighted(1.0, Feature(encoder, 0))})
    objective.reward(image)
    objective.reward(image)
    assert encoder.calls == 2
    with sharing():
        encoder(image), encoder(image.clone()), encoder(image)
    assert encoder.calls == 4


def test_a_value_without_a_gradient_is_not_given_to_who_needs_one():
    encoder, image = Encoder(), torch.rand(1, 3, 4, 4, requires_grad=True)
    with sharing():
        with torch.no_grad():
            assert not encoder(image).requires_grad
        assert encoder(image).requires_grad


def climbed(terms, decode, iterations=20):
    noise = Noise(torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1)))
    return list(
        ascend(lambda n: n.initial * 2, decode, Objective(terms), noise, iterations=iterations,
               learning_rate=0.1)
    )  # fmt: skip


def test_a_reward_of_the_latent_climbs_and_the_picture_is_decoded_without_a_gradient():
    graphs = []

    def decode(latent):
        graphs.append(torch.is_grad_enabled())
        return latent[:, :3].sigmoid()

    iterates = climbed({"latent": Weighted(1.0, OfLatent())}, decode)
    assert (iterates[-1].reward > iterates[0].reward + 1).all()
    torch.testing.assert_close(iterates[0].reward, OfLatent()(iterates[0].latent))
    assert not any(graphs)


def test_rewards_of_latent_and_picture_add_their_gradients():
    terms = {"latent": Weighted(1.0, OfLatent()), "bright": Weighted(1.0, Brightness())}
    first = climbed(terms, lambda latent: latent[:, :3].sigmoid(), 1)[0]
    latent = first.latent.clone().requires_grad_()
    alone = OfLatent()(latent) + Brightness()(latent[:, :3].sigmoid())
    torch.testing.assert_close(first.reward, alone.detach())


def test_a_latent_may_be_on_another_device_than_its_picture():
    """As where the VAE stays on the processor; here the picture is on a device without numbers."""
    terms = {"latent": Weighted(1.0, OfLatent()), "bright": Weighted(1.0, Brightness())}
    picture, latent = torch.rand(2, 3, 4, 4, device="meta"), torch.rand(2, 4, 4, 4)
    total, values = Objective(terms).reward(picture, latent)
    assert {value.device for value in (total, *values.values())} == {picture.device}


def test_a_reward_of_the_latent_cannot_score_or_crop_a_picture():
    with pytest.raises(TermError, match="here is only a picture"):
        Objective({"latent": Weighted(1.0, OfLatent())}).reward(torch.rand(1, 3, 4, 4))
    with pytest.raises(ValueError, match="cannot be masked or cropped"):
        Crop(width=0.5)(OfLatent())
    mixed = {"a": Weighted(1.0, OfLatent()), "b": Weighted(1.0, Brightness())}
    with pytest.raises(ValueError, match="some the latent"):
        Minimum(mixed)
