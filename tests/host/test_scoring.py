"""What decoding and judging take is known before the first sampling leaves records for later."""

from __future__ import annotations

import pytest
import torch

from ComfyUI_DNO.dno.objective import Objective, Weighted
from ComfyUI_DNO.nodes.host.judges.scoring import scoring
from ComfyUI_DNO.nodes.host.picture.decode import Decoder
from ComfyUI_DNO.nodes.host.sampling.levels import Levels
from ComfyUI_DNO.nodes.options import Options
from ComfyUI_DNO.nodes.sampler import DNOSampler
from ComfyUI_DNO.rewards import Darkness

from ..support import reward_files, tiny
from .test_reward_loading import Watched, clip, text_similarity  # noqa: F401

reward_folder = reward_files.reward_folder
SIDE = 8
PICTURE = 4 * 3 * 64 * 64  # bytes of one


def pictures(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.full((count, 3, 64, 64), 0.5), torch.zeros(count, 4, SIDE, SIDE)


def test_it_grows_with_the_pictures_and_disturbs_nothing(clip):  # noqa: F811
    objective = Objective(text_similarity(clip))
    state = torch.get_rng_state()
    one, four, seven = (scoring(objective, *pictures(count)) for count in (1, 4, 7))
    assert torch.equal(torch.get_rng_state(), state)
    assert 4 * PICTURE < one < 100 * PICTURE
    assert 3 * PICTURE < four - one == pytest.approx(seven - four, rel=0.2)
    assert not any(tensor.requires_grad for tensor in clip.parameters())


def test_rewards_without_a_network_are_not_asked():
    class Untouched(Darkness):
        def __call__(self, image):
            raise AssertionError("asked")

    assert scoring(Objective({"dark": Weighted(1.0, Untouched())}), *pictures(1)) == 0


def test_a_judge_that_fails_is_left_to_the_climb_to_tell_of(clip):  # noqa: F811
    def fail(calls):
        raise RuntimeError("no more")

    watched = Watched(text_similarity(clip)["CLIP text similarity"].function, clip, fail)
    assert scoring(Objective({"text": Weighted(1.0, watched)}), *pictures(1)) < 100
    assert watched.seen


@pytest.mark.parametrize("memory, waits", [("automatic", True), ("call", False)])
def test_records_leave_room_for_the_picture_and_its_judges(clip, monkeypatch, memory, waits):  # noqa: F811
    begin, reserved = Levels.begin, []

    def noting(self, wanted, free, between, *more):
        reserved.append(between)
        begin(self, wanted, free, between, *more)

    monkeypatch.setattr(Levels, "begin", noting)
    vae, terms = tiny.vae(), text_similarity(clip)
    for reward in ({"dark": Weighted(1.0, Darkness())}, terms):
        with torch.inference_mode():
            DNOSampler.execute(
                tiny.unet(), tiny.conditioning(1), tiny.conditioning(2),
                {"samples": torch.zeros(1, 4, SIDE, SIDE)}, vae, reward, 5, steps=2, cfg=3.0,
                sampler_name="euler", scheduler="normal", denoise=1.0, learning_rate=0.1,
                iterations=1, options=Options(memory=memory),
            )  # fmt: skip
    decoding, both = reserved
    whole = Decoder(vae, lambda latent: latent)._measured().ways((1, 4, SIDE, SIDE))[0]
    assert decoding == whole.bytes
    assert both - decoding == (scoring(Objective(terms), *pictures(1)) if waits else 0)
