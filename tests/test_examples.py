"""Every example runs, and what it defines can be named on the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from spark_rl.environments.base import World, load_world
from spark_rl.environments.check import check_world

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
