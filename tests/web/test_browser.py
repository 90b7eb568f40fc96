"""The web UI in a real browser: templates, blueprints and search, in both renderers.

Skipped where there is no chromium or no playwright.
"""

import json
import time
from importlib import metadata
from pathlib import Path

import pytest

from ComfyUI_DNO.nodes.host import keeping
from demo import switch
from tools import browser

from ..nodes.test_metadata import saved

ROOT = Path(__file__).resolve().parents[2]
STARTER = "01_start_here_darker"
EMPTY = {"nodes": [], "links": [], "version": 0.4}
INTERRUPTED = """() => {
    const api = window.comfyAPI.api.api
    window.ended = null
    for (const name of ['execution_interrupted', 'execution_success', 'execution_error'])
        api.addEventListener(name, () => { window.ended = name }, {once: true})
    api.addEventListener('b_preview', () => api.interrupt(), {once: true})
    window.app.queuePrompt(0)
}"""
PLACE_OF = """label => {
    const node = app.graph.nodes.find(each => each.widgets?.some(widget => widget.name === label))
    const widget = node.widgets.find(each => each.name === label)
    const middle = [node.pos[0] + node.size[0] / 2, node.pos[1] + widget.last_y + 10]
    const [x, y] = app.canvas.ds.convertOffsetToCanvas(middle)
    const canvas = app.canvas.canvas.getBoundingClientRect()
    return [canvas.x + x, canvas.y + y]
}"""
STARTED = """() => {
    const api = window.comfyAPI.api.api
    window.ended = null, window.pictures = 0
    for (const name of ['execution_interrupted', 'execution_success', 'execution_error'])
        api.addEventListener(name, () => { window.ended = name }, {once: true})
    api.addEventListener('b_preview', () => { window.pictures++ })
    window.app.queuePrompt(0)
}"""
WIRED = """([checkpoint, sampling]) => {
    const graph = window.app.graph
    const made = graph.nodes.find(node => node.subgraph)
    const loader = LiteGraph.createNode('CheckpointLoaderSimple')
    const shown = LiteGraph.createNode('PreviewImage')
    graph.add(loader), graph.add(shown)
    loader.widgets[0].value = checkpoint
    for (const place of [0, 1, 2]) loader.connect(place, made, place)
    made.connect(0, shown, 0)
    const put = (node, name, value) => {
        const widget = node.widgets?.find(each => each.name === name)
        if (widget) widget.value = value
    }
    put(made, 'prompt', 'a penguin'), put(made, 'speed', 'one pass')
    for (const node of made.subgraph.nodes) {
        if (node.type === 'EmptyLatentImage') put(node, 'width', 128), put(node, 'height', 128)
        if (node.type === 'DNOSampler')
            for (const name in sampling) put(node, name, sampling[name])
    }
    const widgets = made.widgets.map(widget => widget.name)
    return {widgets, values: made.widgets.map(widget => widget.value)}
}"""
UNPACKED = """() => {
    const graph = window.app.graph
    const before = new Set(graph.nodes.map(node => node.id))
    graph.unpackSubgraph(graph.nodes.find(node => node.subgraph))
    const inner = graph.nodes.filter(node => !before.has(node.id))
    return [inner.map(node => node.type), [...graph.links.values()].length]
}"""
TEMPLATES = sorted((ROOT / "example_workflows").glob("*.json"))
FRONTEND = metadata.version("comfyui-frontend-package")
USUAL = FRONTEND.startswith("1.32.")  # newer ones mark nodes whose models are missing, too
own_search = pytest.mark.skipif(
    not USUAL, reason="the search box is driven as frontend 1.32 has it"
)
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
        found = {str(node["id"]): node for node in web.nodes()}
        assert {id: node["type"] for id, node in found.items()} == {
            str(node["id"]): node["type"] for node in workflow["nodes"]
        }
        assert all(node["known"] for node in found.values()), path.stem
        assert not (USUAL and any(node["wrong"] for node in found.values())), path.stem
        links = web.page.evaluate("() => [...app.graph.links.values()].length")
        assert links == len(workflow["links"]), path.stem
        if vue:
            web.page.wait_for_selector("[data-node-id]")
            assert web.page.locator("[data-node-id]").count() == len(found), path.stem
        else:
            for node in workflow["nodes"]:  # as large as its file says: the layout stays
                size = found[str(node["id"])]["size"]
                assert size[1] <= node["size"][1] + 1, (path.stem, node["type"], size)
    web.set(browser.VUE, False)
    assert web.said == []


