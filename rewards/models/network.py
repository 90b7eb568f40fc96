"""What every network of a learned reward says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...dno.sharing import once
from .building import Shapes

if TYPE_CHECKING:
    from typing_extensions import Self


class Network(nn.Module):
    """A network that a reward asks; what it differs in is declared by its class.

    title:          its kind, in words for people.
    tokenizer_name: whose tokenizer reads its prompts, "clip", "siglip", "bert", "t5" or "qwen2";
                    None if it reads none. The tokenizer itself is put into `tokenizer`.
    half_precision: what it is computed in where half precision is wanted.
    as_stored:      prefixes of weights that no half precision makes coarser than their file.
    patcher:        what moves it between memories, put there by whoever does that.
    """

    title: str = ""
    tokenizer_name: str | None = None
    half_precision: torch.dtype = torch.float16
    as_stored: tuple[str, ...] = ()
    tokenizer: Any = None
    patcher: Any = None

    def shared(self, image: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """`compute(image)`, its features: once for all rewards that ask this network."""
        return once((id(self), "features"), image, compute)


class Architecture(Network, ABC):
    """A network that is recognised by its weights and built of them."""

    @classmethod
    @abstractmethod
    def matches(cls, shapes: Shapes) -> bool:
        """Whether these are its weights, by their names and shapes."""

    @classmethod
    @abstractmethod
    def build(cls, state: Mapping[str, Tensor], config: Mapping | None = None) -> Self:
        """The network with these weights, and of the sizes in a config.json, where there is one.

        Without a config its sizes are those of the weights. Raises ValueError, one sentence, for
        weights that are not whole.
        """
