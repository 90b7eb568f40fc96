"""ComfyUI nodes that only the benchmarks need: the demo's judge, a reward that hides its gradient.

A sweep's file names this one under `custom_nodes`.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


class DNODemoJudge:
    """How well the demo's classifier recognises what the prompt's last word names, in [0, 1].

    named: 1 where that is its first guess. No objective sees it.
    """

    MEASURES = ["recognised", "named"]
    RETURN_TYPES, FUNCTION, OUTPUT_NODE, CATEGORY = (), "score", True, "benchmarks"
    _judge = None

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        prompt = ("STRING", {"default": "a cat", "forceInput": True})
        return {"required": {"image": ("IMAGE",), "prompt": prompt, "measure": (cls.MEASURES,)}}

    @classmethod
    def judge(cls):
        if cls._judge is None:
            sys.path.append(str(ROOT))  # at the end: ComfyUI's own modules come first
            from demo.classifier import Classifier

            cls._judge = Classifier.load()
        return cls._judge

    def score(self, image, prompt: str, measure: str) -> dict:
        pictures, judge = image.movedim(-1, 1), self.judge()
        found = judge.recognised(pictures, prompt.split()[-1])
        if measure == "named":
            found = (found >= judge.concepts(pictures).exp().amax(1) - 1e-6).float()
        return {"ui": {"dno_scores": [{"scores": found.tolist(), "terms": {}}]}}


def blind(weighted):
    """A weighted reward with its gradient hidden, as a program that only answers a number."""
    (function,) = (f.name for f in dataclasses.fields(weighted) if f.name != "weight")
    reward = getattr(weighted, function)

    class Blind(sys.modules[type(weighted).__module__].Reward):
        differentiable = False

        def __call__(self, image):
            return reward(image)

    return dataclasses.replace(weighted, **{function: Blind()})


class DNOHideGradient:
    """The same rewards, which must be estimated."""

    RETURN_TYPES, FUNCTION, CATEGORY = ("DNO_REWARD",), "hide", "benchmarks"

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {"required": {"reward": ("DNO_REWARD",)}}

    def hide(self, reward) -> tuple:
        return ({name: blind(weighted) for name, weighted in reward.items()},)


NODE_CLASS_MAPPINGS = {"DNODemoJudge": DNODemoJudge, "DNOHideGradient": DNOHideGradient}
