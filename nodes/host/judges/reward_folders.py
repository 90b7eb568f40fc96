"""The files in ComfyUI's folders of reward models: what is there, where, and what to do if not."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath

import folder_paths

from ....rewards.models.catalogue import known_as
from ....rewards.models.disk import missing_link, unreadable
from ....rewards.models.files import FOLDER_MARKS, SUFFIXES, is_folder

FOLDER = "reward_models"
_SETTLED = 2.0  # seconds: a folder changed later than this before its listing may change unseen
_listings: dict[Path, tuple[dict[Path, int], dict[str, str]]] = {}


def folders() -> list[Path]:
    """Where reward models are: models/reward_models and what extra_model_paths.yaml adds."""
    folder_paths.add_model_folder_path(FOLDER, str(_own()))
    return [Path(folder) for folder in folder_paths.get_folder_paths(FOLDER)]


def _own() -> Path:
    return Path(folder_paths.models_dir) / FOLDER


def folder_to_fill() -> Path:
    """The first of them, for what is downloaded. Raises OSError if its drive is not there."""
    root = folders()[0]
    if root != _own() and not root.exists() and not root.parent.is_dir():
        raise FileNotFoundError(
            f"{missing_link(root) or f'{root} is not there'}: mount its drive, or name another "
            "folder in extra_model_paths.yaml."
        )
    return root


def names() -> list[str]:
    """Files with weights, and folders of Hugging Face, in the folders and below; each once."""
    seen: set[str] = set()
    unique: set[str] = set()
    for root in folders():
        for real, name in _listing(root).items():
            if real not in seen and name not in unique:
                seen.add(real)
                unique.add(name)
    return sorted(unique)


def _listing(root: Path) -> dict[str, str]:
    """Where things really are -> their names; ComfyUI asks often, so read only what has changed."""
    kept = _listings.get(root)
    if kept and all(_changed(folder) == then for folder, then in kept[0].items()):
        return kept[1]
    started = time.time_ns()
    read: dict[Path, int] = {}
    listing: dict[str, str] = {}
    for name, real in _walk(root, "", read, frozenset()):
        listing.setdefault(real, name)
    if all(then < started - _SETTLED * 1e9 for then in read.values()):
        _listings[root] = read, listing
    else:
        _listings.pop(root, None)
    return listing


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def _walk(
    folder: Path, prefix: str, read: dict[Path, int], above: frozenset[str]
) -> Iterator[tuple[str, str]]:
    """(name, where it really is) of what is loadable in a folder and below, links last.

    Links are followed, but not back to a folder above. What cannot be read is passed over, as
    ComfyUI does.
    """
    real = os.path.realpath(folder)
    read[folder] = _changed(folder)
    if real in above:
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: (entry.is_symlink(), entry.name))
    except OSError:
        read[folder] = time.time_ns()  # it may be readable the next time, unchanged
        return
    marked = any(entry.name in FOLDER_MARKS for entry in entries)
    if prefix and marked and is_folder(folder):
        read.update((Path(entry), _changed(Path(entry))) for entry in entries if entry.is_dir())
        yield prefix.rstrip("/"), real
        return
    for entry in entries:
        if entry.name.startswith(".") or not (kind := _kind(entry)):
            continue
        if kind == "folder":
            below = folder / entry.name
            yield from _walk(below, f"{prefix}{entry.name}/", read, above | {real})
        elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
            link = entry.is_symlink()
            target = os.path.realpath(entry) if link else os.path.join(real, entry.name)
            yield f"{prefix}{entry.name}", target


def _kind(entry: os.DirEntry) -> str:
    """ "folder", "file", or empty for what is neither or leads to where nobody may look."""
    try:
        return "folder" if entry.is_dir() else "file" if entry.is_file() else ""
    except OSError:
        return ""


def path_of(name: str) -> Path:
    """Where the file or folder of that name is. Raises FileNotFoundError, what to do about it."""
    wrong = problem(name)
    if wrong:
        raise FileNotFoundError(wrong)
    return _path(name)


def _path(name: str) -> Path | None:
    for root in folders():
        path = root / name
        if path.is_file() or path.is_dir():
            return path
    return None


def problem(name: str) -> str:
    """Why there is no such reward model and what mends it, one sentence; empty if it is there."""
    if not _inside(name):
        return f"{name!r} is no name of a reward model: choose one from the list."
    root, *others = folders()
    try:
        if _path(name):
            return ""
        lost = next(filter(None, (missing_link(each / name) for each in (root, *others))), "")
    except OSError as error:
        return unreadable(Path(error.filename or root / name), error)
    if lost:
        return f"{lost}: mount its drive, or put the file itself there."
    if absent := [each for each in (root, *others) if each != _own() and not each.is_dir()]:
        return f"{name} is not found, and {absent[0]} is not there: mount its drive, or create it."
    entry = known_as(name)
    if entry is None:
        return f"{name} is not in {root}: put it there and press R, or choose another file."
    size = f" ({entry.gigabytes:g} GB)" if entry.gigabytes else ""
    there = _path(entry.load)
    if there:
        return f"{name} is not in {root}: choose {entry.load}, which is the same reward model."
    targets = " and ".join(dict.fromkeys(_shown(root, entry.load, p.target) for p in entry.pieces))
    return (
        f"{name} is not in {root}: get {entry.origin}{size} as {targets}, or run Download "
        f"Reward Model with {entry.name}."
    )


def _shown(root: Path, load: str, target: str) -> str:
    inside = target.startswith(f"{load}/")
    return str(root / load) + os.sep if inside else str(root / target)


def _inside(name: str) -> bool:
    """Whether a name stays below the folder that it is joined to, on every system."""
    kinds = (PurePosixPath(name), PureWindowsPath(name))
    plain = not any(kind.anchor or ".." in kind.parts for kind in kinds)
    return plain and "\0" not in name and bool(kinds[0].parts)


def fingerprint(name: str | None) -> str:
    """Changes when a file is replaced, so that ComfyUI reads it again."""
    path = _path(name) if name and _inside(name) else None
    if path is None:
        return ""
    paths = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    stats = [(path.name, path.stat()) for path in paths]
    return repr([(name, stat.st_mtime_ns, stat.st_size) for name, stat in stats])
