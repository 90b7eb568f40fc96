"""The reward that CONTRIBUTING.md adds from start to end is one."""

import sys
import types
from pathlib import Path

import torch

import ComfyUI_DNO

ROOT = Path(ComfyUI_DNO.__file__).parent


def test_the_reward_of_the_page_does_what_it_says():
    code = (ROOT / "CONTRIBUTING.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    module = types.ModuleType("ComfyUI_DNO.rewards.balance")
    module.__package__ = "ComfyUI_DNO.rewards"
    sys.modules[module.__name__] = module
    try:
        exec(compile(code, "balance.py", "exec"), vars(module))
        image = torch.rand(2, 3, 6, 8, dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(module.Balance(0.1), image)
        assert torch.allclose(module.Balance(0.0)(image), module.Balance(0.0)(image.flip(3)))
        assert module.Balance()(torch.full((1, 3, 8, 8), 0.75)).tolist() == [0.0]
    finally:
        del sys.modules[module.__name__]
