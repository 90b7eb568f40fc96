"""Files as people have them, of another kind than their name says: what mends it, in a sentence."""

import errno
import gzip
import io
import json
import os
import shutil
import struct
import tarfile
import tempfile
import zipfile
from pathlib import Path

import folder_paths
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from ComfyUI_DNO.nodes.host.judges import download, reward_folders, tokenizers
from ComfyUI_DNO.nodes.host.judges.reward_folders import names, problem
from ComfyUI_DNO.rewards.models.files import read

from ..support import local_hub, reward_files
from ..support.local_hub import LOAD, held, run
from ..support.local_hub import refusal as refused_download
from ..support.reward_files import load, refusal, write_clip, write_clip_folder

reward_folder = reward_files.reward_folder
clip_files, hub = local_hub.clip_files, local_hub.hub
SUFFIXES = ["safetensors", "pt", "pth", "ckpt", "bin"]
HASH = "oid sha256:" + "a" * 64
POINTER = f"version https://git-lfs.github.com/spec/v1\n{HASH}\nsize 1710671599\n".encode()
LFS = "is a git-lfs pointer and not the file of 1.71 GB: run git lfs install and git lfs pull"
PAGE, XML = "is a web page, not the file: use the page's download link", "a server's answer in XML"
HTML = "<!DOCTYPE html>\n<html class=''><head><title>Sign in</title></head><body>ü</body></html>"
DENIED = '<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>'


def zipped(name):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(name, b"x" * 5000)
    return stream.getvalue()


def tarred():
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.safetensors"), io.BytesIO())
    return stream.getvalue()


def array():
    stream = io.BytesIO()
    np.save(stream, np.ones(9))
    return stream.getvalue()


