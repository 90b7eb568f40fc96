"""A template's usual parts, in columns: what is loaded, what is asked, the sampler, the pictures.

The loader stands in a row above the others, so that its wires run over them and not behind them.
"""

from __future__ import annotations

from .models import JUDGES, Model
from .sheet import GAP, TITLE, Node, Output, Sheet

WIDE, AIR = 300, 60  # pixels: a column, and the room for wires beside it
ROOF = -150  # y of the row above
TALL = 780  # of the sampler, with room for its preview


class Page(Sheet):
    """A sheet with a model. Columns count from 0; y is 0 at the sampler's top."""

    def __init__(self, info, model: Model):
        super().__init__(info)
        self.model, self.loader = model, None  # a node with MODEL, CLIP and VAE

    @staticmethod
    def x(column: float) -> float:
        return column * (WIDE + AIR)

    def put(self, column: float, y: float, kind: str, /, **more) -> Node:
        return self.add(kind, (self.x(column), y), (WIDE, 0), **more)

    def load(self, column: float) -> Node:
        """The checkpoint, in the row above."""
        more = {"ckpt_name": self.model.file, "models": self.model.listed}
        self.loader = self.put(column, ROOF, "CheckpointLoaderSimple", **more)
        return self.loader

    def judge(self, column: float, y: float, name: str, title: str) -> Output:
        """A reward model."""
        more = {"title": title, "models": JUDGES[name]}
        node = self.put(column, y, "DNOLoadRewardModel", name=name, **more)
        return node["reward_model"]

    def vision(self, column: float, y: float, name: str) -> Output:
        """A network that looks at pictures."""
        node = self.put(column, y, "CLIPVisionLoader", clip_name=name, models=JUDGES[name])
        return node["CLIP_VISION"]

    def words(self, column: float, y: float, prompt, negative: str = "") -> dict:
        """Prompts and size below each other: a sampler's inputs, and the last node as `last`."""
        clip = self.loader["CLIP"]
        wanted = self.put(column, y, "CLIPTextEncode", title="Prompt", clip=clip, text=prompt)
        unwanted = self.below(
            wanted, "CLIPTextEncode", title="Negative prompt", clip=clip, text=negative
        )
        side = self.model.size
        size = self.below(unwanted, self.model.latent, title="Size", width=side, height=side)
        self.last = size
        return {
            "positive": wanted["CONDITIONING"],
            "negative": unwanted["CONDITIONING"],
            "latent_image": size["LATENT"],
        }

    def sampler(self, column: float, seed: int, **inputs) -> Node:
        """The DNO Sampler with the model's settings."""
        model = self.model
        settings = {"steps": model.steps, "cfg": model.cfg, "sampler_name": model.sampler}
        settings |= {"scheduler": model.scheduler, "seed": seed, "effort": "fast"}
        more = {"model": self.loader["MODEL"], "vae": self.loader["VAE"], **settings, **inputs}
        return self.add("DNOSampler", (self.x(column), 0), (WIDE + 40, TALL), **more)

    def pictures(self, column: float, latent: Output, name: str, below: str = "before") -> None:
        """What came out: decoded in the row above and saved beside it.

        below: under the decoder stands the picture "before", a "plot" of the reward, or nothing.
        """
        x, sampler = self.x(column) + 40, latent.node
        more = {"samples": latent, "vae": self.loader["VAE"]}
        decode = self.add("VAEDecode", (x, ROOF), (WIDE, 0), title="Decode", **more)
        place = (x + WIDE + AIR, ROOF)
        more = {"images": decode["IMAGE"], "filename_prefix": f"dno/{name}"}
        self.add("SaveImage", place, (WIDE + 120, 530), title="After", **more)
        if below == "plot":
            self.add("DNOHistoryPlot", (x, 0), (WIDE, 380), history=sampler["history"])
        elif below:
            more = {"title": "Before", "images": sampler["before"]}
            self.add("PreviewImage", (x, 0), (WIDE, 380), **more)

    def advice(self, column: float, y: float, text: str, height: float = 220) -> None:
        self.note(text, (self.x(column), y), (WIDE, height))

    def next(self, above: Node) -> float:
        """The y of what stands under a node."""
        return above.bottom + TITLE + GAP
