"""ComfyUI's web UI in a headless chromium, driven by playwright: for tests and pictures."""

from __future__ import annotations

import contextlib
import importlib.util
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ("--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
ITS_OWN = (  # errors that the web UI reports by itself, whatever is installed
    "ComfyApp graph accessed before initialization",  # 1.49, at its start
    "reading 'id')\n    at onChange",  # at its start, of a setting that it has yet to declare
    "setting 'value')\n    at Proxy.onChange",  # of its search box when it closes
    "Missing Link ID when unpacking",  # of each widget of a blueprint that nothing is wired to
)
VUE = "Comfy.VueNodes.Enabled"  # Nodes 2.0
SETTINGS = {  # so that it opens on an empty canvas, with nothing in front
    "Comfy.TutorialCompleted": True,
    "Comfy.Workflow.Persist": False,
    VUE: False,
}
READY = "() => window.app?.extensionManager?.setting && app.canvas?.graph"
RAN = """() => new Promise(done => {
    const api = window.comfyAPI.api.api
    const ends = ['execution_success', 'execution_error', 'execution_interrupted']
    ends.forEach(name => api.addEventListener(name, () => done(name), {once: true}))
    window.app.queuePrompt(0)
})"""
NODES = """() => window.app.graph.nodes.map(node => ({
    id: node.id, type: node.type, title: node.title, pos: [...node.pos], size: [...node.size],
    known: !!node.constructor.nodeData || node.type === 'MarkdownNote', wrong: !!node.has_errors,
    images: (app.nodeOutputs[node.id]?.images ?? []).length,
}))"""


def chromium() -> str | None:
    """The program, if there is one."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def missing() -> str:
    """Why there is no browser to drive; empty if there is one."""
    if not chromium():
        return f"no chromium: none of {', '.join(NAMES)} is a program here"
    if not importlib.util.find_spec("playwright"):
        return "no playwright: pip install playwright (its own browsers are not needed)"
    return ""


@dataclass
class Web:
    """An open web UI. page: playwright's. said: errors of its console and its scripts."""

    page: object
    said: list[str] = field(default_factory=list)

    def open(self, workflow: dict, name: str = "opened") -> None:
        """Put a workflow on the canvas, as from the templates browser."""
        script = "([workflow, name]) => window.app.loadGraphData(workflow, true, true, name)"
        self.page.evaluate(script, [workflow, name])
        self.page.wait_for_timeout(300)

    def set(self, setting: str, value: object) -> None:
        script = "([id, value]) => window.app.extensionManager.setting.set(id, value)"
        self.page.evaluate(script, [setting, value])
        self.page.wait_for_timeout(300)

    def search(self, words: str, choose: str = "") -> list[str]:
        """What the search box lists after a double click on the canvas; `choose` adds that one."""
        from playwright.sync_api import TimeoutError as TooLong

        box = self.page.locator(".comfy-vue-node-search-container input")
        for _ in range(5):  # a click on a canvas that is being laid out is lost
            self.page.mouse.dblclick(900, 700)
            with contextlib.suppress(TooLong):
                box.wait_for(timeout=6000)
                break
        self.page.keyboard.type(words)
        self.page.wait_for_timeout(700)
        options = self.page.locator("li.p-autocomplete-option")
        names = [text.split("\n")[0].strip() for text in options.all_inner_texts()]
        if choose:
            options.nth(names.index(choose)).click()
        for _ in range(3):  # the first may close the list alone
            if box.is_visible():
                self.page.keyboard.press("Escape")
                self.page.wait_for_timeout(300)
        return names

    def run(self) -> str:
        """Press Run; how it ended: execution_success, _error or _interrupted."""
        return self.page.evaluate(RAN)

    def nodes(self) -> list[dict]:
        """What is on the canvas: id, type, pos, size as the UI has it; whether known, and wrong."""
        return self.page.evaluate(NODES)


@contextlib.contextmanager
def opened(address: str, size: tuple[int, int] = (1440, 900)) -> Iterator[Web]:
    """The web UI of a running ComfyUI, ready; its browser is gone at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=chromium(), args=list(FLAGS), chromium_sandbox=False
        )
        try:
            page = browser.new_page(viewport={"width": size[0], "height": size[1]})
            for name, value in SETTINGS.items():
                page.request.post(f"{address}/settings/{name}", data=value)
            web = Web(page)
            page.on("pageerror", lambda error: web.said.append(str(error)))
            page.on("console", lambda line: _note(web, line))
            page.goto(address)
            page.wait_for_function(READY)
            page.wait_for_timeout(1500)
            yield web
        finally:
            browser.close()


def _note(web: Web, line) -> None:
    """Errors of the console, but for files that a user may have and for pages of the network."""
    text, address = line.text, line.location.get("url", "")
    optional = any(name in address for name in ("/userdata", "user.css", "favicon.ico"))
    expected = any(words in text for words in ("net::ERR", *ITS_OWN))
    if line.type == "error" and not expected and not optional:
        web.said.append(f"{text} {address}")
