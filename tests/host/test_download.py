"""Download Reward Model against a local hub: whole, resumed, checked, interrupted, refused."""

import asyncio
import collections
import shutil
import sys

import comfy.model_management as management
import execution
import folder_paths
import huggingface_hub
import huggingface_hub.constants
import nodes
import pytest
from comfy_extras.nodes_preview_any import PreviewAny

from ComfyUI_DNO.nodes.host.judges.hub import needed
from ComfyUI_DNO.nodes.reward_models import NODES, DNODownloadRewardModel, DNOLoadRewardModel
from ComfyUI_DNO.rewards.models.catalogue import PUBLISHED, by_label

from ..support import hub as hubs
from ..support import local_hub, reward_files
from ..support.local_hub import LOAD, NAME, PAGE, STEP, held, refusal, run

reward_folder = reward_files.reward_folder
clip_files, hub = local_hub.clip_files, local_hub.hub


def test_what_is_downloaded_is_loaded(hub, reward_folder, clip_files):
    name = run()
    assert name == LOAD
    assert held(reward_folder) == {f"{LOAD}/config.json", f"{LOAD}/model.safetensors"}
    path = reward_folder / LOAD / "model.safetensors"
    assert path.read_bytes() == clip_files["model.safetensors"]
    assert all(f"resolve/{hubs.REVISION}/" in url for url in hub.asked if "resolve" in url)
    network = DNOLoadRewardModel.execute(name=name).result[0]
    assert network.title == "CLIP"


def test_what_is_there_is_not_fetched_again_nor_asked_for(hub, reward_folder):
    run()
    hub.asked.clear()
    assert run() == LOAD
    assert hub.asked == []
    (reward_folder / LOAD / "config.json").unlink()
    run()
    assert not any("model.safetensors" in url for url in hub.asked if "resolve" in url)


def test_what_is_in_another_folder_is_not_fetched(hub, reward_folder, tmp_path):
    run()
    shutil.move(reward_folder, tmp_path / "more")
    hub.asked.clear()
    folder_paths.add_model_folder_path("reward_models", str(tmp_path / "more"))
    assert run() == LOAD
    assert hub.asked == [] and not reward_folder.exists()
    assert DNOLoadRewardModel.execute(name=LOAD).result[0].title == "CLIP"


def test_a_cut_connection_is_taken_up_again(hub, clip_files, reward_folder):
    hub.cut, hub.cut_from = 1, STEP
    run()
    path = reward_folder / LOAD / "model.safetensors"
    assert path.read_bytes() == clip_files["model.safetensors"]


def test_a_lost_connection_is_told_and_the_next_run_goes_on(hub, clip_files, reward_folder):
    hub.cut, hub.cut_from = 9, 4 * STEP
    said = refusal()
    assert f"huggingface.co/{PAGE} was not reached" in said
    assert "run this again, it goes on where it stopped." in said
    (part,) = (reward_folder / LOAD).glob("*.part")
    come = part.stat().st_size
    assert come >= STEP
    hub.cut, hub.served = 0, 0
    run()
    path = reward_folder / LOAD / "model.safetensors"
    assert path.read_bytes() == clip_files["model.safetensors"]
    assert hub.served == len(clip_files["model.safetensors"]) - come
    assert held(reward_folder) == {f"{LOAD}/config.json", f"{LOAD}/model.safetensors"}


def test_an_interrupt_stops_it_and_the_next_run_goes_on(hub, clip_files, reward_folder):
    def interrupt():
        if hub.served > 4 * STEP:
            management.interrupt_current_processing()

    hub.before_answer = interrupt
    with pytest.raises(management.InterruptProcessingException):
        run()
    management.interrupt_current_processing(False)
    (part,) = (reward_folder / LOAD).glob("*.part")
    come = part.stat().st_size
    assert 4 * STEP < come < len(clip_files["model.safetensors"])
    hub.before_answer, hub.served = None, 0
    run()
    assert hub.served == len(clip_files["model.safetensors"]) - come


def test_damaged_bytes_are_thrown_away(hub, reward_folder):
    hub.wrong = {"model.safetensors"}
    assert "its checksum is not the published one, and was removed: run this again" in refusal()
    assert held(reward_folder) == {f"{LOAD}/config.json"}
    hub.wrong = set()
    run()


def test_a_small_file_is_checked_by_git_s_checksum(hub, clip_files):
    hub.lfs, hub.wrong = 10**9, {"config.json"}
    assert "config.json of huggingface.co" in refusal()


def test_a_damaged_part_is_found_out(hub, reward_folder):
    hub.cut, hub.cut_from = 9, 4 * STEP
    refusal()
    (part,) = (reward_folder / LOAD).glob("*.part")
    part.write_bytes(bytes(part.stat().st_size))
    hub.cut = 0
    assert "checksum" in refusal()
    run()


def test_a_part_of_another_version_is_not_continued(hub, reward_folder, clip_files):
    hub.cut, hub.cut_from = 9, 4 * STEP
    refusal()
    other = clip_files["model.safetensors"][:-1] + b"\x01"
    hub.files[PAGE]["model.safetensors"], hub.cut, hub.served = other, 0, 0
    run()
    assert hub.served == len(other)
    assert (reward_folder / LOAD / "model.safetensors").read_bytes() == other
    assert not list((reward_folder / LOAD).glob("*.part"))


