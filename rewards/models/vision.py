"""What every image encoder offers to rewards, whoever made its network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from torch import Tensor, nn

from ...dno.sharing import once
from .network import Network
from .preprocess import Preprocess
from .running import unit

T = TypeVar("T")
_DEPTHS = (0.25, 0.5, 0.75)  # of the layers whose patches tell the style


class VisionEncoder(Network, ABC):
    """A vision transformer. A subclass sets `family` and `preprocess`, and writes `see`.

    family: "clip", "siglip" or "dinov2", for what was trained on one of them.
    pooled: whether its embedding is the one that it was trained for, not a mean of its patches.
    """

    title = "vision encoder"
    family = ""
    pooled = True
    preprocess: Preprocess

    @abstractmethod
    def see(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Preprocessed (B,3,S,S) -> the embedding (B,D), and the middle layers' patches (B,N,C)."""

    @property
    @abstractmethod
    def width(self) -> int:
        """D, the length of an embedding."""

    def image_embed(self, image: Tensor, preprocess: Preprocess | None = None) -> Tensor:
        """(B,3,H,W) in [0,1] -> (B,D) of unit length, fp32."""
        return unit(self._seen(image, preprocess)[0])

    def patches(self, image: Tensor) -> tuple[Tensor, ...]:
        """(B,3,H,W) in [0,1] -> (B,N,C), fp32, of layers at a quarter, a half, three quarters."""
        return self._seen(image, None)[1:]

    def _seen(self, image: Tensor, preprocess: Preprocess | None) -> tuple[Tensor, ...]:
        preprocess = preprocess or self.preprocess
        return once((id(self), preprocess), image, lambda given: self.see(preprocess(given)))


def tower_of(network: nn.Module) -> Any:
    """The vision transformer of transformers' network; from version 5 on it may be the network."""
    return getattr(network, "vision_model", network)


def with_tower(named: Mapping[str, T]) -> dict[str, T]:
    """By the published names, where transformers 5 wrote a tower's own alone.

    >>> list(with_tower({"embeddings.patch_embedding.weight": 1}))
    ['vision_model.embeddings.patch_embedding.weight']
    """
    alone = "embeddings.patch_embedding.weight" in named
    return {f"vision_model.{name}" if alone else name: value for name, value in named.items()}


def without_tower(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By the published names, and by those that a network which is its own tower has as well."""
    return dict(state) | {name.removeprefix("vision_model."): t for name, t in state.items()}


@contextmanager
def collecting(layers: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Within, the middle layers' outputs (B,N,C) are put into the list, in order."""
    indices = sorted({max(round(len(layers) * depth), 1) - 1 for depth in _DEPTHS})
    patches: list[Tensor] = []

    def keep(layer, arguments, output) -> None:
        patches.append(output[0] if isinstance(output, tuple) else output)

    handles = [layers[index].register_forward_hook(keep) for index in indices]
    try:
        yield patches
    finally:
        for handle in handles:
            handle.remove()
