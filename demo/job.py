"""The demo's job, done as any client of ComfyUI would: submit a workflow over HTTP, wait, save.

`python run.py demo` starts a ComfyUI and calls `run` here. Against a ComfyUI that already runs
(with this pack and the demo checkpoint): `python demo/job.py http://127.0.0.1:8188`.
"""

from __future__ import annotations

import json
import math
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

try:
    from . import switch
except ImportError:  # as a program by itself
    import switch

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "output" / "dno_demo"
DEMOS = {switch.STARTER: RESULTS, "03_closer_to_the_prompt": RESULTS / "text_similarity"}
PICTURES = ("before", "after", "history")
NUMBERS = {  # name in report.json -> name in the record that DNOHistoryPlot leaves in the history
    "reward_before": "reward_start",
    "reward_after": "reward_best",
    "probability_before": "probability_start",
    "probability_after": "probability_best",
    "iterations": "iterations",
    "seconds": "seconds",
}


class Failure(Exception):
    """Something that the user can be told in one sentence."""


class Client:
    """ComfyUI's HTTP API: the few calls that a job needs."""

    def __init__(self, address: str):
        self.address = address.rstrip("/")
        self._open = urllib.request.build_opener(urllib.request.ProxyHandler({})).open

    def submit(self, prompt: dict) -> str:
        """Queue an API-format workflow; the id to wait for.

        With a client's id, the history also has the outputs that ComfyUI still held from before.
        A workflow of which ComfyUI would run only a part is a failure.
        """
        answer = self._json("/prompt", {"prompt": prompt, "client_id": "dno_demo"})
        if answer.get("node_errors"):
            self._bytes("/queue", {"delete": [answer["prompt_id"]]})
            raise Failure(rejection(json.dumps(answer).encode(), "did not take the workflow"))
        return answer["prompt_id"]

    def wait(
        self,
        prompt_id: str,
        timeout: float = 3600.0,
        tick: Callable[[float], None] = lambda seconds: None,
    ) -> dict:
        """The history entry of a workflow, once it ended: well, badly or interrupted."""
        start = time.monotonic()
        while not (entry := self._json(f"/history/{prompt_id}").get(prompt_id)):
            waited = time.monotonic() - start
            if waited > timeout:
                raise Failure(f"The workflow was not done after {timeout:.0f} s.")
            tick(waited)
            time.sleep(0.25)
        return entry

    def object_info(self, node: str = "") -> dict:
        return self._json(f"/object_info/{node}" if node else "/object_info")

    def system_stats(self) -> dict:
        return self._json("/system_stats")

    def interrupt(self) -> None:
        self._bytes("/interrupt", {})

    def image(self, saved: dict) -> bytes:
        """The bytes of one picture that a history entry names."""
        keys = ("filename", "subfolder", "type")
        return self._bytes("/view?" + urllib.parse.urlencode({key: saved[key] for key in keys}))

    def _json(self, path: str, body: dict | None = None) -> dict:
        return json.loads(self._bytes(path, body))

    def _bytes(self, path: str, body: dict | None = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address + path, data=data, headers=headers)
        try:
            with self._open(request, timeout=60) as response:
                return response.read()
        except urllib.error.HTTPError as error:
            raise Failure(rejection(error.read(), f"{path} answered {error.code}")) from None
        except OSError as error:
            raise Failure(f"No answer from ComfyUI at {self.address} ({error}).") from None


def rejection(body: bytes, otherwise: str) -> str:
    """Why ComfyUI did not take a request, from the JSON that it answers with: every reason."""
    try:
        answer = json.loads(body)
        reasons = [
            f"{node['class_type']}: {error['message']} ({error['details']})."
            for node in (answer.get("node_errors") or {}).values()
            for error in node["errors"]
        ]
        if reasons:
            return " ".join(dict.fromkeys(reasons))
        return f"ComfyUI did not take the workflow: {answer['error']['message']}."
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"ComfyUI: {otherwise}."