def test_verify_replaces_what_is_damaged_and_nothing_else(hub, reward_folder, clip_files):
    run()
    path = reward_folder / LOAD / "model.safetensors"
    path.write_bytes(bytes(len(clip_files["model.safetensors"])))
    hub.asked.clear()
    run()
    assert hub.asked == []
    run(verify=True)
    assert path.read_bytes() == clip_files["model.safetensors"]
    assert not any("resolve" in url and "config.json" in url for url in hub.asked)


def test_a_full_disk_is_told_before_anything_is_fetched(hub, reward_folder, monkeypatch):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 2**40, 1000))
    said = refusal(kind=OSError)
    assert "are free at" in said and "make room" in said
    assert not any("resolve" in url for url in hub.asked)
    assert not reward_folder.exists()


REFUSALS = {
    (401, "GatedRepo"): "accept it on that page, set HF_TOKEN",
    (404, "RepoNotFound"): "was not found: it is gone, or private",
    (404, "RevisionNotFound"): "any more",
    (401, ""): "was not found|refuses the token",
    (403, ""): "refuses the token in HF_TOKEN",
    (418, ""): "answered with error 418: run this again",
}


@pytest.mark.parametrize("status, code", REFUSALS)
def test_a_refusal_of_the_hub_is_one_sentence(hub, status, code):
    hub.refuse = (status, code)
    said = refusal()
    assert any(words in said for words in REFUSALS[status, code].split("|")), said


def test_a_file_that_is_gone_is_named(hub):
    del hub.files[PAGE]["model.safetensors"]
    assert f"huggingface.co/{PAGE} has no model.safetensors any more" in refusal()


def test_no_network_is_one_sentence(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "was not reached" in refusal()


def test_a_missing_huggingface_hub_is_told_with_the_mend(hub, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "run pip install huggingface_hub" in refusal()


@pytest.fixture
def offline(monkeypatch):
    """As with HF_HUB_OFFLINE=1 at the start; sessions that know of it end with the test."""
    reset = getattr(huggingface_hub.utils, "reset_sessions", None) or huggingface_hub.close_session
    reset()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    yield
    monkeypatch.undo()
    reset()


def test_the_offline_switch_is_honoured(hub, offline):
    assert "HF_HUB_OFFLINE is set" in refusal()
    assert hub.asked == []


def test_the_token_is_the_hub_s_own(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    run()
    assert set(hub.tokens) == {"Bearer hf_of_a_test"}


def test_a_folder_is_taken_whole_and_is_unfinished_until_it_is(hub, reward_folder):
    inner = {"unet/config.json": b"{}", "unet/diffusion_pytorch_model.safetensors": b"x" * 500}
    files = {**inner, "unet/diffusion_pytorch_model.bin": b"no", "state_dict.pt": b"y" * 300,
             "training_args.bin": b"no", "sample.png": b"no"}  # fmt: skip
    hub.files["casiatao/LRM"] = {f"lrm_sd15/{path}": data for path, data in files.items()}
    hub.files["casiatao/LRM"]["lrm_sdxl/state_dict.pt"] = b"another"
    hub.wrong = {"lrm_sd15/unet/diffusion_pytorch_model.safetensors"}
    refusal("LRM for SD 1.5")
    hub.wrong = set()
    assert run("LRM for SD 1.5") == "lrm_sd15"
    assert held(reward_folder) == {f"lrm_sd15/{path}" for path in (*inner, "state_dict.pt")}
    hub.asked.clear()
    run("LRM for SD 1.5")
    assert hub.asked == []


def test_needed_files_of_a_whole_repository():
    shards = [f"pytorch_model-0000{n}-of-00002.bin" for n in (1, 2)]
    files = ["config.json", *shards, "pytorch_model.bin.index.json", "spiece.model"]
    assert needed([*files, "trainer_state.json", "training_args.bin", "x.md"]) == sorted(files)


def test_nothing_is_asked_before_it_is_run(hub):
    for node in NODES:
        node.GET_NODE_INFO_V1()
    for entry in PUBLISHED:
        DNODownloadRewardModel.fingerprint_inputs(model=entry.label)
        DNOLoadRewardModel.validate_inputs(name=entry.load)
    assert hub.asked == []


def test_the_fingerprint_changes_when_a_file_goes(hub, reward_folder):
    label = by_label(NAME).label
    before = DNODownloadRewardModel.fingerprint_inputs(model=label)
    run()
    after = DNODownloadRewardModel.fingerprint_inputs(model=label)
    assert before == "" != after


class Messages:
    """What ComfyUI's executor needs of its server."""

    client_id = last_node_id = None

    def send_sync(self, *_):
        pass


def test_both_nodes_run_in_one_workflow(hub, monkeypatch):
    for node in NODES:
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, node.__name__, node)
    monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, "PreviewAny", PreviewAny)
    label = by_label(NAME).label
    prompt = {
        "1": {"class_type": "DNODownloadRewardModel", "inputs": {"model": label, "verify": False}},
        "2": {
            "class_type": "DNOLoadRewardModel",
            "inputs": {"name": ["1", 0], "precision": "automatic"},
        },
        "3": {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}},
    }
    valid, error, outputs, errors = asyncio.run(execution.validate_prompt("x", prompt, None))
    assert valid and not errors, (error, errors)
    assert sorted(outputs) == ["1", "3"]  # a download can stand alone
    executor = execution.PromptExecutor(
        Messages(), cache_args={"lru": 0, "ram": 0, "ram_inactive": 0}
    )
    executor.execute(prompt, "x", execute_outputs=outputs)
    assert executor.success, executor.status_messages
    (shown,) = executor.history_result["outputs"]["3"]["text"]
    assert shown.startswith("CLIP(")
