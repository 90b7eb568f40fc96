"""A VAE's decoder as a pure function of one image's latent: the same picture at every call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ....dno.autograd.blocks import by_block
from ....dno.autograd.generators import TorchGenerators
from ....dno.autograd.recompute import Recomputer
from ....dno.autograd.saved import Again, fetched

_TAEHV = {"parallel": True, "show_progress_bar": False}
CACHES = "feat_cache"  # Wan's decoders hand this list of frames from block to block


@contextmanager
def single_frame(network: nn.Module) -> Iterator[None]:
    """Within, decoders of video decode an image: they keep nothing for a next frame.

    Wan's would keep the input of every convolution, which is half of what backward needs. TAEHV
    makes four frames of one and hands on what it has detached, unless it makes them in parallel.
    """

    def forget(module: nn.Module, arguments: tuple, keywords: dict) -> tuple[tuple, dict] | None:
        if isinstance(keywords.get(CACHES), list):
            return arguments, {**keywords, CACHES: _Forgetful(keywords[CACHES])}
        return None

    decoder = getattr(network, "decoder", network)
    handle = decoder.register_forward_pre_hook(forget, with_kwargs=True)
    attributes = vars(network)
    before = {name: attributes[name] for name in _TAEHV if name in attributes}
    attributes.update({name: _TAEHV[name] for name in before})
    try:
        yield
    finally:
        handle.remove()
        attributes.update(before)


class _Forgetful(list):
    """A list in which no tensor stays."""

    def __setitem__(self, index, value) -> None:
        super().__setitem__(index, None if isinstance(value, Tensor) else value)


@contextmanager
def recomputed(
    blocks: Iterable[nn.Module],
    device: torch.device,
    known: dict[nn.Module, Recomputer],
    again: Again | None = None,
) -> Iterator[None]:
    """Within, these modules keep their inputs only, and repeat themselves in backward.

    known: what was learnt of them, to be handed in again.
    again: fetches weights that are cast, in these modules and beside them; the same every time.
    """
    blocks = list(blocks)
    notes = _notes(blocks)

    def remember() -> Callable[[], AbstractContextManager]:
        generators, then = TorchGenerators.now(device), _Noted.now(notes)

        @contextmanager
        def repeated() -> Iterator[None]:
            present = _Noted.now(notes)
            then.restore()
            try:
                with generators.during():
                    yield
            finally:
                present.restore()

        return repeated

    with by_block(blocks, known, remember=remember, again=again), fetched(again):
        yield


def _notes(blocks: Iterable[nn.Module]) -> list[dict]:
    """What modules note for themselves from call to call: LTXV's frames, by the thread's number."""
    modules = {module for block in blocks for module in block.modules()}
    return [
        note
        for module in modules
        for name, note in vars(module).items()
        if type(note) is dict and not name.startswith("_")
    ]


@dataclass(frozen=True)
class _Noted:
    """What stood in notes, and in which thread: backward may run in another one."""

    notes: list[dict]
    contents: list[dict]
    thread: int

    @classmethod
    def now(cls, notes: list[dict]) -> _Noted:
        return cls(notes, [dict(note) for note in notes], threading.get_ident())

    def restore(self) -> None:
        present = threading.get_ident()
        for note, content in zip(self.notes, self.contents, strict=True):
            note.clear()
            for key, value in content.items():
                note[present if key == self.thread else key] = value
