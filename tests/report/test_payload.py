"""What the page is given says what the forest said, and is JSON to the letter."""

from __future__ import annotations

import json
import math
import re
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

import pytest
from grown import grown, shapes
from hypothesis import given
from hypothesis import strategies as st
from trees import draw

from spark_rl.advantage.group import GroupMean
from spark_rl.config.recipe import Recipe
from spark_rl.environments.household import Household
from spark_rl.evaluation.results import BranchingResult, KindResult, LevelResult, Mean, from_json
from spark_rl.prompting.instructions import MODES
from spark_rl.report.payload import MODES as LETTERS
from spark_rl.report.payload import forest_entry, forest_payload, metrics_payload, missing_entry, run_payload
from spark_rl.report.reading import Reading
from spark_rl.types import Forest, Fork, Task

PAGE = Path(__file__).resolve().parents[2] / "web" / "src"
CONTRACT = PAGE / "contract.ts"
RECIPE = Recipe("drawn", Household(), advantage=GroupMean(std=False))


def reading(**changes: object) -> Reading:
    fields = {
        "directory": Path("run"),
        "recipe": RECIPE,
        "settings": {"name": "drawn", "seed": 3},
        "rows": (),
        "evaluations": {},
        "forests": (),
        "notes": (),
    }
    return Reading(**(fields | changes))  # type: ignore[arg-type]


def forked() -> Forest:
    """A root that explores; one of the two that follow wins. 0 -+- 1 (won), +- 2 (lost)"""
    tree = draw([-1, 0, 0], {1: 1.0, 2: 0.0})
    tree.nodes[0] = replace(tree.nodes[0], mode="explore", reasoning="It may be here.", entropies=(0.5, 1.5))
    tree.nodes[2] = replace(tree.nodes[2], well_formed=False, mode=None, text="<think>no", action="", truncated=2)
    tree.forks.append(Fork(0, 0, "after", 1))
    return Forest([tree], iteration=4)


def test_a_forest_becomes_columns_and_a_table_of_texts():
    payload: Any = forest_payload(forked(), RECIPE)
    strings = payload["strings"]
    assert (payload["iteration"], payload["tasks"]) == (4, [{"id": "drawn/1", "kind": "", "instruction": "find the key"}])
    [tree] = payload["trees"]
    assert strings[tree["observation"]] == "You are here."
    assert tree["forks"] == [[0, "after", 1, False]]
    nodes = tree["nodes"]
    assert nodes["parent"] == [-1, 0, 0]
    assert nodes["mode"] == "et-"
    assert [strings[i] for i in nodes["action"]] == ["go", "go", ""]
    assert [strings[i] for i in nodes["reasoning"]] == ["It may be here.", "on", "on"]
    assert {node: strings[i] for node, i in nodes["text"].items()} == {"2": "<think>no"}
    # well formed 1, admissible 2, success 4, done 8, repeated 16, shortened 32: 1 repeats "go" at the same key
    assert nodes["flags"] == [3, 1 + 2 + 4 + 8 + 16, 2 + 8 + 32]
    assert nodes["reward"] == [0.0, 1.0, 0.0]
    assert nodes["tokens"] == [2, 2, 2]
    assert nodes["logprob"] == [-0.75] * 3
    assert nodes["entropy"] == [1.0, None, None]
    # rewards are worth 10, the mean is 5; the malformed step pays 0.1 besides; the shared step stands for both
    assert nodes["advantage"] == [0.0, 5.0, -5.1]
    assert len(set(strings)) == len(strings)


def test_every_mode_has_a_letter_and_a_word_on_the_page():
    words = (PAGE / "tree" / "modes.ts").read_text()
    modes = {mode for some in MODES.values() for mode in some}
    assert modes | {None} == LETTERS.keys()
    for mode in modes:
        assert f'  {LETTERS[mode]}: "{mode}",' in words


def test_without_a_recipe_there_are_no_advantages():
    payload: Any = forest_payload(forked(), None)
    [tree] = payload["trees"]
    assert tree["nodes"]["advantage"] == [None] * 3


