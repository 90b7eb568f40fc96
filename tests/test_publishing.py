"""What a registry asks of the pack: one version everywhere, pictures, no pattern that alarms."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
VERSION = re.search(r'^version = "(.+)"$', PROJECT, re.M)[1]
NAME = re.search(r'^name = "(.+)"$', PROJECT, re.M)[1]
IGNORED = tuple((ROOT / ".comfyignore").read_text().split())
SHIPPED = [
    path
    for path in sorted(ROOT.rglob("*.py"))
    if not str(path.relative_to(ROOT)).startswith((*IGNORED, "output"))
]
SAVED = [*ROOT.glob("example_workflows/*.json"), *ROOT.glob("subgraphs/*.json")]
ALARMING = r"(?:\beval|\bexec|\bcompile|__import__|os\.system|subprocess\.\w+|\.cuda)\s*\("


def test_the_changelog_begins_with_this_version():
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
    assert first[1] == VERSION


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
def test_workflows_say_which_pack_and_version_their_nodes_are_of(path):
    workflow = json.loads(path.read_text(encoding="utf-8"))
    nodes = list(workflow["nodes"])
    subgraphs = workflow.get("definitions", {}).get("subgraphs", [])
    for subgraph in subgraphs:
        nodes += subgraph["nodes"]
    ids = {subgraph["id"] for subgraph in subgraphs}
    for node in nodes:
        if node["type"] in ids or node["type"] == "MarkdownNote":
            continue
        ours = node["type"].startswith("DNO")
        given = node["properties"]["cnr_id"], node["properties"]["ver"]
        assert given == ((NAME, VERSION) if ours else ("comfy-core", "0.3.75"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_shipped_code_looks_like_what_scanners_refuse(path):
    """They read text: a network's `.eval()` and `re.compile` are refused as running strings."""
    found = re.search(ALARMING, path.read_text(encoding="utf-8"))
    assert not found, f"{found and found[0]}: write it so that no pattern matches"


def test_help_tables_fit_the_panel():
    """The panel is 250 pixels wide: two columns are read without scrolling, three are not."""
    for page in sorted((ROOT / "web" / "docs").glob("*.md")):
        for line in page.read_text(encoding="utf-8").splitlines():
            if line.startswith("|"):
                assert len(re.split(r"(?<!\\)\|", line.strip("| \n"))) <= 2, f"{page.name}: {line}"


def test_each_help_page_has_a_picture_that_fits_the_panel():
    """Written by tools/help_pictures.py, below the first paragraph."""
    from PIL import Image

    for page in sorted((ROOT / "web" / "docs").glob("*.md")):
        shown = re.findall(r"^!\[(.+)\]\((.+)\)$", page.read_text(encoding="utf-8"), re.M)
        assert [name for _, name in shown] == [f"{page.stem}.jpg"], page.name
        with Image.open(page.with_suffix(".jpg")) as picture:
            assert 140 <= picture.width <= 420, page.name


def test_what_is_scanned_is_what_is_shipped():
    tops = {path.relative_to(ROOT).parts[0] for path in SHIPPED}
    assert tops == {"__init__.py", "dno", "nodes", "regularizers", "rewards"}


@pytest.mark.parametrize("key, sides", [("Icon", (400, 400)), ("Banner", (1260, 540))])
def test_icon_and_banner_are_pictures_of_the_checkout(key, sides):
    from PIL import Image

    address = re.search(rf'^{key} = "(.+)"$', PROJECT, re.M)[1]
    start = "https://raw.githubusercontent.com/comfyui-dno/ComfyUI-DNO/main/"
    assert address.startswith(start)
    with Image.open(ROOT / address.removeprefix(start)) as picture:
        assert picture.size == sides
