"""Write example_workflows/ (the web UI's form and the API's) and subgraphs/.

    python run.py exec -- python -m tools.templates

Files follow from the descriptions in this folder and from what the nodes say of themselves; a test
tells when they are out of date.
"""

from __future__ import annotations

import json
from pathlib import Path

import run

from . import everything


def main() -> None:
    home = run.Home.of(run.ROOT / ".comfyui")
    with run.server(home, home.root / "templates") as client:
        info = client.object_info()
    for name, made in everything(info).items():
        path = run.ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(made, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        print(Path(name))


if __name__ == "__main__":
    main()
