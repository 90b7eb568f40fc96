"""Published reward models into the folder of reward models: resumed, checked, interrupted."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import comfy.model_management as management
import comfy.utils

from ....rewards.models.catalogue import Piece, Published
from ....rewards.models.disk import unwritable
from ....rewards.models.files import is_folder
from ..web import say
from .hub import Hub, Remote
from .reward_folders import folder_to_fill, folders

_UNFINISHED = ".unfinished"  # in a folder whose files are not all there yet
_SMALLEST, _LARGEST = 2**20, 2**26  # bytes asked for at once
_SPARE = 2**26  # bytes of the disk that stay free


def fetch(entry: Published, verify: bool = False) -> None:
    """Have all files of an entry in the first folder of reward models; what is there is kept.

    Raises RuntimeError or OSError, one sentence, where the hub, the disk or a checksum says no.
    """
    root, others = folder_to_fill(), folders()[1:]
    with _written(root):
        pieces = entry.pieces
        there = (any(_complete(piece, folder) for folder in (root, *others)) for piece in pieces)
        if not verify and all(there):
            say(f"{entry.load} is there already")
            return
        hub = Hub()
        wanted = [file for file in hub.files(pieces, root) if not _kept(file, verify)]
        _check_disk(wanted, root)
        _fetch_all(hub, entry, wanted, root)
    say(f"{entry.load} is in {root}")


@contextmanager
def _written(root: Path) -> Iterator[None]:
    """What the disk says, in a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # a sentence already
            raise
        raise type(error)(unwritable(Path(error.filename or root), error)) from None


def _fetch_all(hub: Hub, entry: Published, wanted: list[Remote], root: Path) -> None:
    marks = [root / piece.target / _UNFINISHED for piece in entry.pieces if piece.is_folder]
    for mark in marks:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    bar = _Bar(entry.name, wanted)
    for file in wanted:
        _fetch(hub, file, bar)
    for mark in marks:
        mark.unlink()


def _complete(piece: Piece, root: Path) -> bool:
    target = root / piece.target
    if piece.is_folder:
        return target.is_dir() and is_folder(target) and not (target / _UNFINISHED).exists()
    return target.is_file()


def _kept(file: Remote, verify: bool) -> bool:
    """Whether the file at its place is the published one; its bytes are read only to verify."""
    if not file.target.is_file() or file.target.stat().st_size != file.size:
        return False
    if not verify:
        return True
    say(f"checking {file.target.name}")
    digest = _digest(file)
    _read_into(digest, file.target)
    return digest.hexdigest() == file.checksum


def _digest(file: Remote):
    """Of what the hub's checksum is of: sha256 of the bytes, or git's sha1 of a blob."""
    if len(file.checksum) == 64:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)


def _read_into(digest, path: Path) -> None:
    with path.open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
            management.throw_exception_if_processing_interrupted()


def _check_disk(files: list[Remote], root: Path) -> None:
    there = next(folder for folder in (root, *root.parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    wanted = sum(file.size - file.held for file in files)
    if files and wanted + _SPARE > free:
        raise OSError(
            f"{_in_words(wanted)} are to be downloaded and {_in_words(free)} are free at {root}: "
            "make room, or name another folder in extra_model_paths.yaml."
        )


def _fetch(hub: Hub, file: Remote, bar: _Bar) -> None:
    """One file; whatever stops it, what has come stays, and the next call goes on from there."""
    file.target.parent.mkdir(parents=True, exist_ok=True)
    for old in file.target.parent.glob(f"{file.target.name}.*.part"):
        if old != file.part:  # of a version that has been replaced
            old.unlink()
    digest, offset = _digest(file), file.held
    if offset:
        os.truncate(file.part, offset)
        _read_into(digest, file.part)
    bar.add(offset)
    size = _SMALLEST
    with file.part.open("ab") as part:
        while offset < file.size:
            management.throw_exception_if_processing_interrupted()
            started = time.monotonic()
            block = hub.read(file, offset, min(offset + size, file.size))
            part.write(block)
            digest.update(block)
            offset += len(block)
            bar.add(len(block))
            size = _next_size(size, time.monotonic() - started)
    if digest.hexdigest() != file.checksum:
        file.part.unlink()
        raise RuntimeError(
            f"{file.path} of huggingface.co/{file.repository} came damaged, its checksum is not "
            "the published one, and was removed: run this again."
        )
    _put(file)


def _next_size(size: int, seconds: float) -> int:
    """So that a request takes about a second: an interrupt waits for no more."""
    if seconds < 0.5:
        return min(2 * size, _LARGEST)
    return max(size // 2, _SMALLEST) if seconds > 2 else size


def _put(file: Remote) -> None:
    try:
        file.part.replace(file.target)
    except PermissionError:
        raise PermissionError(
            f"{file.target} is in use or protected and cannot be replaced: restart ComfyUI and "
            "run this again; nothing is downloaded twice."
        ) from None


class _Bar:
    """Bytes of all files, on the node's bar and as its text."""

    def __init__(self, name: str, files: list[Remote]):
        self._name, self._total = name, max(sum(file.size for file in files), 1)
        self._bar = comfy.utils.ProgressBar(self._total)
        self._come = 0

    def add(self, count: int) -> None:
        self._come += count
        self._bar.update_absolute(self._come, self._total)
        say(f"{self._name}: {_in_words(self._come)} of {_in_words(self._total)}")


def _in_words(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"
