"""What a file is that holds no weights, told by its first bytes, and the sentence that mends it."""

from __future__ import annotations

import codecs
import json
import zipfile
from pathlib import Path

_HEAD = 4096  # bytes that are looked at
_ARCHIVES = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
}
_OTHERS = {
    b"GGUF": "a GGUF file, quantised for llama.cpp",
    b"\x89HDF": "an HDF5 file, as Keras writes them",
    b"\x93NUMPY": "a NumPy array",
    b"ftrt": "a TensorRT engine",
    b"ptrt": "a TensorRT engine",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"RIFF": "a picture or a sound",
    b"%PDF": "a PDF",
    b"\x7fELF": "a program",
    b"MZ": "a program",
}
_MARKS = {  # byte order marks, the longer ones first
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_AGAIN = "download it again"
_PUBLISHED = "get the published weights as safetensors"
_ONNX_FIELDS = (
    b"\x12",
    b"\x1a",
    b"\x22",
    b"\x3a",
    b"\x42",
)  # behind ONNX's version


def foreign(path: Path, text: bool = False) -> str:
    """`is a web page, ...: use the page's download link`; empty where it may be what it is named.

    text: whether a text is expected there, and no weights. Raises OSError.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return f"is empty, a download that did not begin: {_AGAIN}"
    if not any(head):
        return f"holds zeros alone, a download that was broken off: {_AGAIN}"
    said = _archive(path, head) or _other(head)
    if not said:
        said = _in_words(head, text)
    if not said and not text:
        said = _weights(path, head)
    return said


def decoded(data: bytes) -> str:
    """Text in UTF-8, or in what its byte order mark says, which is left out. Raises ValueError."""
    return data.decode(marked(data) or "utf-8")


def marked(data: bytes) -> str:
    """The encoding that a byte order mark at the beginning names; empty without one."""
    return next((name for mark, name in _MARKS.items() if data.startswith(mark)), "")


def _archive(path: Path, head: bytes) -> str:
    kind = next((kind for mark, kind in _ARCHIVES.items() if head.startswith(mark)), "")
    if head[257:262] == b"ustar":
        kind = "tar"
    if head.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(path):
            return f"is cut off, its end is missing: {_AGAIN}"
        with zipfile.ZipFile(path) as opened:
            names = opened.namelist()
        kind = "" if any(name.endswith(".pkl") for name in names) else "zip"  # torch's own are zips
    return f"is a {kind} archive: unpack it, and use the file in it" if kind else ""


def _other(head: bytes) -> str:
    kind = next((kind for mark, kind in _OTHERS.items() if head.startswith(mark)), "")
    if head[4:8] == b"TFL3":
        kind = "a model of TensorFlow Lite"
    elif head[:1] == b"\x08" and head[1:2] < b"\x20" and head[2:3] in _ONNX_FIELDS:
        kind = "an ONNX model"
    return f"is {kind}, which holds no weights for a reward: {_PUBLISHED}" if kind else ""


def _in_words(head: bytes, expected: bool) -> str:
    """Of a text that stands where something else should."""
    try:
        words = codecs.getincrementaldecoder(marked(head) or "utf-8")().decode(head).strip()
    except UnicodeDecodeError:
        return ""
    if any(letter < " " and not letter.isspace() for letter in words):
        return ""
    start = words[:512].lower()
    if start.startswith(("version https://git-lfs", "version https://hawser", "# xet version")):
        return _pointer(words)
    if start.startswith("<") and ("<html" in words.lower() or start.startswith("<!doctype html")):
        return (
            "is a web page, not the file: use the page's download link, after accepting its "
            "licence and logging in if it asks for that"
        )
    if start.startswith("<"):
        return f"is a server's answer in XML, not the file ({_quoted(words)}): {_AGAIN}"
    if expected:
        return ""
    if '"weight_map"' in words:
        return "is the index of weights in several files: choose the folder with all of them"
    return f"is a text, not the file ({_quoted(words)}): {_AGAIN}"


def _pointer(words: str) -> str:
    size = next((line[5:] for line in words.splitlines() if line.startswith("size ")), "")
    large = f" of {int(size) / 1e9:.2f} GB" if size.isdecimal() else ""
    return (
        f"is a git-lfs pointer and not the file{large}: run git lfs install and git lfs pull in "
        "its folder, or download it from its page"
    )


def _quoted(words: str) -> str:
    return " ".join(words.split())[:80]


def _weights(path: Path, head: bytes) -> str:
    """Of weights that are cut off, or named like another kind."""
    safe = path.suffix.lower() == ".safetensors"
    length = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and length < 2**28:
        missing = _missing(path, length)
        if missing:
            return missing
        return "" if safe else f"is a safetensors file: rename it to {path.stem}.safetensors"
    pickled = head.startswith(b"PK\x03\x04") or (head[:1] == b"\x80" and b"" < head[1:2] < b"\x06")
    if safe and pickled:
        return f"is a pickle of torch and no safetensors file: rename it to {path.stem}.pt"
    return ""


def _missing(path: Path, length: int) -> str:
    """What a safetensors file lacks by the header of this many bytes."""
    held = path.stat().st_size
    with path.open("rb") as file:
        file.seek(8)
        header = file.read(length)
    try:
        described = json.loads(header)
        ends = [one["data_offsets"][1] for n, one in described.items() if n != "__metadata__"]
        whole = 8 + length + max(ends, default=0)
    except (ValueError, LookupError, TypeError, AttributeError):
        whole = 8 + length
        if held >= whole:
            return ""
        return f"is cut off, only {held} bytes are there: {_AGAIN}"
    if held < whole:
        return f"is cut off, {held / 1e6:.2f} of {whole / 1e6:.2f} MB are there: {_AGAIN}"
    return ""
