"""Write the tables of rewards, regularizers, optimizers and downloads into the READMEs.

    python tools/tables.py          # in the tests' environment; ComfyUI is not needed

A table stands between `<!-- table: NAME -->` and `<!-- end -->`, and all that is in it is declared
by the classes that it lists. A test tells when it is out of date.
"""

from __future__ import annotations

import importlib
import re
import sys
import types
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
READMES = ("README.md", "rewards/README.md", "regularizers/README.md")


def plain_pack() -> Callable[[str], types.ModuleType]:
    """From the name of a module of a plain layer, such as "rewards.models", to the module."""
    name = "ComfyUI_DNO"
    if name not in sys.modules:
        pack = types.ModuleType(name)
        pack.__path__ = [str(ROOT)]
        sys.modules[name] = pack
    return lambda module: importlib.import_module(f"{name}.{module}")


def table(head: str, rows: Iterable[Iterable[str]]) -> str:
    columns = head.count("|") - 1
    return "\n".join([head, "|---" * columns + "|", *("| " + " | ".join(r) + " |" for r in rows)])


def tables() -> dict[str, str]:
    """Name -> the table in Markdown."""
    module = plain_pack()
    rewards, declared = module("rewards"), module("dno.declared")
    summary, words = declared.summary, declared.words
    regularizers = module("regularizers").REGULARIZERS
    made_of = (*rewards.MODIFIERS, rewards.Minimum)
    groups: dict[str, list[str]] = {}
    for cls in (*rewards.REWARDS, *made_of):
        groups.setdefault(cls.group, []).append(words(cls))
    by_name = {
        "groups": table(
            "| sub-menu | rewards |", ([name, ", ".join(each)] for name, each in groups.items())
        ),
        "rewards": table(
            "| reward | what it does | score | gradient |",
            (
                [cls.__name__, summary(cls), cls.span, "yes" if cls.differentiable else "no"]
                for cls in rewards.REWARDS
            ),
        ),
        "modifiers": table(
            "| modifier | what it does |", ([cls.__name__, summary(cls)] for cls in made_of)
        ),
        "regularizers": table(
            "| regularizer | keeps | source |",
            ([words(cls), cls.keeps, cls.source] for cls in regularizers),
        ),
        "optimizers": table(
            "| optimizer | what it does |",
            ([words(cls), summary(cls)] for cls in module("dno.optimizers").OPTIMIZERS),
        ),
        "downloads": downloads(module("rewards.models.catalogue").PUBLISHED),
    }
    if (ROOT / "dno" / "presets").is_dir():
        presets = module("dno.presets").PRESETS.values()
        rows = ([preset.title, preset.source] for preset in presets)
        by_name["presets"] = table("| preset | source |", rows)
    return by_name


def downloads(published: Iterable) -> str:
    """The reward models of the catalogue, by the reward that asks them and their licence."""
    rows: dict[tuple[str, str], list[str]] = {}
    for entry in published:
        rows.setdefault((entry.reward, entry.licence), []).append(entry.name)
    return table(
        "| reward | to download | licence of the weights |",
        ([reward, "; ".join(names), licence] for (reward, licence), names in rows.items()),
    )


def updated(text: str) -> str:
    """A page with its tables as they should be. Raises KeyError for one that is not known."""
    by_name = tables()

    def block(match: re.Match) -> str:
        return f"<!-- table: {match[1]} -->\n{by_name[match[1]]}\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->\n.*?<!-- end -->", block, text, flags=re.DOTALL)


def main() -> None:
    for name in READMES:
        page = ROOT / name
        page.write_text(updated(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
