"""Reward models under ComfyUI's memory management, and from their file to the sampler's run."""

import copy
import dataclasses
import gc
import weakref
from collections.abc import Callable

import comfy.model_management as management
import pytest
import torch

from ComfyUI_DNO.dno.fields import Model, fields_of
from ComfyUI_DNO.dno.objective import Reward, Weighted
from ComfyUI_DNO.nodes.host.judges import reward_models
from ComfyUI_DNO.nodes.host.judges.reward_models import PRECISIONS, bring_in, networks_in
from ComfyUI_DNO.nodes.reward_models import DNOLoadRewardModel
from ComfyUI_DNO.nodes.rewards import NODES as REWARD_NODES
from ComfyUI_DNO.nodes.sampler import DNOSampler
from ComfyUI_DNO.rewards import REWARDS

from ..support import reward_files, tiny
from ..support.examples import build, picture
from ..support.reward_files import write_clip
from ..support.tiny_models import original_clip
from ..support.tiny_models import tiny as tiny_model

reward_folder = reward_files.reward_folder
TEXT_SIMILARITY = next(n for n in REWARD_NODES if n.__name__ == "DNOCLIPTextSimilarityReward")


@pytest.fixture
def clip(reward_folder):
    """A CLIP as Load Reward Model gives it."""
    write_clip(reward_folder / "one.safetensors")
    return load("one.safetensors")


def load(name, **inputs):
    with torch.inference_mode():
        return DNOLoadRewardModel.execute(name=name, **inputs).result[0]


def text_similarity(network, prompt="a red fox"):
    with torch.inference_mode():
        return TEXT_SIMILARITY.execute(model=network, prompt=prompt, weight=1.0).result[0]


def loaded():
    return [entry.model for entry in management.current_loaded_models]


def tensors(network):
    return {**dict(network.named_parameters()), **dict(network.named_buffers())}


# Precision


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precision_is_as_asked_and_fp32_on_the_processor(reward_folder, precision):
    write_clip(reward_folder / "one.safetensors")
    network = load("one.safetensors", precision=precision)
    wanted = PRECISIONS[precision] or torch.float32
    assert {weight.dtype for weight in network.parameters()} == {wanted}
    assert not any(weight.requires_grad for weight in network.parameters())
    assert not network.training
    original = original_clip().state_dict()
    for name, weight in network.network.state_dict().items():
        torch.testing.assert_close(weight, original[name].to(wanted), rtol=0, atol=0)


def test_weights_that_share_memory_go_on_sharing_it():
    network = torch.nn.Linear(3, 3)
    network.tied = network.weight
    network.same = torch.nn.Parameter(network.weight.data)
    reward_models._cast(network, torch.float16, "x")
    assert network.tied is network.weight
    assert network.same.data_ptr() == network.weight.data_ptr()


def test_tables_that_no_file_holds_stay_exact():
    network = torch.nn.Linear(3, 3)
    network.register_buffer("angles", torch.ones(3), persistent=False)
    network.register_buffer("kept", torch.ones(3))
    reward_models._cast(network, torch.bfloat16, "x")
    assert (network.angles.dtype, network.kept.dtype) == (torch.float32, torch.bfloat16)


LEARNED = [cls for cls in REWARDS if any(isinstance(m, Model) for m, _ in fields_of(cls).values())]


@pytest.mark.parametrize("cls", LEARNED, ids=lambda cls: cls.__name__)
def test_every_learned_reward_scores_and_has_a_gradient_in_bf16(cls):
    copies = {}
    for name, (metadata, default) in fields_of(cls).items():
        if isinstance(metadata, Model) and default is dataclasses.MISSING:
            copies[name] = copy.deepcopy(tiny_model(metadata.kinds[0].title, torch.float32))
            reward_models._cast(copies[name], torch.bfloat16, name)
    reward = build(cls, **copies)
    seen = torch.rand(2, 4, 16, 16) if reward.space == "latent" else picture(2).float()
    seen.requires_grad_()
    value = reward(seen)
    value.sum().backward()
    assert value.dtype == torch.float32 and value.isfinite().all()
    assert seen.grad.isfinite().all() and seen.grad.abs().sum() > 0


# ComfyUI's management


def test_several_are_loaded_unloaded_and_loaded_again(reward_folder):
    networks = []
    for name in ("one", "two", "three"):
        write_clip(reward_folder / f"{name}.safetensors")
        networks.append(load(f"{name}.safetensors"))
    patchers = [network.patcher for network in networks]
    before = [{n: t.clone() for n, t in tensors(network).items()} for network in networks]
    rewards = [text_similarity(n)["CLIP text similarity"].function(picture(1)) for n in networks]
    for _ in range(2):
        management.load_models_gpu(patchers)
        assert sorted(map(id, loaded())) == sorted(map(id, patchers))
        assert all(patcher.loaded_size() == patcher.model_size() > 1e6 for patcher in patchers)
        management.unload_all_models()
        assert loaded() == []
        assert all(patcher.loaded_size() == 0 for patcher in patchers)
        for network, then in zip(networks, before, strict=True):
            now = tensors(network)
            assert now.keys() == then.keys()
            assert all(torch.equal(now[name], then[name]) for name in then)
            assert {t.device for t in now.values()} == {network.patcher.offload_device}
    again = [text_similarity(n)["CLIP text similarity"].function(picture(1)) for n in networks]
    assert torch.equal(torch.cat(again), torch.cat(rewards))


