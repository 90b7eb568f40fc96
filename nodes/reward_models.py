"""Learned rewards' networks, from ComfyUI's model folders, and from their pages into these."""

from __future__ import annotations

from comfy_api.latest import io

from ..rewards.models.catalogue import PUBLISHED, by_label
from .host.judges.download import fetch
from .host.judges.reward_folders import fingerprint, names, path_of, problem
from .host.judges.reward_models import PRECISIONS, load
from .host.progress import say
from .schema import CATEGORY, RewardModelSocket, schema


class DNOLoadRewardModel(io.ComfyNode):
    """Loads the network of a learned reward from models/reward_models and recognises its kind."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DNOLoadRewardModel",
            display_name="Load Reward Model",
            category=f"{CATEGORY}/rewards/models",
            description=cls.__doc__,
            search_aliases=["DNO", "PickScore", "HPS", "ImageReward", "aesthetic", "CLIP"],
            inputs=[
                io.Combo.Input(
                    "name",
                    options=names(),
                    tooltip="A file or a Hugging Face folder in models/reward_models.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default="automatic",
                    tooltip="automatic: half precision on a GPU, fp32 on the processor.",
                ),
            ],
            outputs=[
                RewardModelSocket.Output(
                    display_name="reward_model", tooltip="For rewards that need such a network."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, name: str | None = None) -> bool | str:
        """Instead of ComfyUI's "not in list": which file, from where, into which folder."""
        return (problem(name) if isinstance(name, str) else "") or True  # a linked name is None

    @classmethod
    def fingerprint_inputs(cls, name: str | None = None, **_: object) -> str:
        return fingerprint(name)

    @classmethod
    def execute(cls, name: str, precision: str = "automatic") -> io.NodeOutput:
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision}: choose one of {', '.join(PRECISIONS)}.")
        network = load(path_of(name), PRECISIONS[precision])
        weights = sum(weight.numel() for weight in network.parameters())
        say(f"{network.title}, {weights / 1e6:.0f} million weights")
        return io.NodeOutput(network)


class DNODownloadRewardModel(io.ComfyNode):
    """Downloads a published reward model into models/reward_models, once, when you run it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DNODownloadRewardModel",
            display_name="Download Reward Model",
            category=f"{CATEGORY}/rewards/models",
            description=cls.__doc__,
            search_aliases=["DNO", "PickScore", "HPS", "ImageReward", "aesthetic", "huggingface"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=[entry.label for entry in PUBLISHED],
                    tooltip="What to download from huggingface.co, with its size.",
                ),
                io.Boolean.Input(
                    "verify",
                    default=False,
                    tooltip="Compare files that are already there with their published checksums, "
                    "and replace damaged ones.",
                ),
            ],
            outputs=[
                io.Custom("COMBO").Output(
                    display_name="name", tooltip="For the name input of Load Reward Model."
                )
            ],
            is_output_node=True,
        )

    @classmethod
    def fingerprint_inputs(cls, model: str | None = None, **_: object) -> str:
        return fingerprint(by_label(model).load) if model else ""

    @classmethod
    def execute(cls, model: str, verify: bool = False) -> io.NodeOutput:
        entry = by_label(model)
        fetch(entry, verify)
        return io.NodeOutput(entry.load)


NODES = [DNOLoadRewardModel, DNODownloadRewardModel]
