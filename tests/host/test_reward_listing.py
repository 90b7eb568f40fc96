"""Reward models that are listed, that are missing, and what the catalogue and the pages say."""

import asyncio
import os
import re
from pathlib import Path

import comfy.samplers  # noqa: F401  (ComfyUI's own order of imports)
import execution
import folder_paths
import nodes
import pytest

from ComfyUI_DNO.nodes.host.judges import reward_folders
from ComfyUI_DNO.nodes.host.judges.reward_folders import names
from ComfyUI_DNO.nodes.reward_models import NODES, DNOLoadRewardModel
from ComfyUI_DNO.rewards.models.catalogue import PUBLISHED, by_label, known_as

from ..support import reward_files
from ..support.reward_files import load, refusal, write_clip, write_clip_folder

reward_folder = reward_files.reward_folder


# What is listed


def test_files_and_folders_are_listed_once_also_below(reward_folder):
    write_clip(reward_folder / "one.safetensors")
    write_clip(reward_folder / "theirs" / "two.SAFETENSORS")
    write_clip_folder(reward_folder / "theirs" / "PickScore_v1")
    (reward_folder / "theirs" / "PickScore_v1" / "open_clip.safetensors").touch()
    (reward_folder / "readme.txt").touch()
    (reward_folder / "three.safetensors.0123abcd.part").touch()
    write_clip(reward_folder / ".cache" / "four.safetensors")
    assert names() == ["one.safetensors", "theirs/PickScore_v1", "theirs/two.SAFETENSORS"]


def test_no_folder_is_no_error(reward_folder):
    assert names() == []
    assert DNOLoadRewardModel.GET_NODE_INFO_V1()["input"]["required"]["name"][1]["options"] == []


def test_extra_folders_are_listed_too_and_nothing_twice(reward_folder, tmp_path):
    write_clip(reward_folder / "one.safetensors")
    write_clip(tmp_path / "more" / "one.safetensors")
    write_clip(tmp_path / "more" / "two.safetensors")
    (tmp_path / "more" / "again.safetensors").symlink_to(tmp_path / "more" / "two.safetensors")
    folder_paths.add_model_folder_path("reward_models", str(reward_folder))
    for extra in (tmp_path / "more", tmp_path / "not there", tmp_path):
        folder_paths.add_model_folder_path("reward_models", str(extra))
    assert names() == ["more/one.safetensors", "one.safetensors", "two.safetensors"]
    assert load("one.safetensors").title == "CLIP"