def test_room_is_made_by_taking_a_whole_network_away(clip):
    bring_in(clip)
    assert loaded() == [clip.patcher]
    assert clip.patcher.partially_unload(clip.patcher.offload_device, 1) == 0
    assert clip.patcher.loaded_size() == clip.patcher.model_size()
    (entry,) = management.current_loaded_models
    assert entry.model_unload(1)  # one byte is asked for
    assert clip.patcher.loaded_size() == 0
    management.current_loaded_models.remove(entry)
    bring_in(clip)
    assert clip.patcher.loaded_size() == clip.patcher.model_size()


def test_too_little_room_still_loads_it_whole(clip):
    clip.patcher.partially_load(clip.patcher.load_device, 1000)
    assert clip.patcher.loaded_size() == clip.patcher.model_size()
    assert not clip.model_lowvram


def test_free_memory_takes_it_away(clip):
    bring_in(clip)
    management.free_memory(1e30, clip.patcher.load_device)
    assert loaded() == [] and clip.patcher.loaded_size() == 0


def test_a_network_that_nobody_holds_is_freed(clip, reward_folder):
    bring_in(clip)
    write_clip(reward_folder / "two.safetensors")
    network = load("two.safetensors")
    bring_in(network)
    gone = weakref.ref(network)
    del network
    gc.collect()
    management.cleanup_models()
    assert gone() is None
    assert loaded() == [clip.patcher]


def test_networks_are_found_wherever_they_are_held(clip):
    terms = text_similarity(clip)
    assert networks_in(terms) == networks_in([(clip, terms)]) == networks_in({"a": clip}) == [clip]
    assert networks_in({"a": 3, "b": torch.nn.Linear(2, 2)}) == []


# From the file to the sampler


@dataclasses.dataclass(eq=False)
class Watched(Reward):
    """A reward, and what the tensors of its network were while it scored."""

    reward: object
    network: torch.nn.Module
    then: Callable[[int], None] = lambda calls: None
    seen: list = dataclasses.field(default_factory=list)

    def __call__(self, image):
        now = tensors(self.network).values()
        ordinary = not any(tensor.is_inference() or tensor.requires_grad for tensor in now)
        self.seen.append((ordinary, self.network.patcher in loaded()))
        self.then(len(self.seen))
        return self.reward(image)


def make_inference_tensors(network):
    """As a network is that another node has moved."""
    with torch.inference_mode():
        for module in network.modules():
            for table in (module._parameters, module._buffers):
                for name, tensor in table.items():
                    wrap = torch.nn.Parameter if table is module._parameters else torch.clone
                    extra = {"requires_grad": False} if wrap is torch.nn.Parameter else {}
                    table[name] = None if tensor is None else wrap(tensor.clone(), **extra)
    assert all(tensor.is_inference() for tensor in tensors(network).values())


def sample(watched, iterations=3):
    latent = {"samples": torch.zeros(1, 4, 8, 8)}
    with torch.inference_mode():
        return DNOSampler.execute(
            tiny.unet(), tiny.conditioning(1), tiny.conditioning(2), latent, tiny.vae(),
            {"text": Weighted(1.0, watched)}, 5, steps=3, cfg=3.0, sampler_name="euler",
            scheduler="normal", denoise=1.0, learning_rate=0.1, iterations=iterations,
        ).result  # fmt: skip


LATER = 3  # the first picture is a grey one, to see what scoring takes, and the second the start


def interrupt(calls):
    if calls == LATER:
        management.interrupt_current_processing()
        management.throw_exception_if_processing_interrupted()


def fail(calls):
    if calls == LATER:
        raise RuntimeError("no more")


def fail_at_once(calls):
    raise RuntimeError("not at all")


ENDS = {"done": None, "failed": fail, "failed at once": fail_at_once, "interrupted": interrupt}


@pytest.mark.parametrize("inference", [False, True], ids=["ordinary", "inference tensors"])
@pytest.mark.parametrize("end", ENDS)
def test_weights_are_ordinary_in_a_run_and_themselves_after_it(clip, end, inference):
    term = text_similarity(clip)["CLIP text similarity"]
    if inference:
        make_inference_tensors(clip)
    before = tensors(clip)
    watched = Watched(term.function, clip, ENDS[end] or (lambda calls: None))
    if end == "interrupted":
        with pytest.raises(management.InterruptProcessingException):
            sample(watched)
        management.interrupt_current_processing(False)
    elif end == "failed at once":
        with pytest.raises(RuntimeError, match="not at all"):
            sample(watched)
    else:
        sample(watched)
    assert watched.seen and set(watched.seen) == {(True, True)}
    after = tensors(clip)
    assert after.keys() == before.keys()
    assert all(after[name] is before[name] for name in before)
    management.unload_all_models()
    assert clip.patcher.loaded_size() == 0


def test_a_file_becomes_a_reward_that_the_sampler_climbs(clip):
    (term,) = text_similarity(clip).values()
    history = sample(term.function, iterations=5)[1]
    assert (history.best.reward > history.records[0].reward + 1e-3).all()


def test_an_unloaded_network_is_loaded_for_the_run(clip):
    watched = Watched(text_similarity(clip)["CLIP text similarity"].function, clip)
    management.unload_all_models()
    sample(watched, iterations=1)
    assert set(watched.seen) == {(True, True)}
