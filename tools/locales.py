"""Write `locales/`, which ComfyUI reads, from the nodes' own words and the tables of translations.

    python run.py exec -- python tools/locales.py

`tools/translations/<language>.json` says each English text once: {English: translation}. A text
that a table lacks is added to it, empty, for you to fill in; one that no node says any more goes to
its end, to be used again or deleted. Both are told, and then the exit status is 1; a test holds it.
A key `<node id>.<input>` translates that input's name where the word means something else there.
English has no folder: the nodes say it themselves.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLES, LOCALES = ROOT / "tools" / "translations", ROOT / "locales"
NAMES = {"sampling", "DNO"}  # menus: the first is ComfyUI's own, the second a name

Table = Mapping[str, str]  # English -> its translation, or empty
Tree = dict[str, object]  # of a file: strings, and such trees


def languages() -> list[str]:
    return sorted(path.stem for path in TABLES.glob("*.json"))


def table_of(language: str) -> dict[str, str]:
    return json.loads((TABLES / f"{language}.json").read_text(encoding="utf-8"))


def definitions(schemas: Iterable) -> Tree:
    """nodeDefs.json in English: all that a user reads of these nodes."""
    return {schema.node_id: _definition(schema) for schema in schemas}


def categories(schemas: Iterable) -> Tree:
    """main.json in English: the names of the menus."""
    menus = {menu for schema in schemas for menu in schema.category.split("/")}
    return {"nodeCategories": {menu: menu for menu in sorted(menus - NAMES)}}


def _definition(schema) -> Tree:
    return {
        "display_name": schema.display_name,
        # without the words that find the node, which an older ComfyUI has at its end
        "description": re.sub(r"(?<=[.!]) \(.*\)$", "", schema.description),
        "inputs": {each.id: _named(each.id, each.tooltip) for each in schema.inputs},
        "outputs": {
            str(place): _named(each.display_name, each.tooltip)
            for place, each in enumerate(schema.outputs)
        },
    }


def _named(name: str, tooltip: str | None) -> Tree:
    return {"name": name} | ({"tooltip": tooltip} if tooltip else {})


def texts(tree: Tree) -> Iterator[str]:
    """Every string of a tree."""
    for value in tree.values():
        if isinstance(value, dict):
            yield from texts(value)
        else:
            yield str(value)


def translated(tree: Tree, table: Table, within: tuple[str, ...] = ()) -> Tree:
    """The tree in another language, without what the table lacks."""
    made: Tree = {}
    for key, value in tree.items():
        path = (*within, key)
        if isinstance(value, dict):
            made[key] = translated(value, table, path)
        elif text := table.get(_special(path), table.get(str(value))):
            made[key] = escaped(text)
    return {key: value for key, value in made.items() if value != {}}


def _special(path: tuple[str, ...]) -> str:
    """The key of an input's name where its word means something else than elsewhere."""
    node, *place = path
    return f"{node}.{place[1]}" if place[:1] == ["inputs"] and place[2:] == ["name"] else ""


def escaped(text: str) -> str:
    """A text as vue-i18n, which compiles messages, shows it.

    >>> escaped("50 % of {}")
    "50 {'%'} of {'{'}{'}'}"
    """
    return re.sub(r"[@{}|%]", lambda match: f"{{'{match[0]}'}}", text)


def updated(table: Table, schemas: Iterable) -> dict[str, str]:
    """A table in the order of the nodes, what it lacks empty, what nobody says at its end."""
    said = said_by(schemas)
    special = [key for key in table if key in _inputs(schemas)]
    wanted = {text: table.get(text, "") for text in [*said, *special]}
    return wanted | {text: words for text, words in table.items() if words and text not in wanted}


def said_by(schemas: Iterable) -> list[str]:
    """Every English text once, in the order of the nodes."""
    schemas = list(schemas)
    return list(dict.fromkeys([*texts(categories(schemas)), *texts(definitions(schemas))]))


def _inputs(schemas: Iterable) -> set[str]:
    return {f"{schema.node_id}.{each.id}" for schema in schemas for each in schema.inputs}


def problems(table: Table, schemas: Iterable) -> dict[str, str]:
    """Of a table, the texts that it lacks and those that no node says."""
    known = {*said_by(schemas), *_inputs(schemas)}
    lacking = {
        text: "not translated" for text, words in updated(table, schemas).items() if not words
    }
    return lacking | {text: "no node says it" for text in table if text not in known}


def files(language: str, schemas: Iterable) -> dict[Path, str]:
    """The files of a language, as they should be."""
    schemas, table = list(schemas), table_of(language)
    trees = {"main": categories(schemas), "nodeDefs": definitions(schemas)}
    return {
        LOCALES / language / f"{name}.json": in_json(translated(tree, table))
        for name, tree in trees.items()
    }


def in_json(tree: Mapping) -> str:
    return json.dumps(tree, ensure_ascii=False, indent=1) + "\n"


def schemas_of_the_pack() -> list:
    """The schema of every node, in the order in which ComfyUI is given them."""
    from ComfyUI_DNO.nodes import DNOExtension

    return [node.GET_SCHEMA() for node in asyncio.run(DNOExtension().get_node_list())]


def main() -> int:
    sys.path[:0] = [str(ROOT)]
    from tools import inside

    with tempfile.TemporaryDirectory() as data:
        inside.start_comfyui(Path(data))
        inside.load_pack()
        schemas = schemas_of_the_pack()
    wrong = 0
    for language in languages():
        table = updated(table_of(language), schemas)
        (TABLES / f"{language}.json").write_text(in_json(table), encoding="utf-8")
        for path, text in files(language, schemas).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        found = problems(table, schemas)
        wrong += len(found)
        for text, what in found.items():
            print(f"{language}: {what}: {text}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
