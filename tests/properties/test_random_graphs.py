"""Random graphs in ComfyUI's executor: whatever is in them and whatever fails, nothing is left.

Each is three prompts: a KSampler, a climb with or without a fault, the KSampler again. The suite
runs the same few; `python run.py test tests/properties --graphs 500` as many new ones.
"""

from __future__ import annotations

import json

import comfy.sample
import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, note, settings

from . import executor, restored
from .executor import Host, Outcome
from .graphs import Case, cases
from .tiny_nodes import Fault, model, vae

pytestmark = [
    pytest.mark.filterwarnings("ignore:Should have:UserWarning"),  # torchsde's own
    pytest.mark.filterwarnings("ignore:To copy construct:UserWarning"),  # dpm_adaptive's own
]
REFUSALS = (
    "There is no noise to optimise",
    "This sampler cannot be differentiated",
    "Minimum: some rewards score",
)


@pytest.fixture(scope="module", autouse=True)
def registered():
    with pytest.MonkeyPatch.context() as patch:
        executor.register(patch)
        yield


def again(prompt: dict) -> dict:
    """The same prompt, to be computed anew."""
    nodes = json.loads(json.dumps(prompt))
    nodes["latent"]["inputs"]["nonce"] += 1
    return nodes


def sampled(outcome: Outcome, name: str = "plain") -> torch.Tensor:
    return outcome.kept[name]["samples"]


def check(case: Case) -> str:
    """Run it; what became of the climb, in a word."""
    host, parts = Host(), (model(case.prediction), vae())
    before = host.run(case.plain)
    assume(before.ran and sampled(before).isfinite().all())  # ComfyUI itself cannot, or overflows
    kept, modules = restored.state(*parts), restored.modules()
    drawn = restored.generators()
    outcome = host.run(case.climbing, case.fault)
    if not reloaded(case, outcome):
        assert restored.differences(kept, restored.state(*parts)) == []
    assert restored.differences(modules, restored.modules()) == []
    assert restored.generators() in (drawn, seeded(case, before))
    after = host.run(again(case.plain))
    assert restored.differences(kept, restored.state(*parts)) == []
    assert torch.equal(sampled(after), sampled(before))
    assert torch.equal(after.kept["picture"], before.kept["picture"])
    return judge(case, outcome, sampled(before))


def seeded(case: Case, before: Outcome) -> tuple:
    """The generators where ComfyUI leaves them after drawing a sampling's first noise."""
    latent, seed = before.kept["given"], case.plain["plain"]["inputs"]["seed"]
    comfy.sample.prepare_noise(latent["samples"], seed, latent.get("batch_index"))
    return restored.generators()


def reloaded(case: Case, outcome: Outcome) -> bool:
    """Whether ComfyUI itself may have unloaded the weights, or taken its patches out of them."""
    kinds = {node["class_type"] for node in case.climbing.values()}
    unloaded = bool(outcome.error) and "memory" in outcome.error["exception_message"]
    return unloaded or bool(kinds & {"UNetSelfAttentionMultiply", "ScheduledLora"})


def judge(case: Case, outcome: Outcome, plain: torch.Tensor) -> str:
    fault = case.fault
    if outcome.interrupted:
        assert fault.happened and fault.kind == "interrupt"
        return "interrupted"
    if outcome.error:
        return told(fault, outcome.error)
    if "history" in outcome.kept:
        assert_climbed(case, outcome, plain)
    return "stopped" if fault and fault.happened else "climbed"


def told(fault: Fault | None, error: dict) -> str:
    """An error is the fault's own, or a sentence that says what to do."""
    said = error["exception_message"].strip()
    if fault and fault.happened:
        words = {
            "oom": "out of memory", "error": "something failed", "nan": "finite", "interrupt": "",
        }  # fmt: skip
        assert words[fault.kind] in said, said
        return fault.kind
    sentence = error["exception_type"] == "ValueError" and said.endswith(".") and "\n" not in said
    climbing = error["node_type"].startswith("DNOSampler") or "Custom" in error["node_type"]
    assert sentence and (not climbing or said.startswith(REFUSALS)), (error["node_type"], said)
    return "refused"


def assert_climbed(case: Case, outcome: Outcome, plain: torch.Tensor) -> None:
    history, latent = outcome.kept["history"], sampled(outcome, "latent")
    assert latent.isfinite().all()
    assert (history.best.objective >= history.records[0].objective).all()
    assert torch.equal(sampled(outcome, "replay"), latent)
    inputs = case.climbing["climb"]["inputs"]
    options = case.climbing.get(str((inputs.get("options") or [""])[0]), {}).get("inputs", {})
    if not history.best.step.any() and options.get("best_of", 1) == 1:
        assert torch.equal(latent, plain)


def test_nothing_is_left_whatever_the_graph_and_whatever_fails(request, capfd):
    wanted, default = request.config.getoption("graphs"), 30
    seen: dict[str, int] = {}

    @settings(
        max_examples=wanted or default,
        derandomize=not wanted,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def run(case):
        note(json.dumps(case.climbing))
        word = check(case)
        seen[word] = seen.get(word, 0) + 1

    run()
    counted = ", ".join(f"{count} {word}" for word, count in sorted(seen.items()))
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    with capfd.disabled():
        reporter.write_line(f"\n{sum(seen.values())} random graphs: {counted}")
