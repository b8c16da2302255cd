"""The simulation of algorithms: one short run of every kind of arm, and the finding that the default rests on."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "simulation.py"


@pytest.fixture(scope="module")
def simulation():
    spec = importlib.util.spec_from_file_location("simulation", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["simulation"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["simulation"]


def test_paired_intervals_are_student_s(simulation):
    found = simulation.paired([1.0, 2.0, 3.0], [0.0, 0.0, 0.0])
    assert (found.mean, found.low, found.high) == pytest.approx((2.0, -0.4843, 4.4843), abs=5e-3)


def test_area_under_the_curve_is_a_mean_over_steps(simulation):
    assert simulation.Curve((0, 100), (0.0, 0.5)).area(100) == pytest.approx(0.25)
    assert simulation.Curve((0, 100), (0.0, 0.5)).area(200) == pytest.approx(0.375, abs=1e-3)


@pytest.mark.slow
def test_one_seed_one_curve(simulation):
    start = simulation.cold_start(0)
    first, second = (simulation.run("strategic", 0, 1000, 1000, start) for _ in range(2))
    assert first == second
    assert first.steps[-1] >= 1000


@pytest.mark.slow
def test_strategic_learns_more_than_grpo_from_equal_steps(simulation):
    """Where wrong choices cannot be taken back, on fixed seeds: paired 95 % interval of the area under the curve."""
    curves = simulation.compare(["grpo", "strategic"], range(10, 18), 30000, 5000)
    areas = {arm: [curve.area(30000) for curve in some] for arm, some in curves.items()}
    low = simulation.paired(areas["strategic"], areas["grpo"]).low
    assert low > 0
