"""Learned rewards' networks, from ComfyUI's model folders."""

from __future__ import annotations

from comfy_api.latest import io

from .host.progress import say
from .host.reward_models import PRECISIONS, find, load, names
from .schema import CATEGORY, RewardModelSocket, schema


class DNOLoadRewardModel(io.ComfyNode):
    """Loads the network of a learned reward from models/reward_models and recognises its kind."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DNOLoadRewardModel",
            display_name="Load Reward Model",
            category=f"{CATEGORY}/rewards",
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
    def execute(cls, name: str, precision: str = "automatic") -> io.NodeOutput:
        network = load(find(name), PRECISIONS[precision])
        weights = sum(weight.numel() for weight in network.parameters())
        say(f"{network.title}, {weights / 1e6:.0f} million weights")
        return io.NodeOutput(network)


NODES = [DNOLoadRewardModel]
