"""What is asked of a row's workflow beyond itself, and how its answers become a record.

The pack's own nodes answer: DNO History Data gives the curve, the first and the best pictures, DNO
Score Images the scores of rewards that were not climbed. They are added to the row's workflow, so
ComfyUI's executor runs them, and does nothing twice that the workflow asks for already.
"""

from __future__ import annotations

from statistics import fmean

from .check import Types
from .graph import Graph, is_link, links, node_of, title
from .plan import Plan
from .words import Failure, nearest

HISTORY, REWARD = "DNO_HISTORY", "DNO_REWARD"
OWN = "sweep:"  # what the added nodes' ids begin with
TOLD, SCORES = "dno_history", "dno_scores"  # what the pack's nodes leave in ComfyUI's history


def ends(plan: Plan, types: Types) -> set[str]:
    """The nodes whose results are wanted: the workflow's own, samplers and held-out scorers."""
    wanted = {
        name
        for name, node in plan.base.items()
        if types.makes_results(node["class_type"]) or HISTORY in types.outputs(node["class_type"])
    }
    if wanted <= set(plan.held_out):
        raise Failure(f"{plan.path}: the workflow saves no picture and has no DNO Sampler.")
    for name in plan.held_out:
        kind = plan.base[name]["class_type"]
        scores_images = types.makes_results(kind) and "image" in types.inputs(kind)
        if REWARD not in types.outputs(kind) and not scores_images:
            raise Failure(f"held_out: {name}: {kind} is no reward and scores no 'image'.")
        _refuse_climbed(plan, name, types)
    if "sampler" in plan.given:
        node_of(str(plan.given["sampler"]), plan.base, "sampler", whole=True)
    return wanted | set(plan.held_out)


def _refuse_climbed(plan: Plan, name: str, types: Types) -> None:
    """A held-out scorer must not be what the noise climbs."""
    given = plan.given.get("held_out", {}).get(name, {})
    origin = node_of(given["node"], plan.base, "held_out", whole=True) if "node" in given else name
    reached, stack = set(), [origin]
    while stack:
        here = stack.pop()
        reached.add(here)
        users = (each for each, node in plan.base.items() if here in links(node).values())
        stack.extend(each for each in users if each not in reached)
    for each in reached:
        if HISTORY in types.outputs(plan.base[each]["class_type"]):
            raise Failure(
                f"held_out: {name} is climbed by {title(plan.base, each)}: what is held out scores "
                "the pictures and nothing else."
            )


def probed(plan: Plan, graph: Graph, types: Types, key: str) -> Graph:
    """A row's workflow with the nodes that answer; what it saves goes below the folder `key`."""
    graph = {name: {**node, "inputs": dict(node["inputs"])} for name, node in graph.items()}
    pictures = _pictures(graph, types, plan)
    for name in plan.held_out:
        if name in graph:
            _add_scorer(graph, name, pictures, types)
    for node in graph.values():
        inputs = types.inputs(node["class_type"])
        if types.makes_results(node["class_type"]) and "filename_prefix" in inputs:
            given = node["inputs"].get("filename_prefix", "picture")
            if not is_link(given):
                node["inputs"]["filename_prefix"] = f"{key}/{given}"
    return graph


def _pictures(graph: Graph, types: Types, plan: Plan) -> dict[str, list]:
    """start and best as links: of the sampler's history, or of what the workflow saves first."""
    histories = [
        [name, types.outputs(node["class_type"]).index(HISTORY)]
        for name, node in graph.items()
        if HISTORY in types.outputs(node["class_type"])
    ]
    if "sampler" in plan.given:
        chosen = node_of(str(plan.given["sampler"]), plan.base, "sampler", whole=True)
        histories = [each for each in histories if each[0] == chosen]
    if len(histories) > 1:
        names = [title(graph, each[0]) for each in histories]
        raise Failure(f"Write 'sampler: ...' for the one to follow{nearest('', names)}")
    if not histories:
        saved = [
            node["inputs"]["images"]
            for node in graph.values()
            if types.makes_results(node["class_type"]) and is_link(node["inputs"].get("images"))
        ]
        return {"best": saved[0]} if saved else {}
    data = f"{OWN}history"
    graph[data] = {"class_type": "DNOHistoryData", "inputs": {"history": histories[0]}}
    taken = {"start": [data, 1], "best": [data, 2]}
    for at, link in taken.items():
        save = {"images": link, "filename_prefix": at}
        graph[f"{OWN}save:{at}"] = {"class_type": "SaveImage", "inputs": save}
    return taken


def _add_scorer(graph: Graph, name: str, pictures: dict[str, list], types: Types) -> None:
    """Ask a reward, or a node that scores pictures itself, for the scores of start and best."""
    scorer = graph[name]
    is_reward = REWARD in types.outputs(scorer["class_type"])
    if not is_reward:
        del graph[name]
    for at, link in pictures.items():
        if is_reward:
            slot = types.outputs(scorer["class_type"]).index(REWARD)
            kind, inputs = "DNOScoreImages", {"reward": [name, slot]}
        else:
            kind, inputs = scorer["class_type"], scorer["inputs"]
        graph[f"{OWN}{at}:{name}"] = {"class_type": kind, "inputs": {**inputs, "image": link}}


def read(told: dict[str, dict], graph: Graph) -> dict:
    """A record's numbers from what the nodes told: means over a batch."""
    record: dict = {"start": {}, "best": {}, "curves": {}, "made": 0}
    histories = [out[TOLD][0] for _, out in sorted(told.items(), reverse=True) if out.get(TOLD)]
    if histories:
        _read_history(record, histories[0])
    for name, out in told.items():
        for answer in out.get(SCORES, []):
            at, _, label = name.removeprefix(OWN).partition(":")
            if not name.startswith(OWN):  # the workflow's own
                at, label = "best", title(graph, name)
            record[at][label] = _mean(answer["scores"])
        record["made"] = max(record["made"], len(out.get("images", [])))
    return record


def _read_history(record: dict, told: dict) -> None:
    best = [told["step"].index(step) for step in told["best_step"]]
    groups = {"reward": told["reward"], "score": told.get("score")}
    groups |= {f"term {name}": rows for name, rows in told.get("terms", {}).items()}
    groups |= told.get("indicators", {})
    for name, rows in groups.items():
        if not rows:
            continue
        record["curves"][name] = [_mean(row) for row in rows]
        record["start"][name] = _mean(rows[0])
        record["best"][name] = _mean([rows[at][i] for i, at in enumerate(best)])
    record["curves"]["evaluations"] = told["evaluations"]
    record["evaluations"], record["iterations"] = told["evaluations"][-1], told["step"][-1]
    record["stop_reason"] = told.get("stop_reason", "")
    record["best_step"], record["made"] = fmean(told["best_step"]), len(best)


def _mean(values: list[float | None]) -> float | None:
    return None if any(value is None for value in values) else fmean(values)
