"""Random graphs around one DNO sampler: everything that it takes, and what people patch on models.

Nodes and their widgets are read from the nodes themselves, so that new ones are drawn too.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from random import Random

import comfy.samplers
import nodes
from hypothesis import strategies as st

from .tiny_nodes import PREDICTIONS, Fault

SAMPLERS, SCHEDULERS = comfy.samplers.KSampler.SAMPLERS, comfy.samplers.KSampler.SCHEDULERS
PATCHES = (
    *("FreeU_V2", "PerturbedAttentionGuidance", "RescaleCFG", "Mahiro", "TCFG", "CFGZeroStar"),
    *("APG", "FreSca", "Epsilon Scaling", "TemporalScoreRescaling", "UNetSelfAttentionMultiply"),
    *("TomePatchModel", "EasyCache", "LazyCache", "LatentApplyOperationCFG"),
    *("DifferentialDiffusion", "WritingCFG", "DrawingWrapper", "StepCache"),
)
SOCKETS = {  # what is put at a required socket
    "IMAGE": "TinyPicture",
    "MASK": "TinyMask",
    "LATENT_OPERATION": "LatentOperationTonemapReinhard",
}
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
KINDS, PLACES = ("interrupt", "oom", "error", "nan"), ("network", "decoder", "reward")
SLOTS = ("latent", "history", "noise", "sampler", "sigmas")  # of the DNO Sampler


@dataclass(frozen=True)
class Case:
    """plain: the graph with a KSampler; climbing: with a DNO sampler, its replay and a fault."""

    plain: dict
    climbing: dict
    prediction: str
    fault: Fault | None


class Graph:
    """A prompt that grows, node by node, with widgets drawn from what the nodes say of them."""

    def __init__(self, chance: Random):
        self.chance, self.nodes = chance, {}

    def add(self, kind: str, _id: str = "", /, **inputs) -> list:
        """One more node; the link to its first output."""
        name = _id or str(len(self.nodes) + 1)
        self.nodes[name] = {"class_type": kind, "inputs": inputs}
        return [name, 0]

    def filled(self, kind: str, /, **links) -> list:
        """A node whose other required inputs are drawn."""
        for name, (socket, options) in required(kind).items():
            if name in links:
                continue
            if socket in SOCKETS:
                links[name] = self.filled(SOCKETS[socket])
            else:
                links[name] = widget(self.chance, socket, options)
        return self.add(kind, **links)

    def reward(self, depth: int = 2) -> list:
        """A reward, or one made of several."""
        leaves, modifiers = pool()
        shape = self.chance.choice(("leaf", "leaf", "modified", "sum", "lowest"))
        if shape == "leaf" or depth == 0:
            return self.filled(self.chance.choice(leaves))
        if shape == "modified":
            return self.filled(self.chance.choice(modifiers), reward=self.reward(depth - 1))
        kind = "DNOCombineRewards" if shape == "sum" else "DNOMinimumReward"
        parts = {"reward_1": self.reward(depth - 1), "reward_2": self.reward(depth - 1)}
        return self.filled(kind, **parts)


@functools.cache
def required(kind: str) -> dict[str, tuple[str, dict]]:
    """A node's required inputs: name -> (kind of socket or widget, options)."""
    found = {}
    for name, (socket, *more) in nodes.NODE_CLASS_MAPPINGS[kind].INPUT_TYPES()["required"].items():
        options = dict(more[0]) if more else {}
        if isinstance(socket, list):
            socket, options = "COMBO", options | {"options": socket}
        found[name] = socket, options
    return found


@functools.cache
def pool() -> tuple[list[str], list[str]]:
    """The nodes of rewards that need no network, and of those that make a reward of a reward."""
    leaves, modifiers = ["FailingReward"], []
    for kind in sorted(nodes.NODE_CLASS_MAPPINGS):
        if not (kind.startswith("DNO") and kind.endswith("Reward")) or kind == "DNOMinimumReward":
            continue
        sockets = {socket for socket, _ in required(kind).values()} - set(WIDGETS) - set(SOCKETS)
        if not sockets:
            leaves.append(kind)
        elif sockets == {"DNO_REWARD"}:
            modifiers.append(kind)
    return leaves, modifiers


@functools.cache
def named(end: str) -> list[str]:
    """This pack's nodes whose name ends so and that need no connection."""
    return [
        kind
        for kind in sorted(nodes.NODE_CLASS_MAPPINGS)
        if kind.startswith("DNO") and kind.endswith(end) and "Combine" not in kind
        if all(socket in WIDGETS for socket, _ in required(kind).values())
    ]


def widget(chance: Random, kind: str, options: dict) -> object:
    """Most often the default, else any value that the node allows, within reason."""
    if kind == "COMBO":
        return chance.choice(list(options["options"]))
    if kind == "BOOLEAN":
        return chance.random() < 0.5
    low, high = options.get("min", 0), options.get("max", 1)
    default = options.get("default", "" if kind == "STRING" else low)
    if kind == "STRING" or chance.random() < 0.7:
        return default
    high = min(high, max(4 * default, low + 4))
    return chance.randint(low, int(high)) if kind == "INT" else chance.uniform(low, high)


