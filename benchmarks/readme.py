"""Put the latest tables of this folder into its README, between the markers."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    readme = HERE / "README.md"
    text = readme.read_text(encoding="utf-8")
    for table in sorted(set(HERE.glob("*.md")) - {readme}):
        block = f"<!-- {table.stem} -->\n{table.read_text(encoding='utf-8').strip()}\n<!-- end -->"
        pattern = f"<!-- {table.stem} -->.*?<!-- end -->"
        text = re.sub(pattern, lambda _, block=block: block, text, flags=re.DOTALL)
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
