"""Adding a reward takes its file and its name in a list, as rewards/README.md promises."""

import importlib
import shutil
import sys
import types
from pathlib import Path

import pytest
import torch

from ComfyUI_DNO.nodes import rewards
from ComfyUI_DNO.rewards import MODIFIERS, REWARDS


def readme_example(pack):
    """The code of the ten-line example in rewards/README.md."""
    text = (pack / "rewards" / "README.md").read_text("utf-8")
    return text.split("```python\n")[1].split("```")[0]


@pytest.fixture
def loaded():
    """From the folder of a copy of the pack to its module of reward nodes, and forgets it after."""
    copy = types.ModuleType("ComfyUI_DNO_copy")
    sys.modules[copy.__name__] = copy

    def load(folder):
        copy.__path__ = [str(folder)]
        return importlib.import_module("ComfyUI_DNO_copy.nodes.rewards")

    yield load
    for name in [name for name in sys.modules if name.startswith(copy.__name__)]:
        del sys.modules[name]


def test_a_reward_added_to_a_pack_becomes_a_node(pack, loaded, tmp_path):
    """The README's example, in a copy of the pack: a file and a name in the list, nothing else."""
    root = Path(pack.__file__).parent
    for folder in ("dno", "rewards", "regularizers", "nodes"):
        shutil.copytree(
            root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__")
        )
    (tmp_path / "rewards" / "redness.py").write_text(readme_example(root), "utf-8")
    listed = tmp_path / "rewards" / "__init__.py"
    listed.write_text(
        listed.read_text("utf-8")
        .replace("from .brightness", "from .redness import Redness\nfrom .brightness")
        .replace("REWARDS = (", "REWARDS = (\n    Redness,"),
        "utf-8",
    )
    nodes = loaded(tmp_path).NODES
    redness = next(node for node in nodes if node.__name__ == "DNORednessReward")
    assert len(nodes) == len(rewards.NODES) + 1
    info = redness.GET_NODE_INFO_V1()
    assert info["display_name"] == "Redness Reward"
    assert info["description"].startswith("Makes the picture red.")
    assert info["category"] == "sampling/DNO/rewards/tone and colour"
    assert list(info["input"]["required"]) == ["strength", "weight"]
    (terms,) = redness.execute(strength=2.0, weight=1.0).result
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert terms["redness"].function(red).tolist() == [2.0]
    with pytest.raises(ValueError, match="Redness: strength is 11"):
        redness.execute(strength=11.0, weight=1.0)


def test_the_readme_lists_every_reward_and_modifier(pack):
    text = (Path(pack.__file__).parent / "rewards" / "README.md").read_text("utf-8")
    assert all(f"\n| {cls.__name__} |" in text for cls in REWARDS + MODIFIERS)
