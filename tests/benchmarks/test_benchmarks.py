"""Each benchmark runs on a tiny size and prints its table. Figures are not judged, only that the work compared is equal."""

from __future__ import annotations

import pytest
from printed import output
from tiny import finished

from spark_rl.environments.alfworld import KINDS
from spark_rl.experiments.compare.study import header, write_study

pytestmark = pytest.mark.slow


def cells(lines: list[str], context: str, engine: str) -> list[str]:
    """One row of a markdown table, without the first two cells."""
    [row] = [line for line in lines if line.startswith(f"| {context} | {engine} |")]
    return [cell.strip() for cell in row.strip("|").split("|")][2:]


def same_work(lines: list[str], context: str) -> None:
    """Both engines generate alike, and what one reads again the other reuses."""
    ours, plain = (
        [int(cell.replace(",", "")) for cell in cells(lines, context, engine)[:3]] for engine in ("spark-rl", "generate")
    )
    assert ours[0] == plain[0] > 0
    assert ours[1] + ours[2] == plain[1]
    assert plain[2] == 0 < ours[2]


def test_rollout_makes_forests_of_both_contexts():
    lines = output("rollout.py", "--tasks", "1", "--horizon", "12", "--repeats", "1", "--demonstrations", "20")
    for context in ("Window", "Transcript"):
        same_work(lines, context)


def test_rollout_plays_the_forest_of_a_run():
    same_work(output("rollout.py", "--run", finished()[0].directory, "--repeats", "1"), "Transcript")


@pytest.mark.parametrize("source", ["synthetic", "run", "model"])
def test_update_packings_give_one_gradient(source):
    run = finished()[0]
    arguments = {
        "synthetic": ["--tasks", "1"],
        "run": ["--forest", run.directory],
        "model": ["--model", run.checkpoints / "cold-start", "--worlds", "household", "--tasks", "1", "--checkpointing"],
    }[source]
    names, *rows = [line.split() for line in output("update.py", *arguments)]
    assert len(rows) == {"synthetic": 8, "run": 4, "model": 2}[source]
    assert all(float(row[-1]) < 1e-4 for row in rows)
    share = names[::-1].index("share")
    assert all(float(row[::-1][share]) < 1.0 for row in rows if "token" in row)


def test_household_counts_steps():
    lines = output("household_speed.py", "--tasks", "2")
    [steps] = [line for line in lines if line.startswith("steps a second")]
    assert float(steps.split()[3].rstrip(",").replace(",", "")) > 0


def test_learning_prints_a_table_of_known_results(tmp_path):
    results = tmp_path / "results.jsonl"
    levels = [{"success": 0.25, "tasks": 100}, {"success": 0.5, "tasks": 100}]
    each = {
        moment + at: {"L1": level}
        for moment, level in zip(("before", "after"), levels, strict=True)
        for at in ("", "_at_0.4")
    }
    rows = [{"seed": seed, **each} for seed in (1, 2)]
    write_study(results, header("results", "learning.py"), rows)
    table = [line for line in output("learning.py", "--seeds", "1", "2", "--results", results) if "| L1 |" in line]
    assert len(table) == 2
    assert all("0.250 [0.250, 0.250]" in row for row in table)


def test_eto_prints_a_table_of_known_results_and_refuses_those_of_other_settings(tmp_path):
    results, tables = tmp_path / "eto.jsonl", tmp_path / "eto.md"
    asked = {"recipe": "household", "levels": ["L0"], "demonstrations": 0, "evaluated": 0, "eto": ["--tasks", "9"]}
    sides = {moment: {"L0": {"success": success, "tasks": 100}} for moment, success in (("before", 0.25), ("after", 0.5))}
    rows = [
        {
            "seed": seed,
            **sides,
            "iterations": [{"pairs": 7.0}],
            "cost": {"generated": 1000 * seed, "env_steps": 10, "trained": 20},
        }
        for seed in (1, 2)
    ]
    write_study(results, header("eto", "eto.py", asked=asked), rows)
    arguments = ["--seeds", "1", "2", "--results", results, "--tables", tables, "--levels", "L0", "--", "--tasks"]
    lines = output("eto.py", *arguments, "9")
    assert "| L0 | 100 | 0.250 [0.250, 0.250] | 0.500 [0.500, 0.500] | 0.250 [0.250, 0.250] |" in lines
    assert "| 2 | 7 | 2,000 | 10 | 20 |" in lines
    assert tables.read_text().splitlines() == lines
    with pytest.raises(AssertionError, match="was made with other settings"):
        output("eto.py", *arguments, "8")


def test_alfworld_answers_as_the_stock_engine():
    pytest.importorskip("textworld", reason="ALFWorld's engine is the extra alfworld")
    lines = output("alfworld_speed.py", "--generated", "--games", "1")
    assert "same answers" in lines[0]
    for measure in ("reset, first", "step", "fork by replay"):
        assert any(measure in line for line in lines)


def test_alfworld_demonstrations_are_the_same_from_any_number_of_processes():
    pytest.importorskip("textworld", reason="ALFWorld's engine is the extra alfworld")
    lines = output("alfworld_speed.py", "--generated", "--demonstrations", "9")
    assert lines[0] == "9 demonstrations of alfworld-tiny, equal in all rows"
    assert sum("True" in line or "False" in line for line in lines) == 4


def test_alfworld_shows_the_phases_of_a_run():
    lines = output("alfworld_speed.py", "--run", finished()[0].directory)
    assert lines[0].startswith("4 iterations, ")
    assert {"environment", "generate", "update"} <= {line.split()[1] for line in lines if len(line.split()) > 2}


def test_walkthroughs_win_on_four_games_of_each_type(alfworld_games, tmp_path):
    pytest.importorskip("textworld", reason="ALFWorld's engine is the extra alfworld")
    root = alfworld_games / "json_2.1.1"
    for split in ("valid_seen", "valid_unseen"):
        for kind in KINDS:
            for game in sorted(root.glob(f"{split}/{kind}-*/*"))[:2]:
                link = tmp_path / "json_2.1.1" / game.relative_to(root)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(game)
    arguments = ("alfworld-walkthroughs", "--data", tmp_path, "--out", tmp_path / "proofs")
    for _ in range(2):  # what has been checked is not checked again
        assert "| 24 of 24 |" in output("prove.py", *arguments)[-1]
    assert len((tmp_path / "proofs" / "alfworld-walkthroughs.jsonl").read_text().splitlines()) == 24


def test_scienceworld_prints_both_sides(scienceworld):
    lines = output("scienceworld_speed.py", "--tasks", "1", "--worlds", "5")
    assert "31 texts equal" in lines[0]
    for measure in ("reset", "step", "fork at 15", "replay to 30"):
        assert any(measure in line for line in lines)
    assert any("worlds that a heap of 1 GB holds" in line for line in lines)


def test_report_measures_a_generated_run():
    lines = output("report.py", "--iterations", "3", "--trees", "2", "--leaves", "4")
    assert lines[0].startswith("report of 3 forests, ")
    assert any("plain JSON" in line for line in lines)


def test_webshop_measures_a_generated_shop_at_two_sizes():
    pytest.importorskip("rapidfuzz", reason="texts are compared by rapidfuzz, of the extra webshop")
    lines = output("webshop_speed.py", "--products", "1000", "3000", "--seconds", "0.2")
    assert lines[0].startswith("generated catalogue: 1,000 products")
    for measure in ("steps a second", "build, s", "open, ms", "search, ms", "own memory, MB"):
        assert any(measure in line for line in lines)
