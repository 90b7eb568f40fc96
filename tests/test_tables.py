"""The tables of the READMEs are what the classes declare: python tools/tables.py writes them."""

from pathlib import Path

import pytest

import ComfyUI_DNO
from tools.tables import READMES, table, updated

ROOT = Path(ComfyUI_DNO.__file__).parent


@pytest.mark.parametrize("name", READMES)
def test_the_tables_of_a_readme_are_up_to_date(name):
    text = (ROOT / name).read_text("utf-8")
    assert updated(text) == text, "run python tools/tables.py"


def test_a_table_is_written_between_its_marks_and_nothing_else_is():
    page = "before\n<!-- table: regularizers -->\nold\n<!-- end -->\nafter <!-- end -->\n"
    assert "| Spectrum |" in updated(page) and "old" not in updated(page)
    assert updated(page).startswith("before\n") and updated(page).endswith("\nafter <!-- end -->\n")
    assert table("| a | b |", [["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |"
