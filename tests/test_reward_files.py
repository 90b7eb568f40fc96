"""Files of reward models: what is listed, what is refused in a sentence, and what is never run."""

import asyncio
import json
import os
import pickle
import shutil
from pathlib import Path

import comfy.samplers  # noqa: F401  (ComfyUI's own order of imports)
import execution
import folder_paths
import nodes
import pytest
import torch
from safetensors.torch import save_file

from ComfyUI_DNO.nodes.host import reward_folders
from ComfyUI_DNO.nodes.host.reward_folders import names
from ComfyUI_DNO.nodes.reward_models import NODES, DNOLoadRewardModel
from ComfyUI_DNO.rewards.models.catalogue import PUBLISHED, by_label, known_as

from . import reward_files
from .reward_files import write_clip, write_clip_folder
from .tiny import unet

reward_folder = reward_files.reward_folder
MARK = Path(__file__).with_name("pickled code was run")


def load(name, **inputs):
    """As ComfyUI runs the node, in inference mode."""
    with torch.inference_mode():
        return DNOLoadRewardModel.execute(name=name, **inputs).result[0]


def refusal(name):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load(name)
    said = str(caught.value)
    assert "\n" not in said and said.endswith("."), said
    return said


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
    for place in (folder, *(p for p in folder.rglob("*") if p.is_dir())):
        os.utime(place, (1e9, 1e9))


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
    assert "run DNO Download Reward Model with PickScore v1." in said
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


# Damaged files


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def test_truncated_safetensors_are_refused(reward_folder):
    for share in (0.5, 0.99, 0.001):
        path = write_clip(reward_folder / "half.safetensors")
        cut(path, share)
        assert "half.safetensors is damaged" in refusal("half.safetensors")


def test_truncated_pickles_are_refused(reward_folder):
    path = reward_folder / "half.pt"
    path.parent.mkdir(parents=True)
    for zipped in (True, False):
        torch.save({"a": torch.ones(9999)}, path, _use_new_zipfile_serialization=zipped)
        cut(path, 0.5)
        assert "half.pt is damaged" in refusal("half.pt")


@pytest.mark.parametrize("suffix", ["safetensors", "pt", "ckpt", "bin"])
@pytest.mark.parametrize("text", [b"", b"<html>404 Not Found</html>" * 50, b"version https://git"])
def test_texts_and_empty_files_are_refused(reward_folder, suffix, text):
    reward_folder.mkdir(parents=True)
    (reward_folder / f"text.{suffix}").write_bytes(text)
    said = refusal(f"text.{suffix}")
    assert f"text.{suffix} is damaged" in said and "download it again" in said
    assert "weights_only" not in said  # torch advises to run what is in there


class Malicious:
    def __reduce__(self):
        return (os.mkdir, (str(MARK),))


def pickled(how, path):
    held = {"weight": torch.ones(3), "more": Malicious()}
    if how == "plain":
        path.write_bytes(pickle.dumps(held))
    else:
        torch.save(held, path, _use_new_zipfile_serialization=how == "zip")


@pytest.mark.parametrize("how", ["zip", "legacy", "plain"])
def test_pickled_code_is_not_run(reward_folder, how):
    reward_folder.mkdir(parents=True)
    path = reward_folder / "evil.pt"
    pickled(how, path)
    said = refusal("evil.pt")
    assert not MARK.exists()
    assert how == "plain" or "pickled code" in said
    if how == "plain":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert MARK.is_dir()  # so it would have been
    MARK.rmdir()


def test_pickled_code_in_a_folder_is_not_run(reward_folder):
    folder = write_clip_folder(reward_folder / "one")
    (folder / "model.safetensors").unlink()
    pickled("zip", folder / "pytorch_model.bin")
    assert "pickled code" in refusal("one")
    assert not MARK.exists()


def test_programs_and_whole_networks_are_refused(reward_folder):
    reward_folder.mkdir(parents=True)
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), reward_folder / "program.pt")
    torch.save(torch.nn.Linear(2, 2), reward_folder / "network.pt")
    torch.save([1, 2], reward_folder / "list.pt")
    assert "pickled code" in refusal("program.pt")
    assert "pickled code" in refusal("network.pt")
    assert "no weights by name" in refusal("list.pt")


# Weights of something else, or too few


def test_other_models_are_refused_by_their_name(reward_folder, demo_checkpoint):
    reward_folder.mkdir(parents=True)
    demo = folder_paths.get_full_path("checkpoints", demo_checkpoint)
    shutil.copy(demo, reward_folder / "demo.safetensors")
    lora = {f"lora_unet_{i}.lora_{way}.weight": torch.ones(4, 4) for i in (1, 2) for way in "ab"}
    save_file(lora, reward_folder / "lora.safetensors")
    save_file(unet().model.state_dict(), reward_folder / "unet.safetensors")
    for name in ("demo", "lora", "unet"):
        said = refusal(f"{name}.safetensors")
        assert f"{name}.safetensors is not a reward model that is known here" in said


