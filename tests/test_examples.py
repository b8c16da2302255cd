"""Every example runs, and what it defines can be named on the command line."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from grown import ended
from trees import draw

from spark_rl.config.components import component
from spark_rl.contracts import AdvantageEstimator, Branching, World
from spark_rl.environments.check import check_world
from spark_rl.environments.registry import load_world
from spark_rl.types import Fork

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_it_runs(path):
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_world_of_ones_own_is_found_by_name(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    world = load_world("custom_environment:Cups")
    assert isinstance(world, World)
    assert check_world(world, tasks=3).passed


def test_a_rule_of_ones_own_is_found_by_name(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    rule = component("branching", "custom_branching:Astray")
    assert isinstance(rule, Branching)
    tree = draw([-1, 0, 1])
    for node, key in zip(tree.nodes, ("hall", "attic", "hall"), strict=True):
        node.state_key = key
    wishes = [rule.after_step(tree, 4, node, random.Random(0)) for node in range(3)]
    assert wishes == [None, None, Fork(4, 2, "decision", 1)]  # only the third step stands where the path has been before


def test_an_estimator_of_ones_own_is_found_by_name(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    estimator = component("advantage", "custom_advantage:BestBelow")
    assert isinstance(estimator, AdvantageEstimator)
    credit = estimator(ended([-1, 0, 0, -1], [10, 0, 0]))  # a step that can still win, a win, two failures
    assert (credit.positive, credit.negative, credit.weight) == ((5, 5, 0, 0), (0, 0, -5, -5), (1, 1, 1, 1))