def failure(entry: dict) -> str | None:
    """What went wrong in a finished workflow, in one sentence; None when nothing did."""
    for name, message in entry.get("status", {}).get("messages", []):
        if name == "execution_error":
            text = " ".join(str(message.get("exception_message", "")).split())
            return f"{message.get('node_type')}: {text or message.get('exception_type')}"
        if name == "execution_interrupted":
            return "The workflow was interrupted."
    return None


def find(prompt: dict, class_type: str, suffix: str = "") -> str:
    """The id of the one node of this type (whose filename_prefix ends so)."""
    found = [
        key
        for key, node in prompt.items()
        if node["class_type"] == class_type
        and str(node["inputs"].get("filename_prefix", "")).endswith(suffix)
    ]
    if len(found) != 1:
        which = f" with a filename_prefix ending in '{suffix}'" if suffix else ""
        raise Failure(f"The workflow needs one {class_type}{which}; it has {len(found)}.")
    return found[0]


def value(prompt: dict, key: str, name: str, inner: tuple[str, ...]):
    """An input's value; where it is a link, what the linked nodes hold under one of `inner`."""
    found = prompt[key]["inputs"].get(name)
    while isinstance(found, list):
        inputs = prompt[found[0]]["inputs"]
        found = next((inputs[each] for each in inner if each in inputs), None)
    if found is None:
        raise Failure(f"The workflow's {prompt[key]['class_type']} has no {name} to report.")
    return found


def report(prompt: dict, entry: dict) -> dict:
    """What report.json says, from a workflow and the history entry of its run."""
    sampler, plot = find(prompt, "DNOSampler"), find(prompt, "DNOHistoryPlot")
    records = entry.get("outputs", {}).get(plot, {}).get("dno")
    if not records:
        raise Failure("The run left no record of the optimisation on its DNOHistoryPlot.")
    numbers = {}
    for name, key in NUMBERS.items():
        number = records[0].get(key)
        if not isinstance(number, (int, float)) or not math.isfinite(number):
            raise Failure(f"The record of the optimisation says {key} = {number}: not a number.")
        numbers[name] = number
    return {
        "prompt": value(prompt, sampler, "positive", ("text", "positive", "conditioning", "value")),
        "seed": value(prompt, sampler, "seed", ("seed", "noise_seed", "value")),
        **numbers,
    }


def picture(client: Client, prompt: dict, entry: dict, name: str) -> bytes:
    images = entry.get("outputs", {}).get(find(prompt, "SaveImage", name), {}).get("images")
    if not images:
        raise Failure(f"The run saved no picture '{name}'.")
    return client.image(images[0])


def run(client: Client, say=print, prompt: dict | None = None, results: Path = RESULTS) -> dict:
    """Run a demo on a ComfyUI that is up; leave pictures and report.json in `results`."""
    prompt = prompt or switch.recorded()
    missing = sorted({node["class_type"] for node in prompt.values()} - set(client.object_info()))
    if missing:
        raise Failure(f"This ComfyUI has no node {', '.join(missing)}: the pack did not load.")
    for name in PICTURES:
        find(prompt, "SaveImage", name)
    said = [0.0]

    def tick(seconds: float) -> None:
        if seconds - said[0] >= 10:
            said[0] = seconds
            say(f"  optimising, {seconds:.0f} s")

    entry = client.wait(client.submit(prompt), tick=tick)
    if sentence := failure(entry):
        raise Failure(sentence)
    made = report(prompt, entry)
    pictures = {name: picture(client, prompt, entry, name) for name in PICTURES}
    results.mkdir(parents=True, exist_ok=True)
    for name, png in pictures.items():
        (results / f"{name}.png").write_bytes(png)
    text = json.dumps(made, indent=2, ensure_ascii=False)
    (results / "report.json").write_text(text + "\n", encoding="utf-8")
    return made


if __name__ == "__main__":
    try:
        print(json.dumps(run(Client(sys.argv[1] if sys.argv[1:] else "http://127.0.0.1:8188"))))
    except Failure as error:
        sys.exit(str(error))