KINDS = {
    "pointer": (POINTER, LFS),
    "pointer on Windows": (POINTER.replace(b"\n", b"\r\n"), LFS),
    "web page": (HTML.encode(), PAGE),
    "long page": (b"\n <html lang='en'>" + "ä".encode() * 5000, PAGE),
    "page in UTF-16": (HTML.encode("utf-16"), PAGE),
    "page with a mark": (HTML.encode("utf-8-sig"), PAGE),
    "XML page": (b"<?xml version='1.0'?>\n<html xmlns='x'><p>404</p></html>", PAGE),
    "XML": (DENIED.encode(), f"{XML}, not the file (" + DENIED[:80]),
    "words": (b"Invalid username or password.\n", "a text, not the file (Invalid username or pass"),
    "long text": ("Märchen ".encode() * 999, "is a text, not the file (Märchen"),
    "JSON": (b'{"error": "Access is restricted"}', 'a text, not the file ({"error": "Access is'),
    "index": (b'{"metadata": {}, "weight_map": {"a": "b"}}', "choose the folder with all of them"),
    "empty": (b"", "is empty, a download that did not begin: download it again"),
    "zeros": (bytes(9999), "holds zeros alone, a download that was broken off: download it again"),
    "one byte": (b"\x80", "is damaged or no "),
    "gzip": (gzip.compress(b"x" * 99), "is a gzip archive: unpack it"),
    "zip": (zipped("model.safetensors"), "is a zip archive: unpack it"),
    "zip cut off": (zipped("model.safetensors")[:3000], "is cut off, its end is missing"),
    "tar": (tarred(), "is a tar archive: unpack it"),
    "xz": (b"\xfd7zXZ\0\0\x04" + bytes(99), "is a xz archive: unpack it"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\x04" + bytes(99), "is a 7z archive: unpack it"),
    "GGUF": (b"GGUF" + struct.pack("<IQQ", 3, 1, 1) + bytes(99), "is a GGUF file"),
    "ONNX": (b"\x08\x07\x12\x07pytorch\x1a\x051.9.1" + bytes(99), "is an ONNX model"),
    "TFLite": (b"\x1c\0\0\0TFL3" + bytes(99), "is a model of TensorFlow Lite"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "is an HDF5 file"),
    "NumPy": (array(), "is a NumPy array"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(99), "is a picture"),
}


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
@pytest.mark.parametrize(("held", "words"), KINDS.values(), ids=KINDS)
def test_what_stands_in_a_files_place_is_named_with_the_mend(reward_folder, suffix, held, words):
    reward_folder.mkdir(parents=True)
    (reward_folder / f"model.{suffix}").write_bytes(held)
    said = refusal(f"model.{suffix}")
    assert said.startswith(f"model.{suffix} ") and words in said
    assert "weights_only" not in said  # torch advises to run what is in there
    folder = write_clip_folder(reward_folder / "one")
    (folder / "model.safetensors").unlink()
    name = "model.safetensors" if suffix == "safetensors" else "pytorch_model.bin"
    (folder / name).write_bytes(held)
    assert refusal("one").startswith(f"{name} in one ")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_kind_under_the_others_name_is_to_be_renamed(reward_folder, suffix):
    whole = write_clip(reward_folder / "whole.safetensors")
    weights, path = load_file(whole), reward_folder / f"model.{suffix}"
    if suffix != "safetensors":
        shutil.copy(whole, path)
        mended = "model.safetensors"
        assert refusal(path.name) == f"{path.name} is a safetensors file: rename it to {mended}."
        path.rename(reward_folder / mended)
        assert load(mended).title == "CLIP"
        return
    for zip_file in (True, False):
        torch.save(weights, path, _use_new_zipfile_serialization=zip_file)
        said = refusal(path.name)
        assert said.endswith("is a pickle of torch and no safetensors file: rename it to model.pt.")
        path.rename(reward_folder / "model.pt")
        assert load("model.pt").title == "CLIP"


@pytest.mark.parametrize("share", [0.0005, 0.3, 0.99])
def test_a_download_that_was_broken_off_says_how_much_is_there(reward_folder, share):
    path = write_clip(reward_folder / "one.safetensors")
    whole = path.stat().st_size
    os.truncate(path, int(share * whole))
    said = refusal(path.name)
    assert "one.safetensors is cut off" in said and "download it again" in said
    assert share < 0.1 or f"of {whole / 1e6:.2f} MB are there" in said


def shards(folder):
    weights = load_file(folder / "model.safetensors")
    parts = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    index = {name: parts[number % 3] for number, name in enumerate(weights)}
    for part in parts:
        save_file({n: t for n, t in weights.items() if index[n] == part}, folder / part)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return parts


def test_one_pointer_among_several_shards_is_named(reward_folder):
    folder = write_clip_folder(reward_folder / "one")
    parts = shards(folder)
    assert load("one").title == "CLIP"
    (folder / parts[1]).write_bytes(POINTER)
    said = refusal("one")
    assert said.startswith(f"{parts[1]} in one is a git-lfs pointer")
    (folder / parts[1]).unlink()
    (folder / parts[1]).symlink_to("../../blobs/aaaa")
    said = refusal("one")
    assert f"{parts[1]} is a link to ../../blobs/aaaa, which is not there: copy" in said


# Texts with a byte order mark, and those that are none

ENCODINGS = ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_configs_and_indices_are_read_in_every_encoding_of_json(reward_folder, encoding):
    folder = write_clip_folder(reward_folder / "one")
    shards(folder)
    for file in folder.glob("*.json"):
        file.write_bytes(file.read_text().encode(encoding))
    assert load("one").title == "CLIP"


@pytest.fixture
def words_folder(reward_folder):
    """A CLIP with a tokenizer of its own."""
    folder = write_clip_folder(reward_folder / "one")
    shipped = Path(tokenizers.comfy.utils.__file__).parent / "sd1_tokenizer"
    CLIPTokenizer.from_pretrained(str(shipped)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_tokenizer_is_read_with_byte_order_marks(words_folder, encoding):
    plain = load("one").tokenizer("a red fox – “quoted”")["input_ids"]
    for file in [*words_folder.glob("*.json"), *words_folder.glob("*.txt")]:
        file.write_bytes(file.read_text(encoding="utf-8").encode(encoding))
    assert load("one").tokenizer("a red fox – “quoted”")["input_ids"] == plain


@pytest.mark.parametrize(("held", "words"), [KINDS["pointer"], KINDS["web page"], KINDS["empty"]])
def test_what_stands_in_a_texts_place_is_named(words_folder, held, words):
    whole = (words_folder / "config.json").read_bytes()
    (words_folder / "config.json").write_bytes(held)
    said = refusal("one")
    assert said.startswith("config.json in one ") and words in said
    (words_folder / "config.json").write_bytes(whole)
    file = next(
        f for f in words_folder.glob("*.json") if f.name in ("tokenizer.json", "vocab.json")
    )
    file.write_bytes(held)
    said = refusal("one")
    assert said.startswith(f"{file.name} in one ") and words in said


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_berts_words_are_read_in_every_encoding(tmp_path, encoding, newline):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "fox", "red"]
    file = tmp_path / "vocab.txt"
    file.write_bytes(newline.join([*words, ""]).encode(encoding))
    assert tokenizers.bert_tokenizer(file, len(words))("red fox")["input_ids"] == [2, 6, 5, 3]
    file.write_bytes(POINTER)
    with pytest.raises(ValueError, match="vocab.txt in .* is a git-lfs pointer"):
        tokenizers.bert_tokenizer(file, len(words))


# Places


def test_a_folder_named_like_a_file_is_told(reward_folder):
    write_clip(reward_folder / "clip.safetensors" / "real.safetensors")
    said = refusal("clip.safetensors")
    assert said == "clip.safetensors is a folder, no file: choose real.safetensors in it."
    folder = write_clip_folder(reward_folder / "one")
    shutil.rmtree(folder / "config.json", ignore_errors=True)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    assert "one is a folder without a config.json and weights" in refusal("one")


def test_links_to_nowhere_are_told(reward_folder):
    folder = write_clip_folder(reward_folder / "one")
    for link in (reward_folder / "lost.safetensors", folder / "model.safetensors"):
        link.unlink(missing_ok=True)
        link.symlink_to("/not_mounted/blobs/aaaa")
    assert names() == []
    said = refusal("lost.safetensors")
    assert "lost.safetensors is a link to /not_mounted/blobs/aaaa, which is not there" in said
    with pytest.raises(FileNotFoundError, match="is a link to /not_mounted/blobs/aaaa"):
        read(reward_folder / "lost.safetensors")
    assert "copy the file itself into one, not the link" in refusal("one")


def test_a_loop_of_links_is_passed_over(reward_folder):
    reward_folder.mkdir(parents=True)
    (reward_folder / "a.safetensors").symlink_to("b.safetensors")
    (reward_folder / "b.safetensors").symlink_to("a.safetensors")
    assert names() == []
    assert "is a link to b.safetensors, which is not there" in refusal("a.safetensors")


def test_a_drive_that_is_not_mounted_is_told(hub, reward_folder):
    reward_folder.parent.mkdir(parents=True)
    reward_folder.symlink_to("/not_mounted/reward_models")
    assert names() == []
    link = f"{reward_folder} is a link to /not_mounted/reward_models, which is not there"
    assert link in problem("any.safetensors")
    said = refused_download(kind=OSError)
    assert said == f"{link}: mount its drive, or remove the link."


def test_a_folder_of_extra_model_paths_that_is_not_there_is_told(hub, reward_folder, tmp_path):
    gone = tmp_path / "drive" / "models" / "reward_models"
    folder_paths.add_model_folder_path("reward_models", str(gone), is_default=True)
    assert f"{gone} is not there: mount its drive" in problem("any.safetensors")
    assert f"{gone} is not there: mount its drive" in refused_download(kind=OSError)
    assert not gone.parent.parent.exists()
    gone.parent.mkdir(parents=True)
    run()
    assert held(gone) == {f"{LOAD}/config.json", f"{LOAD}/model.safetensors"}


def failing(monkeypatch, number, target):
    """Every opening of files of this name ends with that error."""
    original = Path.open

    def opened(self, *arguments, **keywords):
        if target in self.name:
            raise OSError(number, os.strerror(number), str(self))
        return original(self, *arguments, **keywords)

    monkeypatch.setattr(Path, "open", opened)


READING = {
    errno.EACCES: "may not be read by ComfyUI: give its user the right to read it",
    errno.EPERM: "may not be read by ComfyUI",
    errno.EIO: "its disk does not answer (Input/output error): check that its drive is mounted",
    errno.ENOTCONN: "check that its drive is mounted",
    errno.ESTALE: "check that its drive is mounted",
    errno.EMFILE: "cannot be read (Too many open files)",
}


@pytest.mark.parametrize(("number", "words"), READING.items(), ids=map(os.strerror, READING))
@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_what_cannot_be_read_is_told(reward_folder, monkeypatch, number, words, suffix):
    path = write_clip(reward_folder / f"one.{suffix}")
    failing(monkeypatch, number, path.name)
    said = refusal(path.name)
    assert str(path) in said and words in said and "Errno" not in said


@pytest.mark.skipif(os.name == "nt", reason="rights are another matter there")
def test_what_may_not_be_read_is_told():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = write_clip(Path(folder) / "one.safetensors")
        path.chmod(0)
        root = os.geteuid() == 0  # who may read all
        try:
            os.seteuid(65534 if root else os.geteuid())
            with pytest.raises(ValueError, match="give its user the right to read it"):
                read(path)
        finally:
            os.seteuid(0 if root else os.geteuid())


WRITING = {
    errno.EROFS: "is on a disk that is read-only: make it writable, or name another folder",
    errno.EACCES: "ComfyUI may not write at",
    errno.ENOSPC: "is full: make room and run this again, it goes on from there",
    errno.EDQUOT: "is full: make room",
    errno.EFBIG: "FAT32",
    errno.EIO: "check that its drive is mounted",
    errno.EINVAL: "cannot be written (Invalid argument)",
}


@pytest.mark.parametrize(("number", "words"), WRITING.items(), ids=map(os.strerror, WRITING))
def test_what_cannot_be_written_is_told_and_the_next_run_goes_on(
    hub, reward_folder, monkeypatch, number, words
):
    with monkeypatch.context() as broken:
        failing(broken, number, ".part")
        said = refused_download(kind=OSError)
    assert str(reward_folder) in said and words in said and "Errno" not in said
    run()
    assert load(LOAD).title == "CLIP"


def test_a_disk_that_fills_up_on_the_way_keeps_what_has_come(hub, reward_folder, monkeypatch):
    def fills(hub, file, bar):
        file.part.parent.mkdir(parents=True, exist_ok=True)
        with open("/dev/full", "wb") as full:
            full.write(b"x")

    with monkeypatch.context() as broken:
        broken.setattr(download, "_fetch", fills)
        assert "is full: make room" in refused_download(kind=OSError)
    run()
    assert load(LOAD).title == "CLIP"


def test_a_file_in_the_folders_place_is_told(hub, reward_folder):
    reward_folder.parent.mkdir(parents=True)
    reward_folder.write_text("not a folder")
    said = refused_download(kind=OSError)
    assert said.startswith("A file is where a folder should be at ") and "move it away" in said


def test_a_folder_that_may_not_be_looked_into_is_passed_over(reward_folder, monkeypatch):
    write_clip(reward_folder / "one.safetensors")

    class Closed:
        name = "closed"

        def is_symlink(self):
            return True

        def is_dir(self):
            raise PermissionError(errno.EACCES, "Permission denied")

    entries = [Closed(), *(entry for entry in os.scandir(reward_folder) if entry.is_file())]
    monkeypatch.setattr(reward_folders.os, "scandir", lambda folder: entries)
    assert names() == ["one.safetensors"]