def test_a_template_runs_and_its_preview_changes(web):
    """With the demo switch: pictures come while it samples, and a picture at the end."""
    web.open(quick(switched(STARTER), steps=4), "run")
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
    web.open(quick(switched(STARTER), steps=4, iterations=10000), "interrupted")
    web.page.evaluate(INTERRUPTED)
    web.page.wait_for_function("() => window.ended")
    assert web.page.evaluate("() => window.ended") == "execution_interrupted"
    for _ in range(50):  # the page hears of the end just before the queue does
        queue = server._json("/queue")
        if not queue["queue_running"]:
            break
        time.sleep(0.1)
    assert queue["queue_running"] == queue["queue_pending"] == []
    web.open(quick(switched(STARTER), steps=2, effort="one pass"), "after")
    assert web.run() == "execution_success"


@pytest.mark.parametrize("vue", [False, True], ids=["classic", "nodes 2.0"])
def test_keep_best_ends_the_climb_and_keeps(web, server, vue):
    """The button on the node, pressed with the mouse while it climbs: a picture all the same."""
    web.set(browser.VUE, vue)
    web.open(quick(switched(STARTER), steps=4, iterations=10000, seed=8 + vue), "kept")
    web.page.evaluate(STARTED)
    web.page.wait_for_function("() => window.pictures > 3", timeout=60_000)
    if vue:
        web.page.get_by_role("button", name="Keep best").click()
    else:
        web.page.mouse.click(*web.page.evaluate(PLACE_OF, "Keep best"))
    web.page.wait_for_function("() => window.ended", timeout=60_000)
    assert web.page.evaluate("() => window.ended") == "execution_success"
    web.page.wait_for_timeout(1000)
    assert {node["title"]: node["images"] for node in web.nodes()}["After"] == 1
    (entry,) = server._json("/history?max_items=1").values()
    (picture,) = [node["id"] for node in web.nodes() if node["title"] == "After"]
    (climbed,) = saved(server, entry, str(picture))["dno"]["nodes"].values()
    assert climbed["stopped"] == keeping.REASON
    assert server._json("/dno/keep") == []
    web.set(browser.VUE, False)
    assert web.said == []


@own_search
@pytest.mark.parametrize(
    "words, name",
    [
        ("darker", "Darker"),
        ("brighter", "Brighter"),
        ("prettier", "Prettier"),
        ("like this picture", "More like this picture"),
        ("seamless", "Seamless texture"),
        ("small file", "Small file"),
        ("darkness", "Darkness Reward"),
        ("strength", "DNO Strength"),
    ],
)
def test_search_words_find_a_node(web, words, name):
    web.open(EMPTY, "search")
    assert name in web.search(words)


@own_search
def test_a_blueprint_runs_and_can_be_unpacked(web):
    """Found by its name, put on the canvas, wired to a loader, with the demo's model."""
    web.open(EMPTY, "blueprint")
    assert web.search("darker", choose="Darker")[0] == "Darker"
    made = web.page.evaluate(WIRED, [switch.CHECKPOINT, {"steps": 3, "cfg": 3}])
    assert made["widgets"] == ["prompt", "strength", "speed"]
    assert made["values"] == ["a penguin", "brisk", "one pass"]
    assert web.run() == "execution_success"
    inner, links = web.page.evaluate(UNPACKED)
    blueprint = read(ROOT / "subgraphs" / "Darker.json")
    (subgraph,) = blueprint["definitions"]["subgraphs"]
    assert sorted(inner) == sorted(node["type"] for node in subgraph["nodes"])
    asked = 3  # prompt, strength and speed, which become widgets again
    assert links == len(subgraph["links"]) - asked
    assert web.run() == "execution_success"
    assert web.said == []
