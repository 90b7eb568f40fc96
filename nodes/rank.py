"""A batch of pictures, sorted by any reward, and a contact sheet of it."""

from __future__ import annotations

from collections.abc import Mapping

from comfy_api.latest import io, ui
from torch import Tensor

from ..dno.objective import Weighted
from .drawing.sheet import MOST, Tile, order, reduced, sheet
from .host import metadata
from .host.web import say
from .schema import CATEGORY, RewardSocket, drawn, schema
from .score import score_images, table, unseen


class DNORankImages(io.ComfyNode):
    """Sorts pictures by a reward, best first, and draws them on a contact sheet."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DNORankImages",
            display_name="DNO Rank Images",
            category=CATEGORY,
            description=cls.__doc__,
            search_aliases=["DNO", "reward", "sort", "best of n", "contact sheet", "pick"],
            is_output_node=True,
            inputs=[
                io.Image.Input("image", tooltip="The pictures to sort: a batch."),
                RewardSocket.Input("reward", tooltip="What they are sorted by."),
                io.Int.Input(
                    "keep", default=0, min=0, max=4096,
                    tooltip="Hand on only the best so many pictures; 0 hands on all.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="The pictures, best first."),
                io.Int.Output(
                    display_name="best_index",
                    tooltip="Number of the best in the batch that came in; the first is 0.",
                ),
                io.Float.Output(display_name="best_score", tooltip="Its weighted reward."),
                io.String.Output(
                    display_name="scores", tooltip="A table, one line per picture, best first."
                ),
                io.Float.Output(
                    display_name="ranked_scores", is_output_list=True,
                    tooltip="The weighted reward of each picture handed on, as a list.",
                ),
                io.Image.Output(
                    display_name="sheet", tooltip="All pictures with their numbers and scores."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, image: Tensor, reward: Mapping[str, Weighted], keep: int) -> io.NodeOutput:
        metadata.begin(cls.hidden)
        rewards, terms, pictures = score_images(image, reward)
        ranked = order(rewards)
        text = f"{table(rewards, terms, ranked[0], indices=ranked)}\n{unseen(pictures)}".strip()
        say(text)
        tiles = [
            Tile(reduced(pictures[index : index + 1], len(pictures)), f"#{index}", rewards[index])
            for index in ranked[:MOST]
        ]
        contact = drawn(sheet(tiles, len(ranked) - len(tiles)))
        kept = ranked[: keep or None]
        batch = image[None] if image.ndim == 3 else image
        preview = ui.PreviewImage(contact, cls=cls).as_dict()
        return io.NodeOutput(
            batch[kept],
            ranked[0],
            rewards[ranked[0]],
            text,
            [rewards[index] for index in kept],
            contact,
            ui={**preview, "text": [text]},
        )


NODES = [DNORankImages]
