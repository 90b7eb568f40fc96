"""Tiny random models and patches as nodes of ComfyUI, and calls that fail when told to."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import comfy.hooks
import comfy.model_management as management
import torch
from comfy.comfy_types import IO
from comfy_execution.utils import get_executing_context

from ComfyUI_DNO.dno.objective import Reward, Weighted

from ..host.test_model_patches import lora
from ..support import tiny

KEPT: dict[str, object] = {}  # what the nodes `Keep` of the last prompt were given
PREDICTIONS = {name: getattr(tiny.ModelType, name) for name in ("EPS", "V_PREDICTION", "FLOW")}


class Broken(RuntimeError):
    """The error that a fault raises."""


@dataclass
class Fault:
    """What happens at one call, counted from 0. kind: interrupt, oom, error or nan."""

    kind: str
    place: str  # network, decoder or reward
    call: int
    seen: int = field(default=0, compare=False)
    happened: bool = field(default=False, compare=False)

    def __call__(self, output):
        """The output, or what becomes of it."""
        now, self.seen = self.seen == self.call, self.seen + 1
        if not now:
            return output
        self.happened = True
        if self.kind == "interrupt":
            management.interrupt_current_processing()
            management.throw_exception_if_processing_interrupted()
        if self.kind == "oom":
            raise management.OOM_EXCEPTION("out of memory, as a device says it")
        if self.kind == "error":
            raise Broken("something failed")
        return output * float("nan")


CLIMBING = ("climb", "sampled")  # the ids of nodes that run a climb
FAULT: list[Fault] = []  # the one of the prompt that runs


def strike(place: str, output):
    """What a fault makes of a call of the node that climbs; of others, the replay's, nothing."""
    context, fault = get_executing_context(), FAULT[0] if FAULT else None
    climbing = context is not None and context.node_id in CLIMBING
    return fault(output) if fault and fault.place == place and climbing else output


@functools.cache
def model(prediction: str):
    """One for all prompts, an inference tensor in every weight, whose network can fail."""
    with torch.inference_mode():
        made = tiny.unet(PREDICTIONS[prediction])
    network = made.model.diffusion_model
    network.register_forward_hook(lambda module, given, output: strike("network", output))
    return made


@functools.cache
def vae():
    with torch.inference_mode():
        made = tiny.vae()
    decode = made.first_stage_model.decode
    made.first_stage_model.decode = lambda *a, **k: strike("decoder", decode(*a, **k))
    return made


class Failing(Reward):
    """A smooth reward that can fail."""

    differentiable = True

    def __call__(self, image):
        ramp = torch.linspace(1, -1, image.shape[-1]).to(image)
        return strike("reward", (image * ramp).mean((1, 2, 3)) * 5)


def node(returned: tuple[str, ...], **inputs):
    """A node of the first kind around a function of these inputs."""

    def wrap(function):
        def run(self, **values):
            made = function(**values)
            return made if isinstance(made, dict) and "ui" in made else (made,)

        return type(
            function.__name__, (),
            {
                "INPUT_TYPES": classmethod(lambda cls: {"required": inputs}),
                "RETURN_TYPES": returned, "FUNCTION": "run", "CATEGORY": "tests", "run": run,
                "OUTPUT_NODE": not returned,
            },
        )  # fmt: skip

    return wrap


NUMBER, WORD = ("INT", {"default": 0, "max": 2**62}), ("STRING", {"default": ""})


@node(("MODEL",), prediction=(list(PREDICTIONS), {}))
def TinyModel(prediction):
    return model(prediction)


@node(("VAE",))
def TinyVAE():
    return vae()


@node(("CONDITIONING",), seed=NUMBER)
def TinyPrompt(seed):
    return tiny.conditioning(seed)


@node(("CONDITIONING",), model=("MODEL", {}), conditioning=("CONDITIONING", {}))
def ScheduledLora(model, conditioning):
    """Its strength follows hook keyframes, state that the host resets once per sampling."""
    group = comfy.hooks.create_hook_lora({}, 1.0, 0.0)
    group.hooks[0].weights = lora(model)
    frames = comfy.hooks.HookKeyframeGroup()
    for strength, start in ((1.0, 0.0), (0.3, 0.4), (0.0, 0.8)):
        frames.add(comfy.hooks.HookKeyframe(strength=strength, start_percent=start))
    group.hooks[0].hook_keyframe = frames
    return comfy.hooks.set_hooks_for_conditioning(conditioning, group)


@node(("LATENT",), batch=NUMBER, width=NUMBER, start=WORD, mask=WORD, picked=WORD, nonce=NUMBER)
def TinyLatent(batch, width, start, mask, picked, nonce):
    """nonce: another one, and ComfyUI computes anew what follows."""
    made = {"samples": torch.zeros(batch, 4, 8, width)}
    if start == "picture":
        made["samples"] = torch.randn(
            made["samples"].shape, generator=torch.Generator().manual_seed(1)
        )
    if mask:
        ramp = torch.linspace(0, 1, 8 * width)
        made["noise_mask"] = (ramp if mask == "soft" else ramp.round()).expand(1, 64, -1)
    if picked:
        made["batch_index"] = list(range(1, 2 * batch, 2))
    return made


@node(("MODEL",), model=("MODEL", {}))
def WritingCFG(model):
    """A CFG function that writes into its arguments, as some packs do."""

    def combine(args):
        cond, uncond = args["cond"], args["uncond"]
        cond -= uncond
        cond *= args["cond_scale"]
        cond += uncond
        return cond

    made = model.clone()
    made.set_model_sampler_cfg_function(combine)
    return made


@node(("MODEL",), model=("MODEL", {}))
def DrawingWrapper(model):
    """Noise on the network's input from torch's own generator."""

    def wrapper(apply, args):
        given = args["input"] + 0.05 * torch.randn_like(args["input"])
        return apply(given, args["timestep"], **args["c"])

    made = model.clone()
    made.set_model_unet_function_wrapper(wrapper)
    return made


@node(("MODEL",), model=("MODEL", {}))
def StepCache(model):
    """Every second step takes the first one's change over; its state is reset at the first step."""
    state: dict = {}

    def wrapper(apply, args):
        sigmas = args["c"]["transformer_options"]["sample_sigmas"]
        step = int((sigmas - args["timestep"][0]).abs().argmin())
        if step == 0:
            state.clear()
        if step % 2 and state and state["change"].shape == args["input"].shape:
            return args["input"] + state["change"]
        output = apply(args["input"], args["timestep"], **args["c"])
        state["change"] = (output - args["input"]).detach()
        return output

    made = model.clone()
    made.set_model_unet_function_wrapper(wrapper)
    return made


@node(("IMAGE",), seed=NUMBER)
def TinyPicture(seed):
    return torch.rand(1, 24, 32, 3, generator=torch.Generator().manual_seed(seed))


@node(("MASK",), seed=NUMBER)
def TinyMask(seed):
    return torch.rand(1, 24, 32, generator=torch.Generator().manual_seed(seed))


@node(("DNO_REWARD",))
def FailingReward():
    return {"failing": Weighted(1.0, Failing())}


@node((), name=WORD, value=(IO.ANY, {}))
def Keep(name, value):
    KEPT[name] = value
    return {"ui": {}}


OWN = (
    *(TinyModel, TinyVAE, TinyPrompt, TinyLatent, TinyPicture, TinyMask, ScheduledLora, WritingCFG),
    *(DrawingWrapper, StepCache, FailingReward, Keep),
)
