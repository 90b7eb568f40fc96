"""A climb that the user ends: the best so far goes on through the graph, and nothing is left."""

from __future__ import annotations

import re
import time
import urllib.parse

import comfy.model_management as management
import pytest
import torch

from ComfyUI_DNO.nodes.host import keeping
from ComfyUI_DNO.nodes.host.keeping import REASON, Keeping, KeptOnRequest
from ComfyUI_DNO.nodes.host.sampling.endings import OUT_OF_MEMORY
from ComfyUI_DNO.nodes.host.sampling.levels import Levels
from demo import job, switch

from ..properties import executor, restored
from ..properties.executor import Host
from ..properties.graphs import keep
from ..properties.tiny_nodes import Fault, model, vae
from .test_metadata import saved
from .test_server import DEMO, shortened

STEPS = 4
SAMPLER = dict(
    model=["model", 0], positive=["yes", 0], negative=["no", 0], latent_image=["latent", 0],
    vae=["vae", 0], reward=["reward", 0], options=["options", 0], seed=5, steps=STEPS, cfg=1.0,
    sampler_name="euler_ancestral", scheduler="normal", denoise=1.0, iterations=5,
    learning_rate=0.05,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def registered():
    with pytest.MonkeyPatch.context() as patch:
        executor.register(patch)
        yield


def graph(on_cancel: str = "keep the best", memory: str = "call", **sampler) -> dict:
    latent = dict(batch=2, width=8, start="", mask="", picked="", nonce=0)
    options = dict(
        scope="all", gradient_clip=1.0, patience=0, use_target=False, target_reward=0.0,
        seconds=0.0, memory=memory, best_of=1, on_cancel=on_cancel,
    )  # fmt: skip
    nodes = {
        "model": ("TinyModel", {"prediction": "FLOW"}),
        "vae": ("TinyVAE", {}),
        "yes": ("TinyPrompt", {"seed": 1}),
        "no": ("TinyPrompt", {"seed": 2}),
        "latent": ("TinyLatent", latent),
        "reward": ("FailingReward", {}),
        "options": ("DNOOptions", options),
        "climb": ("DNOSampler", SAMPLER | sampler),
    }
    made = {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}
    for slot, name in enumerate(("latent", "history")):
        made[f"keep {name}"] = keep(name, ["climb", slot])
    return made


def pressed(monkeypatch, prompt: dict, call: int):
    """Run it; at one evaluation of the network, there or back, the button is pressed."""
    seen, check = [0], Keeping.check

    def pressing(self):
        seen[0] += 1
        if seen[0] == call:
            assert self.ask()
        check(self)

    monkeypatch.setattr(Keeping, "check", pressing)
    return Host().run(prompt)


@pytest.mark.parametrize("memory", ["call", "recorded", "least"])
@pytest.mark.parametrize("effort", ["climb", "fast"])
def test_cancel_in_the_middle_of_the_network_keeps_where_it_is_chosen(memory, effort):
    settings = {"iterations": -1, "effort": "fast"} if effort == "fast" else {}
    host, parts = Host(), (model("FLOW"), vae())
    host.run(graph(iterations=0))
    kept, modules = restored.state(*parts), restored.modules()
    fault = Fault("interrupt", "network", 2 * STEPS + 5)
    outcome = host.run(graph(memory=memory, **settings), fault)
    assert fault.happened and outcome.ran
    history = outcome.kept["history"]
    assert history.stop_reason == REASON and 1 <= len(history.records) < 5
    assert outcome.kept["latent"]["samples"].isfinite().all()
    assert restored.differences(kept, restored.state(*parts)) == []
    assert restored.differences(modules, restored.modules()) == []
    assert not management.processing_interrupted() and not keeping._running


def test_what_is_kept_is_what_a_stopping_rule_would_have_kept():
    stopped = Host().run(graph(), Fault("interrupt", "network", 2 * STEPS + 3))
    history = stopped.kept["history"]
    whole = Host().run(graph(iterations=len(history.records) - 1))
    assert torch.equal(stopped.kept["latent"]["samples"], whole.kept["latent"]["samples"])
    assert history.best.step.tolist() == whole.kept["history"].best.step.tolist()


@pytest.mark.parametrize("place", ["network", "decoder", "reward"])
def test_with_nothing_rendered_a_cancel_is_a_cancel(place):
    outcome = Host().run(graph(), Fault("interrupt", place, 0))
    assert outcome.interrupted and not outcome.kept
    assert not management.processing_interrupted() and not keeping._running


@pytest.mark.parametrize("place, call", [("decoder", 5), ("reward", 2)])
def test_a_cancel_while_a_picture_is_judged_keeps_too(place, call):
    Host().run(graph(iterations=1))  # the first decoding of all is tried out several times
    outcome = Host().run(graph(iterations=9), Fault("interrupt", place, call))
    assert outcome.ran and outcome.kept["history"].stop_reason == REASON


def test_by_default_a_cancel_throws_all_away():
    outcome = Host().run(graph("throw away"), Fault("interrupt", "network", 2 * STEPS + 5))
    assert outcome.interrupted and not outcome.kept


@pytest.mark.parametrize("on_cancel", ["throw away", "keep the best"])
@pytest.mark.parametrize("memory", ["call", "recorded"])
def test_the_button_ends_it_before_the_next_call_of_the_network(monkeypatch, memory, on_cancel):
    prompt = graph(on_cancel, memory=memory)
    outcome = pressed(monkeypatch, prompt, 3 * STEPS + 1)
    assert outcome.ran and outcome.kept["history"].stop_reason == REASON
    assert len(outcome.kept["history"].records) <= 3


def test_a_recorded_backward_is_ended_in_its_middle(monkeypatch):
    """No call of the network is made there: the gradient passes the calls that are kept."""
    calls = []
    check = Keeping.check

    def counted(self):
        calls.append(torch._C._current_autograd_node() is not None)
        if sum(calls) == 2:
            self.ask()
        check(self)

    monkeypatch.setattr(Keeping, "check", counted)
    outcome = Host().run(graph(memory="recorded"))
    assert sum(calls) == 2 and len(outcome.kept["history"].records) == 1


def test_pressed_too_early_it_waits_for_the_first_picture(monkeypatch):
    outcome = pressed(monkeypatch, graph(), 1)
    history = outcome.kept["history"]
    assert outcome.ran and history.stop_reason == REASON and len(history.records) == 1


def test_a_second_cancel_is_one():
    with Keeping(on_cancel=True) as held:
        held.begin()
        management.interrupt_current_processing()
        with pytest.raises(KeptOnRequest) as kept:
            held.check()
        assert not management.processing_interrupted()  # taken once, and cleared
        assert held.keeps(kept.value) and not held.ask()
        management.interrupt_current_processing()
        with pytest.raises(management.InterruptProcessingException):
            held.check()


def test_the_page_gets_the_button_that_speaks_to_this_route(server):
    (path,) = [each for each in server._json("/extensions") if each.endswith("/keep_best.js")]
    script = server._bytes(urllib.parse.quote(path)).decode()
    assert f'ROUTE = "{keeping.ROUTE}"' in script and f'EVENT = "{keeping.EVENT}"' in script
    for imported in re.findall(r'from "([^"]+)"', script):
        assert server._bytes(urllib.parse.urljoin(path, imported))


def running(server) -> list[dict]:
    return server._json("/dno/keep?client=dno_demo")


def until_it_climbs(server) -> dict:
    for _ in range(600):
        if found := running(server):
            return found[0]
        time.sleep(0.1)
    pytest.fail("It does not climb.")


@pytest.mark.parametrize("custom", [False, True])
def test_the_page_asks_and_the_graph_goes_on(server, custom):
    if custom:
        prompt = switch.prompt_of("10_any_sampler_flux")
        prompt[job.find(prompt, "BasicScheduler")]["inputs"]["steps"] = 3
        prompt[job.find(prompt, "DNOSamplerCustom")]["inputs"]["iterations"] = 10000
    else:
        prompt = shortened(iterations=10000)
    assert server._json("/dno/keep", {"client": "dno_demo"}) == {"asked": 0}
    prompt_id = server.submit(prompt)
    climb = until_it_climbs(server)
    assert climb["prompt"] == prompt_id and climb["running"]
    assert climb["node"] == job.find(prompt, "SamplerCustomAdvanced" if custom else "DNOSampler")
    assert server._json("/dno/keep?client=another") == []
    assert server._json("/dno/keep", {"climb": "of before"}) == {"asked": 0}
    assert server._json("/dno/keep", {"climb": climb["climb"]}) == {"asked": 1}
    entry = server.wait(prompt_id, timeout=60)
    assert job.failure(entry) is None
    after = job.find(prompt, "SaveImage", "any_sampler" if custom else "after")
    note = saved(server, entry, after)["dno"]["nodes"][climb["node"]]
    assert note["stopped"] == REASON
    assert running(server) == []


def test_cancel_from_the_page_keeps_where_it_is_chosen(server):
    prompt = shortened(iterations=10000, options=["options", 0])
    inputs = graph()["options"]["inputs"]
    prompt["options"] = {"class_type": "DNOOptions", "inputs": inputs}
    prompt_id = server.submit(prompt)
    until_it_climbs(server)
    server.interrupt()
    entry = server.wait(prompt_id, timeout=60)
    assert job.failure(entry) is None
    plot = entry["outputs"][job.find(DEMO, "DNOHistoryPlot")]
    assert "Stopped: kept on request." in plot["text"][0]


@pytest.mark.parametrize("failure", ["memory", "cancel"])
def test_the_best_is_kept_where_its_last_plain_sampling_fails(monkeypatch, failure):
    """Recorded steps may differ from plain ones in the last bits, which are not worth a picture."""
    check, calls, last = Keeping.check, [], []

    def failing(self):
        calls.append(torch.is_grad_enabled())
        if len(calls) in last and failure == "memory":
            raise management.OOM_EXCEPTION("out of memory")
        if len(calls) in last:
            management.interrupt_current_processing()
        check(self)

    prompt = graph(memory="recorded", iterations=2)
    monkeypatch.setattr(Levels, "rounded", True)  # as where recorded calls run other kernels
    monkeypatch.setattr(Keeping, "check", failing)
    whole = Host().run(prompt).kept["latent"]["samples"]
    assert not any(calls[-STEPS:])  # the plain sampling
    last.append(len(calls) - 1)
    calls.clear()
    outcome = Host().run(prompt)
    reason = {"memory": OUT_OF_MEMORY, "cancel": REASON}[failure]
    assert outcome.ran and outcome.kept["history"].stop_reason == reason
    assert len(calls) == last[0] and len(outcome.kept["history"].records) == 3
    assert torch.allclose(outcome.kept["latent"]["samples"], whole, atol=1e-4)
    assert not management.processing_interrupted()
