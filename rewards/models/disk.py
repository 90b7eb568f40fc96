"""What a disk says when it refuses, as the sentence that mends it."""

from __future__ import annotations

import errno
from pathlib import Path

_GONE = (
    *("EIO", "ENXIO", "ENODEV", "ENOTCONN", "ESTALE", "ETIMEDOUT"),
    *("EHOSTDOWN", "EHOSTUNREACH", "ENOMEDIUM", "EREMOTEIO"),
)
_NOT_MOUNTED = {getattr(errno, name) for name in _GONE if hasattr(errno, name)}
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_ANOTHER = "or name another folder in extra_model_paths.yaml"


def unreadable(path: Path, error: OSError) -> str:
    """Why a file or folder could not be read, and what to do."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{path} may not be read by ComfyUI: give its user the right to read it."
    if error.errno in _NOT_MOUNTED:
        return f"{path} cannot be read, {_answer(error)}: check that its drive is mounted."
    return f"{path} cannot be read ({error.strerror or error}): check its disk."


def unwritable(path: Path, error: OSError) -> str:
    """Why nothing could be written at or below a folder, and what to do."""
    kind = error.errno
    lost = missing_link(path)
    if lost:
        return f"{lost}: mount its drive, or remove the link."
    if kind == errno.EROFS:
        return f"{path} is on a disk that is read-only: make it writable, {_ANOTHER}."
    if kind in (errno.EACCES, errno.EPERM):
        return f"ComfyUI may not write at {path}: give its user the right to, {_ANOTHER}."
    if kind in _FULL:
        return f"The disk at {path} is full: make room and run this again, it goes on from there."
    if kind == errno.EFBIG:
        return f"The disk at {path} holds no file of this size (FAT32 ends at 4 GB): use another."
    if kind in (errno.EEXIST, errno.ENOTDIR):
        return f"A file is where a folder should be at {path}: move it away."
    if kind in _NOT_MOUNTED:
        return f"{path} cannot be written, {_answer(error)}: check that its drive is mounted."
    return f"{path} cannot be written ({error.strerror or error}): check its disk, {_ANOTHER}."


def missing_link(path: Path) -> str:
    """`PATH is a link to X, which is not there`, of it or of the first folder above; else empty."""
    for link in (path, *path.parents):
        try:
            if link.is_symlink() and not link.exists():
                return f"{link} is a link to {link.readlink()}, which is not there"
        except OSError:
            continue
    return ""


def _answer(error: OSError) -> str:
    return f"its disk does not answer ({error.strerror})"