def test_a_folder_without_weights_is_refused(reward_folder):
    (reward_folder / "empty").mkdir(parents=True)
    assert "empty is a folder without a config.json and weights" in refusal("empty")


def sharded(folder, parts):
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {f"weight {n}": part for n, part in enumerate(parts)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_missing_shards_are_named(reward_folder):
    folder = write_clip_folder(reward_folder / "one")
    sharded(folder, ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"])
    save_file({"a": torch.ones(1)}, folder / "model-00001-of-00002.safetensors")
    assert "one lacks model-00002-of-00002.safetensors" in refusal("one")


@pytest.mark.parametrize("part", ["../../outside.safetensors", "/etc/passwd", "..\\x.safetensors"])
def test_shards_from_elsewhere_are_not_read(reward_folder, part):
    write_clip(reward_folder.parent / "outside.safetensors")
    sharded(write_clip_folder(reward_folder / "one"), [part])
    assert "names files elsewhere" in refusal("one")


@pytest.mark.parametrize("text", ["", "{", "[1]", "{}", '{"weight_map": 3}'])
def test_damaged_indices_are_refused(reward_folder, text):
    folder = write_clip_folder(reward_folder / "one")
    sharded(folder, [])
    (folder / "model.safetensors.index.json").write_text(text)
    refusal("one")


@pytest.mark.parametrize("text", ["", "{", "[1]", "\udcff", '{"vision_config": 3}',
    '{"vision_config": {"hidden_size": 65}}', '{"text_config": {"hidden_act": "nothing"}}'],
)  # fmt: skip
def test_damaged_configs_are_refused(reward_folder, text):
    folder = write_clip_folder(reward_folder / "one")
    (folder / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    refusal("one")


def test_a_damaged_tokenizer_is_refused_and_code_of_one_is_not_run(reward_folder):
    folder = write_clip_folder(reward_folder / "one")
    (folder / "tokenizer.json").write_text("{")
    assert "The tokenizer in one cannot be read" in refusal("one")
    (folder / "tokenizer.json").rename(folder / "vocab.json")
    code = f"import os\nos.mkdir({str(MARK)!r})\nclass Theirs: pass\n"
    (folder / "theirs.py").write_text(code)
    own = {"auto_map": {"AutoTokenizer": ["theirs.Theirs", None]}, "tokenizer_class": "Theirs"}
    (folder / "tokenizer_config.json").write_text(json.dumps(own))
    assert "The tokenizer in one cannot be read" in refusal("one")
    assert not MARK.exists()


def without(*ends):
    return lambda weights: {n: t for n, t in weights.items() if not n.endswith(ends)}


def reshaped(end, shape):
    return lambda weights: {
        n: torch.ones(shape) if n.endswith(end) else t for n, t in weights.items()
    }


@pytest.mark.parametrize(
    "change",
    [
        without("layers.1.mlp.fc1.weight"),
        without("fc1.bias"),
        without("position_embedding.weight"),
        reshaped("patch_embedding.weight", (64, 3, 8)),
        reshaped("layers.0.mlp.fc1.weight", (7, 7)),
        reshaped("text_projection.weight", (0, 0)),
        reshaped("token_embedding.weight", ()),
    ],
)
def test_missing_and_misshapen_weights_are_refused(reward_folder, change):
    write_clip(reward_folder / "one.safetensors", change)
    assert "one.safetensors" in refusal("one.safetensors")


def broken(number):
    def change(weights):
        weights["visual_projection.weight"][3, 4] = number
        return weights

    return change


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_refused(reward_folder, number):
    write_clip(reward_folder / "one.safetensors", broken(number))
    said = refusal("one.safetensors")
    assert "one.safetensors holds numbers in network.visual_projection" in said


def test_numbers_too_large_for_half_precision_are_refused_with_the_mend(reward_folder):
    write_clip(reward_folder / "one.safetensors", broken(1e6))
    with pytest.raises(ValueError, match="too large for float16: .* choose fp32"):
        load("one.safetensors", precision="fp16")
    assert load("one.safetensors", precision="fp32").title == "CLIP"


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
    made = node.GET_SCHEMA()
    assert page.startswith(f"# {made.display_name}\n\n{made.description}\n")
    for given in made.inputs:
        assert f"| `{given.id}` |" in page and f"| {given.tooltip} |" in page
    assert f"`{made.outputs[0].display_name}`: " in page


def test_the_readme_lists_what_can_be_downloaded(pack):
    readme = (Path(pack.__file__).parent / "README.md").read_text("utf-8")
    rows = [row.split("|") for row in readme.splitlines() if row.count("|") == 4]
    listed = {
        (name.strip(), rewards.strip().split(", ")[0], licence.strip())
        for _, rewards, several, licence, _ in rows
        for name in several.split(";")
    }
    assert {(entry.name, entry.reward, entry.licence) for entry in PUBLISHED} <= listed
