"""Tables from results made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from spark_rl.experiments.paper.benchmarks import base_recipe
from spark_rl.experiments.paper.grid import Grid
from spark_rl.experiments.paper.measures import value
from spark_rl.experiments.paper.outcome import Outcome, as_json, markdown
from spark_rl.experiments.paper.published import TABLES
from spark_rl.experiments.paper.table import Arm, Column, Row, Table

GRID = Grid("tiny", {("household", "1.5B"): base_recipe("household", "1.5B", "tiny")})
NEAR, FAR = Column("ALFWorld L0", "alfworld"), Column("ALFWorld L1", "alfworld", "L1")
TABLE = Table(
    "toy",
    "Two ways",
    "nowhere, Table 0",
    (NEAR, FAR),
    (
        Row("closed", None, (50.0, 40.0)),
        Row("chains", Arm("grpo"), (70.0, 60.0)),
        Row("trees", Arm(), (96.9, 93.8)),
    ),
    reference="chains",
    note="A note.",
)
CHAINS = {"L0": (0.4, 0.5, 0.6), "L1": (0.2, 0.3, 0.4), "L2": (0.1, 0.1, 0.1)}
TREES = {"L0": (0.5, 0.6), "L1": (0.4, 0.5), "L2": (0.2, 0.2)}


def results(table: Table, row: str, after: dict[str, tuple[float, ...]], **more: object) -> dict[str, Any]:
    """A result a seed of the row's cell."""
    (found,) = (one for one in table.rows if one.name == row)
    return {
        GRID.cell(found, "household", "L0", seed).name: {
            "after": {level: {"success": values[seed]} for level, values in after.items()},
            **more,
        }
        for seed in range(len(after["L0"]))
    }


def outcome() -> Outcome:
    return Outcome.of(TABLE, GRID, results(TABLE, "chains", CHAINS) | results(TABLE, "trees", TREES), seeds=3)


def test_ours_stands_beside_the_papers_with_its_interval():
    text = markdown(outcome())
    assert "| closed | – / 50.0 | – / 40.0 | – / – |" in text.replace("household ", "")
    # Mean 50, deviation 10, t of two degrees of freedom 4.303: 10 / sqrt(3) * 4.303 = 24.8.
    assert "| chains | 50.0 [25.2, 74.8] / 70.0 |" in text
    # Two seeds of three: 55 +- 12.706 * 7.071 / sqrt(2) = 63.5.
    assert "| trees | 55.0 [-8.5, 118.5] (of 2) / 96.9 |" in text
    assert text.endswith("A note.")


def test_rows_are_compared_seed_by_seed_and_tested_over_all_pairs():
    found = outcome()
    difference = found.difference(2, 1)
    assert difference is not None
    assert difference.mean == pytest.approx(20)
    assert found.difference(1, 0) is None, "the reference is compared with nothing"
    # Levels times seeds: 10, 10, 20, 20, 10, 10, all above zero: 2 / 2^6.
    assert found.tested(2) == "p = 0.031 (6 of 6 pairs differ)"
    (row,) = [line for line in markdown(found).split("Difference to chains")[1].splitlines() if line.startswith("| trees")]
    assert "+10.0 [+10.0, +10.0] / +26.9" in row
    assert "+20.0 [+20.0, +20.0] / +33.8" in row


def test_with_fewer_than_six_pairs_a_sentence_says_why_there_is_no_test():
    few = {level: values[:1] for level, values in TREES.items()}
    found = Outcome.of(TABLE, GRID, results(TABLE, "chains", CHAINS) | results(TABLE, "trees", few), seeds=3)
    assert found.tested(2) == "too few pairs (3)"
    assert "Of fewer than 6 pairs of benchmark and seed no p below 0.05 can come." in markdown(found)


def test_before_any_cell_has_finished_the_published_numbers_stand_alone():
    text = markdown(Outcome.of(TABLE, GRID, {}, seeds=5))
    assert "– / 96.9" in text
    assert "Difference" not in text


def test_the_json_holds_every_seed():
    data: Any = as_json(outcome())
    assert data["rows"][2]["ours"][0] == [50.0, 60.0, None]
    assert data["rows"][0]["ours"][0] == [None] * 3
    assert data["rows"][1]["paper"] == [70.0, 60.0, None]


def test_tokens_are_percent_of_the_chains_of_the_same_seed():
    table = TABLES["table2"]
    cells = [GRID.cell(row, "household", "L0", seed).name for row in table.rows for seed in (0, 1)]
    spent = dict(zip(cells, ((1000, 8), (2000, 8), (900, 6), (1000, 8)), strict=True))
    curves = {name: [{"generated": tokens, "leaves": leaves}] for name, (tokens, leaves) in spent.items()}
    results: dict[str, Any] = {name: {"after": {}, "curve": curve} for name, curve in curves.items()}
    found = Outcome.of(table, GRID, results, seeds=2)
    assert [[list(values.values()) for values in row] for row in found.ours] == [[[100, 100]] * 2, [[90, 50], [120, 50]]]
    assert found.published == ((100.0, None), (93.1, None))


def test_every_measure_is_read_in_the_papers_units():
    after = {
        "success": 0.8,
        "repetitive_ratio": 0.1,
        "tokens": 150.0,
        "kinds": {"light": {"wins": 3, "tasks": 4}},
        "averages": {"score": {"tasks": 0.7, "types": 0.6}},
    }
    asked = {
        "--samples 4 --pass-at 2": {"L0": {"pass_at": {"2": 0.9}}},
        "--choose majority": {"L0": {"success": 0.4, "tokens": 900.0, "branching": {"by_likelihood": 0.6}}},
    }
    whole: Any = {
        "after": {"L0": after, "L2": {"success": 0.2}},
        "explore_ratio": [0.3, 0.2, 0.1],
        "curve": [{"generated": 0, "leaves": 0}, {"generated": 1234, "leaves": 2}],
        "evaluations": asked,
    }

    def read(measure, key="", evaluation="", rule=""):
        return value(Column("x", "household", "L0", measure, key), lambda _: whole, evaluation, rule)

    assert read("success") == 80
    assert read("repetitive") == 10
    assert read("tokens") == 150
    assert read("kind", "look") == 75
    assert read("score") == 70
    assert read("drop", "L2") == pytest.approx(75)
    assert read("generated") == 1234
    assert read("per_leaf") == 617
    assert read("pass_at", "2", "--samples 4 --pass-at 2") == 90
    assert read("success", "", "--choose majority") == 40
    assert read("success", "", "--choose majority", "likelihood") == 60
    assert read("tokens", "", "--choose majority", "likelihood") == 900, "one tree answers for both"
    assert read("success", "", "--samples 4 --pass-at 2", "likelihood") is None
    assert [read("explore", str(share)) for share in (1 / 150, 0.5, 1.0)] == [0.3, 0.2, 0.1]
    assert read("kind", "clean") is None
    assert value(Column("x", "household", "L1"), lambda _: whole) is None