def test_the_index_of_a_run_knows_each_task_once():
    other = replace(forked().trees[0], task=Task("drawn", "drawn/2", "open the door", "door"))
    first, second = forked(), Forest([other, forked().trees[0]], iteration=5)
    payload: Any = run_payload(
        reading(forests=(4, 5, 6)), "0", "one", [forest_entry(first), forest_entry(second), missing_entry(6, "It is gone.")]
    )
    assert [task["id"] for task in payload["tasks"]] == ["drawn/1", "drawn/2"]
    assert payload["forests"][0] == {
        "iteration": 4,
        "trees": [{"task": 0, "steps": 3, "leaves": 2, "won": 1, "forks": 1}],
    }
    assert [tree["task"] for tree in payload["forests"][1]["trees"]] == [1, 0]
    assert payload["forests"][2] == {"iteration": 6, "trees": [], "missing": "It is gone."}


def test_numbers_that_json_has_no_word_for_are_null():
    rows = ({"iteration": 1.0, "kl": math.nan}, {"iteration": 2.0, "late": 1 / 3}, {"iteration": 3.0, "kl": -math.inf})
    evaluations = {"after": {"L0": from_json({"success": 1, "score": -math.inf}, needed=())}}
    payload: Any = run_payload(reading(rows=rows, evaluations=evaluations), "0", "one", [])
    assert payload["metrics"] == {"iteration": [1.0, 2.0, 3.0], "kl": [None] * 3, "late": [None, 0.33333, None]}
    result = payload["evaluations"]["after"]["L0"]
    assert (result["success"], result["score"], result["low"]) == (1.0, None, None)
    json.dumps(payload, allow_nan=False)


@given(st.lists(shapes(), min_size=1, max_size=3), st.integers(0, 999))
def test_every_node_of_every_tree_is_there(parents, seed):
    forest = Forest([grown(each, append=True, seed=seed + i) for i, each in enumerate(parents)])
    payload: Any = forest_payload(forest, RECIPE)
    json.dumps(payload, allow_nan=False)
    for tree, record in zip(forest, payload["trees"], strict=True):
        for name, column in record["nodes"].items():
            assert name == "text" or len(column) == len(tree.nodes)
        assert record["nodes"]["parent"] == [node.parent for node in tree.nodes]
        texts = [payload["strings"][i] for i in record["nodes"]["observation"]]
        assert texts == [node.observation for node in tree.nodes]


def contract(interface: str) -> dict[str, str]:
    """The fields of an interface of the page's contract, those that may be absent with a question mark, and their types."""
    [body] = re.findall(rf"export interface {interface} {{(.*?)^}}", CONTRACT.read_text(), re.DOTALL | re.MULTILINE)
    return dict(re.findall(r"^  ([\w?]+|\[.*\]): (.+);$", body, re.MULTILINE))


def test_the_page_reads_the_names_that_are_written():
    payload: Any = forest_payload(forked(), RECIPE)
    run: Any = run_payload(reading(), "0", "one", [forest_entry(forked())])
    metrics: Any = metrics_payload()
    for interface, written in (
        ("Forest", payload),
        ("Task", payload["tasks"][0]),
        ("Tree", payload["trees"][0]),
        ("Nodes", payload["trees"][0]["nodes"]),
        ("Run", run),
        ("ForestEntry", missing_entry(1, "")),
        ("TreeEntry", run["forests"][0]["trees"][0]),
        ("Declared", metrics),
        ("Curve", metrics["curves"][0]),
        ("Metric", metrics["metrics"][0]),
    ):
        assert {name.rstrip("?") for name in contract(interface)} == written.keys(), interface


TYPES = {
    "int": "number",
    "float": "number | null",
    "tuple[str, ...]": "string[]",
    "Mapping[str, float]": "Record<string, number>",
    "Mapping[str, KindResult]": "Record<string, Kind>",
    "Mapping[str, Mean]": "Record<string, Mean>",
    "BranchingResult | None": "Branching",
}
"""Types of a result, and what the page calls them; a number of which an older file may know nothing is null there."""


@pytest.mark.parametrize(
    ("interface", "kind", "always"),
    [
        ("Evaluation", LevelResult, {"success", "low", "high"}),
        ("Branching", BranchingResult, set()),
        ("Kind", KindResult, set()),
        ("Mean", Mean, {"tasks"}),
    ],
)
def test_the_page_knows_every_number_of_a_result(interface, kind, always):
    """`by_rule` is spread: the success of each rule is a number of its own, whose name begins with `by_`."""
    expected: dict[str, str] = {}
    for each in fields(kind):
        optional = each.default is not MISSING or each.default_factory is not MISSING
        name = "[by_rule: `by_${string}`]" if each.name == "by_rule" else f"{each.name}{'?' * optional}"
        expected[name] = "number" if each.name in always | {"by_rule"} else TYPES[str(each.type)]
    assert contract(interface) == expected
