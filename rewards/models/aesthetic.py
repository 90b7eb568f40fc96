"""Heads that read a picture's embedding and say how beautiful it is, alone or with their encoder.

Layouts: LAION's `layers.0` ... `layers.7` on CLIP L/14; the same as `mlp.layers` beside
`clip.vision_model` (RE-N-Y/laion-aesthetic, as imscore writes it) or beside `vision_model`; v2.5's
`scoring_head.0` ... `scoring_head.8` on SigLIP so400m, alone or beside `vision_model`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from .building import Shapes, assemble, dense
from .clip import CLIPVision
from .network import Architecture
from .siglip import SigLIPVision
from .vision import VisionEncoder

_HEADS = {
    "mlp.layers.": ("clip", (0, 2, 4, 6, 7)),
    "layers.scoring_head.": ("siglip", (0, 2, 4, 6, 8)),
    "scoring_head.": ("siglip", (0, 2, 4, 6, 8)),
    "layers.": ("clip", (0, 2, 4, 6, 7)),
}
_TOWERS = ("clip.", "")
_ENCODERS: tuple[type[CLIPVision | SigLIPVision], ...] = (CLIPVision, SigLIPVision)


class AestheticHead(Architecture):
    """Linear layers one after the other, without activations; between them was only dropout.

    family: of the encoder that it was trained on. encoder: the one of its own file, or None.
    """

    title = "aesthetic predictor"

    def __init__(self, head: nn.ModuleList, family: str, encoder: VisionEncoder | None) -> None:
        super().__init__()
        self.head, self.family, self.encoder = head, family, encoder

    @classmethod
    def matches(cls, shapes: Shapes) -> bool:
        """Whether these are a head's weights, and no others but those of its encoder."""
        prefix = _head_of(shapes)
        if not prefix or shapes[f"{prefix}{_HEADS[prefix][1][-1]}.weight"][0] != 1:
            return False
        rest = {name: shape for name, shape in shapes.items() if not name.startswith(prefix)}
        return not rest or _tower_of(rest) is not None

    @classmethod
    def build(cls, state: Mapping[str, Tensor], config: Mapping | None = None) -> AestheticHead:
        """The head, with the encoder if its weights are there; sizes are those of the weights."""
        prefix = _head_of(state)
        family, numbers = _HEADS[prefix]
        named = {
            f"{layer}.{kind}": state[f"{prefix}{number}.{kind}"]
            for layer, number in enumerate(numbers)
            for kind in ("weight", "bias")
            if f"{prefix}{number}.{kind}" in state
        }
        pairs = [named[f"{layer}.weight"].shape for layer in range(len(numbers))]
        head = assemble(
            lambda: nn.ModuleList(nn.Linear(inner, outer) for outer, inner in pairs),
            named,
            cls.title,
        )
        rest = {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}
        return cls(head, family, _encoder(rest)).train(False)

    @property
    def width(self) -> int:
        """How many numbers of an embedding it reads."""
        first = self.head[0]
        assert isinstance(first, nn.Linear)
        return first.in_features

    def reward(self, embed: Tensor) -> Tensor:
        """(B,D) of unit length -> (B,), fp32."""
        return dense(self.head, embed)[:, 0]


def _head_of(names: Mapping[str, object]) -> str:
    """The prefix of the head's layers, or "" where there is none."""
    for prefix, (_, numbers) in _HEADS.items():
        if all(f"{prefix}{number}.weight" in names for number in numbers):
            return prefix
    return ""


def _tower_of(shapes: Shapes) -> tuple[str, type[CLIPVision | SigLIPVision]] | None:
    """The prefix and the class of the encoder."""
    for prefix in _TOWERS:
        named = {n[len(prefix) :]: s for n, s in shapes.items() if n.startswith(prefix)}
        for kind in _ENCODERS:
            if kind.matches(named):
                return prefix, kind
    return None


def _encoder(state: Mapping[str, Tensor]) -> VisionEncoder | None:
    tower = _tower_of({name: tuple(tensor.shape) for name, tensor in state.items()})
    if tower is None:
        return None
    prefix, kind = tower
    return kind.build({n[len(prefix) :]: t for n, t in state.items() if n.startswith(prefix)})