@st.composite
def cases(draw) -> Case:
    # One draw alone: Hypothesis would try five neighbours of each graph before another one.
    chance = draw(st.randoms(use_true_random=True))
    graph, prediction = Graph(chance), chance.choice(list(PREDICTIONS))
    model = graph.add("TinyModel", "model", prediction=prediction)
    patches = chance.sample(PATCHES, chance.choice((0, 1, 1, 2)))
    for kind in patches:
        model = graph.filled(kind, model=model)
    vae = graph.add("TinyVAE", "vae")
    positive, negative = (graph.add("TinyPrompt", seed=seed) for seed in (1, 2))
    scheduled = chance.random() < 0.3
    if scheduled:
        positive = graph.add("ScheduledLora", model=model, conditioning=positive)
    latent = graph.add(
        "TinyLatent", "latent", batch=chance.choice((1, 1, 2)), width=chance.choice((8, 12)),
        start=chance.choice(("", "picture")), mask=chance.choice(("", "", "hard", "soft")),
        picked=chance.choice(("", "", "yes")), nonce=0,
    )  # fmt: skip
    plan = dict(
        seed=chance.getrandbits(40), steps=chance.randint(1, 4), cfg=chance.choice((1.0, 3.0, 7.5)),
        sampler_name=chance.choice(SAMPLERS), scheduler=chance.choice(SCHEDULERS),
        denoise=chance.choice((1.0, 1.0, 0.6)),
    )  # fmt: skip
    if scheduled or "APG" in patches:  # ComfyUI takes samplings of one step for one going on
        plan["steps"] = max(plan["steps"], 2)
    given = dict(model=model, positive=positive, negative=negative, latent_image=latent)
    plain = with_ksampler(graph, given | plan, vae)
    climb = climbing(graph, vae)
    fault = None
    if chance.random() < 0.6:
        place = chance.choice(PLACES)
        call = chance.randint(0, 30 if place == "network" else 4)
        fault = Fault(chance.choice(KINDS), place, call)
        if place == "reward":  # only where there is one that fails
            both = dict(reward_1=climb["reward"], reward_2=graph.add("FailingReward"))
            climb["reward"] = graph.filled("DNOCombineRewards", **both)
    custom = chance.random() < 0.25
    (with_guider if custom else with_sampler)(graph, given, plan, climb)
    return Case(plain, graph.nodes, prediction, fault)


def with_ksampler(graph: Graph, inputs: dict, vae: list) -> dict:
    """The graph so far, with a KSampler and its picture."""
    decode = {"samples": ["plain", 0], "vae": vae}
    return {
        **graph.nodes,
        "plain": {"class_type": "KSampler", "inputs": inputs},
        "decode": {"class_type": "VAEDecode", "inputs": decode},
        "keep plain": keep("plain", ["plain", 0]),
        "keep picture": keep("picture", ["decode", 0]),
        "keep given": keep("given", inputs["latent_image"]),
    }


def climbing(graph: Graph, vae: list) -> dict:
    """What a DNO sampler takes beside KSampler's inputs."""
    chance = graph.chance
    inputs = dict(vae=vae, reward=graph.reward(), iterations=chance.choice((0, 1, 2, 2)))
    inputs["learning_rate"] = chance.choice((0.02, 0.1))
    for name, end in (("regularizer", "Regularizer"), ("optimizer", "Optimizer")):
        if chance.random() < 0.5:
            inputs[name] = graph.filled(chance.choice(named(end)))
    if chance.random() < 0.3:
        few = dict(samples=chance.choice((2, 4)), at_once=chance.choice((0, 1)))
        inputs["gradient"] = graph.filled("DNOEstimatedGradient", **few)
    if chance.random() < 0.5:
        few = dict(best_of=chance.choice((1, 1, 3)), seconds=0.0)
        inputs["options"] = graph.filled("DNOOptions", **few)
    return inputs


def keep(name: str, value: list) -> dict:
    return {"class_type": "Keep", "inputs": {"name": name, "value": value}}


def with_sampler(graph: Graph, given: dict, plan: dict, climb: dict) -> None:
    """The DNO Sampler, and its noise replayed by ComfyUI's own nodes."""
    graph.add("DNOSampler", "climb", **given, **plan, **climb)
    for slot, name in enumerate(SLOTS[:2]):
        graph.nodes[f"keep {name}"] = keep(name, ["climb", slot])
    guider = dict(model=given["model"], positive=given["positive"], negative=given["negative"])
    graph.add("CFGGuider", "guider", **guider, cfg=plan["cfg"])
    links = {name: ["climb", slot] for slot, name in enumerate(SLOTS) if slot > 1}
    graph.add(
        "SamplerCustomAdvanced", "replay", guider=["guider", 0],
        latent_image=given["latent_image"], **links,
    )  # fmt: skip
    graph.nodes["keep replay"] = keep("replay", ["replay", 0])


def with_guider(graph: Graph, given: dict, plan: dict, climb: dict) -> None:
    """The custom form in SamplerCustomAdvanced."""
    inner = graph.add("KSamplerSelect", sampler_name=plan["sampler_name"])
    graph.add("DNOSamplerCustom", "climb", sampler=inner, **climb)
    schedule = {name: plan[name] for name in ("scheduler", "steps", "denoise")}
    guider = dict(model=given["model"], positive=given["positive"], negative=given["negative"])
    graph.add(
        "SamplerCustomAdvanced", "sampled", noise=graph.add("RandomNoise", noise_seed=plan["seed"]),
        guider=graph.add("CFGGuider", **guider, cfg=plan["cfg"]), sampler=["climb", 0],
        sigmas=graph.add("BasicScheduler", model=given["model"], **schedule),
        latent_image=given["latent_image"],
    )  # fmt: skip
    graph.nodes["keep latent"] = keep("latent", ["sampled", 0])
