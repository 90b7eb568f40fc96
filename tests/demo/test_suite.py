"""The benchmark suite: fixed, complete, and its table's arithmetic right."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch

from ComfyUI_DNO import rewards
from ComfyUI_DNO.dno.objective import Weighted
from ComfyUI_DNO.nodes.reward_models import load
from demo.vocabulary import CONCEPTS

HERE = str(Path(__file__).resolve().parents[2] / "benchmarks")


@pytest.fixture(scope="module")
def suite():
    """The suite's two plain modules, which find each other as its script does."""
    sys.path.insert(0, HERE)
    import suite_cases
    import suite_table

    sys.path.remove(HERE)
    return suite_cases, suite_table


def test_the_second_set_shares_no_prompt_and_no_seed(suite):
    cases, _ = suite
    first, second = cases.SETS["choosing"], cases.SETS["kept"]
    for part in (0, 1):
        assert not {each[part] for each in first} & {each[part] for each in second}
    pools = [range(seed, seed + cases.SEEDS) for _, seed in second]
    assert not any(seed in pool for _, seed in first for pool in pools)
    assert all(prompt.split()[-1] in CONCEPTS for prompt, _ in (*first, *second))


def test_every_class_has_several_rewards_and_each_scores_a_batch(suite, demo_clip):
    cases, _ = suite
    kinds = [case.kind for case in cases.CASES]
    assert all(kinds.count(kind) >= 3 for kind in ("easy", "far", "treacherous"))
    kit = cases.Kit(rewards, Weighted, load(demo_clip))
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for case in cases.CASES:
        reward = case.build(kit, "cat")
        assert reward(pictures).shape == (2,)
        assert reward(pictures).isfinite().all()
        assert reward.differentiable == (case.gradient is None), case.name


def test_a_mask_bound_reward_looks_at_its_side(suite):
    cases, _ = suite
    case = next(case for case in cases.CASES if case.name == "dark left, bright right")
    reward = case.build(cases.Kit(rewards, Weighted, None), "cat")
    right = torch.zeros(1, 3, 64, 64)
    right[..., 32:] = 1
    assert reward(right) > reward(right.flip(3)) + 0.3


def test_gains_are_paired_over_prompts(suite):
    cases, table = suite
    name = cases.CASES[0].name
    figures = {"a": (0.5, 0.7), "b": (0.1, 0.5)}  # best of seeds, climbed
    results = []
    for prompt, (seeds, climbed) in figures.items():
        for method, reward in ((table.BASELINE, seeds), ("none", climbed)):
            run = table.Run(name, method, prompt, 1, 8)
            results.append((run, {"reward": [0.0, reward], "recognised": [1.0, 0.5]}))
    lines = table.table(results)
    assert len(lines) == 4
    gain, error = 0.3, math.sqrt(((0.2 - 0.3) ** 2 + (0.4 - 0.3) ** 2) / 1) / math.sqrt(2)
    assert f"{gain:+.3f} ± {error:.3f}" in lines[3]
    assert lines[2].split("|")[6].strip() == "-"
