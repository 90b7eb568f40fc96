"""The examples in the docstrings of the plain layers give what they say.

In them torch and every reward have their names: `>>> Brightness(0.25)(torch.ones(1, 3, 8, 8))`.
"""

import doctest
import importlib
from pathlib import Path

import pytest
import torch

import ComfyUI_DNO
from ComfyUI_DNO import rewards
from ComfyUI_DNO.dno.fields import Model, fields_of
from ComfyUI_DNO.regularizers import REGULARIZERS

ROOT = Path(ComfyUI_DNO.__file__).parent
LAYERS = ("dno", "rewards", "regularizers")
NAMES = {"torch": torch, **{name: getattr(rewards, name) for name in rewards.__all__}}
MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for layer in LAYERS
    for path in sorted((ROOT / layer).rglob("*.py"))
    if path.name != "__init__.py"
]
ALL = (*rewards.REWARDS, *rewards.MODIFIERS, rewards.Minimum, *REGULARIZERS)
OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_are_true(name):
    module = importlib.import_module(f"{ComfyUI_DNO.__name__}.{name}")
    runner, said = doctest.DocTestRunner(optionflags=OPTIONS), []
    for example in doctest.DocTestFinder().find(module, globs={**NAMES, **vars(module)}):
        torch.manual_seed(0)
        runner.run(example, out=said.append)
    assert not runner.failures, "".join(said)


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_what_needs_no_network_shows_itself_in_an_example(cls):
    needs_network = any(isinstance(metadata, Model) for metadata, _ in fields_of(cls).values())
    assert needs_network or "\n    >>> " in cls.__doc__
