"""Damaged, foreign and dangerous files of reward models: refused in a sentence, and never run."""

import json
import os
import pickle
import shutil
from pathlib import Path

import folder_paths
import pytest
import torch
from safetensors.torch import save_file

from ..support import reward_files
from ..support.reward_files import load, refusal, write_clip, write_clip_folder
from ..support.tiny import unet

reward_folder = reward_files.reward_folder
MARK = Path(__file__).with_name("pickled code was run")


# Damaged files


def cut(path, share):
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def test_truncated_safetensors_are_refused(reward_folder):
    for share in (0.5, 0.99, 0.001):
        path = write_clip(reward_folder / "half.safetensors")
        cut(path, share)
        said = refusal("half.safetensors")
        assert said.startswith("half.safetensors is ") and said.endswith("download it again.")


def test_truncated_pickles_are_refused(reward_folder):
    path = reward_folder / "half.pt"
    path.parent.mkdir(parents=True)
    for zipped in (True, False):
        torch.save({"a": torch.ones(9999)}, path, _use_new_zipfile_serialization=zipped)
        cut(path, 0.5)
        said = refusal("half.pt")
        assert said.startswith("half.pt is ") and said.endswith("download it again.")


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