def test_links_are_followed_but_never_in_circles(reward_folder, tmp_path):
    write_clip(tmp_path / "elsewhere" / "one.safetensors")
    reward_folder.mkdir(parents=True)
    (reward_folder / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere" / "back").symlink_to(reward_folder, target_is_directory=True)
    assert names() == ["linked/one.safetensors"]
    assert load("linked/one.safetensors").title == "CLIP"


def test_new_and_removed_files_are_seen_at_once(reward_folder):
    path = write_clip(reward_folder / "below" / "one.safetensors")
    assert names() == ["below/one.safetensors"]
    other = write_clip_folder(reward_folder / "below" / "two")
    assert names() == ["below/one.safetensors", "below/two"]
    path.unlink()
    (other / "config.json").unlink()
    assert names() == ["below/two/model.safetensors"]


def test_a_file_that_comes_within_the_clock_s_tick_is_seen(reward_folder):
    write_clip(reward_folder / "one.safetensors")
    then = reward_folder.stat().st_mtime_ns
    assert names() == ["one.safetensors"]
    write_clip(reward_folder / "two.safetensors")
    os.utime(reward_folder, ns=(then, then))
    assert names() == ["one.safetensors", "two.safetensors"]


def settle(folder):
    """As if nothing had changed there for a while."""
    for each in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
        os.utime(each, (1e9, 1e9))


def test_an_unchanged_tree_is_not_read_again(reward_folder, monkeypatch):
    write_clip_folder(reward_folder / "below" / "one")
    settle(reward_folder)
    first, scan, scanned = names(), os.scandir, []
    monkeypatch.setattr(os, "scandir", lambda path: scanned.append(path) or scan(path))
    assert names() == first == ["below/one"]
    assert not scanned
    write_clip(reward_folder / "below" / "two.safetensors")
    assert names() == ["below/one", "below/two.safetensors"]
    assert scanned


def test_a_folder_that_cannot_be_read_is_passed_over(reward_folder, monkeypatch):
    write_clip(reward_folder / "one.safetensors")
    write_clip(reward_folder / "theirs" / "two.safetensors")
    scan = os.scandir

    def refuse(path):  # root, as which tests may run, may read everything
        if Path(path).name == "theirs":
            raise PermissionError(path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert names() == ["one.safetensors"]


def test_a_model_s_files_loose_in_the_folder_are_files(reward_folder):
    write_clip_folder(reward_folder)
    assert names() == ["model.safetensors"]
    assert load("model.safetensors").title == "CLIP"


# A file that is not there


def validate(name):
    """What ComfyUI says to a workflow before it runs it: (valid, its errors)."""
    for node in NODES:
        nodes.NODE_CLASS_MAPPINGS.setdefault(node.__name__, node)
    prompt = {"1": {"class_type": "DNOLoadRewardModel", "inputs": {"precision": "automatic"}}}
    prompt["1"]["inputs"]["name"] = name
    prompt["2"] = {"class_type": "DNODownloadRewardModel", "inputs": {"verify": False}}
    prompt["2"]["inputs"]["model"] = by_label("MPS").label
    valid, errors, _ = asyncio.run(execution.validate_inputs("", prompt, "1", {}))
    return valid, [f"{error['message']}: {error['details']}" for error in errors]


def test_comfyui_says_which_file_from_where_and_where_to(reward_folder):
    valid, errors = validate("PickScore_v1")
    assert not valid
    (said,) = errors
    assert "config.json, model.safetensors of huggingface.co/yuvalkirstain/PickScore_v1" in said
    assert f"as {reward_folder / 'PickScore_v1'}{os.sep}" in said
    assert "run Download Reward Model with PickScore v1." in said
    assert "not in list" not in said


def test_a_known_file_is_known_by_its_old_names_and_places(reward_folder):
    (said,) = validate("my rewards\\ImageReward.pt")[1]
    assert "model.safetensors of huggingface.co/RE-N-Y/ImageReward" in said
    assert "vocab.txt of huggingface.co/google-bert/bert-base-uncased" in said
    assert str(reward_folder / "ImageReward.safetensors") in said
    write_clip(reward_folder / "ImageReward.safetensors")
    (said,) = validate("my rewards\\ImageReward.pt")[1]
    assert "choose ImageReward.safetensors, which is the same reward model." in said


def test_an_unknown_file_is_named_with_the_folder(reward_folder):
    (said,) = validate("mine.safetensors")[1]
    assert f"mine.safetensors is not in {reward_folder}: put it there and press R" in said


def test_what_is_there_and_what_is_linked_is_valid(reward_folder):
    write_clip(reward_folder / "one.safetensors")
    assert validate("one.safetensors") == (True, [])
    assert validate(["2", 0]) == (True, [])


def test_an_unknown_precision_is_refused(reward_folder):
    write_clip(reward_folder / "one.safetensors")
    with pytest.raises(ValueError, match="choose one of automatic, fp32, fp16, bf16"):
        load("one.safetensors", precision="int3")


@pytest.mark.parametrize(
    "name",
    ["../outside.safetensors", "a/../../outside.safetensors", "..\\outside.safetensors", "",
     "C:\\outside.safetensors", "/etc/passwd", ".", "\\\\server\\x.pt", "a\0b"],
)  # fmt: skip
def test_names_that_lead_out_of_the_folder_are_refused(reward_folder, name):
    write_clip(reward_folder.parent / "outside.safetensors")
    (reward_folder / "a").mkdir(parents=True)
    assert not validate(name)[0]
    assert "no name of a reward model" in refusal(name)


def test_a_replaced_file_has_another_fingerprint(reward_folder):
    def ask(name):
        return DNOLoadRewardModel.fingerprint_inputs(name=name, precision="fp16")

    path = write_clip(reward_folder / "one.safetensors")
    write_clip_folder(reward_folder / "two")
    before = ask("one.safetensors"), ask("two")
    assert before == (ask("one.safetensors"), ask("two"))
    os.utime(path, ns=(1, 1))
    os.utime(reward_folder / "two" / "config.json", ns=(1, 1))
    assert ask("one.safetensors") != before[0]
    assert ask("two") != before[1]
    assert ask("not there") == ask(None) == ask("../x") == ""


# The catalogue


def test_the_catalogue_is_consistent():
    assert len({entry.label for entry in PUBLISHED}) == len({e.load for e in PUBLISHED})
    for entry in PUBLISHED:
        assert by_label(entry.label) is by_label(entry.name) is known_as(entry.load) is entry
        for name in entry.names:
            assert known_as(f"some folder/{name}") is entry
        assert any(p.target.rstrip("/").startswith(entry.load) for p in entry.pieces)
        for piece in entry.pieces:
            assert piece.repository.count("/") == 1
            assert piece.is_folder == piece.target.endswith("/")
            assert reward_folders._inside(piece.target)
    with pytest.raises(ValueError, match="not in the catalogue.*PickScore v1"):
        by_label("PickScore v7")


# What the browser is told


def options():
    return DNOLoadRewardModel.GET_NODE_INFO_V1()["input"]["required"]["name"][1]["options"]


def test_refreshing_shows_new_files(reward_folder):
    assert options() == []
    write_clip(reward_folder / "one.safetensors")
    assert options() == ["one.safetensors"]


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_each_node_has_a_help_page_that_names_its_inputs(node, pack):
    page = (Path(pack.__file__).parent / "web" / "docs" / f"{node.__name__}.md").read_text("utf-8")
    declared = node.GET_SCHEMA()
    described = " ".join(node.__doc__.split())
    assert page.startswith(f"# {declared.display_name}\n\n{described}\n")
    assert declared.description.startswith(described)
    for given in declared.inputs:
        told = rf"^\| `{given.id}` \| {re.escape(given.tooltip)}(?: \*Default [^*]+\*)? \|$"
        assert re.search(told, page, re.M), given.id
    assert f"`{declared.outputs[0].display_name}`: " in page


def test_the_readme_lists_what_can_be_downloaded(pack):
    readme = (Path(pack.__file__).parent / "rewards" / "README.md").read_text("utf-8")
    rows = [row.split("|") for row in readme.splitlines() if row.count("|") == 4]
    listed = {
        (name.strip(), rewards.strip().split(", ")[0], licence.strip())
        for _, rewards, several, licence, _ in rows
        for name in several.split(";")
    }
    assert {(entry.name, entry.reward, entry.licence) for entry in PUBLISHED} <= listed
