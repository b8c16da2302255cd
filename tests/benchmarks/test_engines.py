"""The benchmark of the engines runs on a tiny size: all grow one forest, and what they took is printed."""

from __future__ import annotations

import pytest
from printed import output
from tiny import finished

pytest.importorskip("vllm", reason="vLLM needs an environment of its own: make vllm && make test-vllm")
pytestmark = pytest.mark.vllm


def test_all_engines_grow_one_forest():
    model = finished()[0].checkpoints / "cold-start"
    options = ["--tasks", "1", "--horizon", "3", "--repeats", "1", "--engines", "vllm", "flat"]
    lines = output("engines.py", "--model", model, *options)
    rows = {
        row[0]: row for row in ([cell.strip() for cell in line.strip("|").split("|")] for line in lines if line[0] == "|")
    }
    assert rows["local"][2] == rows["vllm"][2] == rows["flat"][2]
    assert "vllm: 100% of the steps are those of the local engine" in lines
