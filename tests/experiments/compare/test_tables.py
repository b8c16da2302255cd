"""Tables and plots of results made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from spark_rl.experiments.compare.tables import Comparison, markdown


def result(arm: str, seed: int, tokens: float, success: float) -> Any:
    """A run of two points: 0.2 at the start, `success` at its end."""
    names = ("leaves", "generated", "env_steps", "unique_steps", "trained", "seconds")
    start = {"iteration": 0.0, **dict.fromkeys(names, 0.0), "success": 0.2}
    end = {"iteration": 5.0, **dict.fromkeys(names, tokens), "leaves": 80.0, "success": success}
    before = {"success": 0.2 + seed / 100, "averages": {"score": {"tasks": 0.5}}}
    after = {"success": success, "averages": {"score": {"tasks": 0.5 + seed / 10}}}
    return {
        "arm": arm,
        "seed": seed,
        "curve": [start, end],
        "before": {"L1": before},
        "after": {"L1": after},
        "explore_ratio": [],
    }


RESULTS = [
    *(result("grpo", seed, 1000.0, 0.4 + seed / 100) for seed in (1, 2, 3)),
    *(result("own", seed, 500.0, 0.5 + seed / 100) for seed in (2, 1)),
]


def test_only_seeds_that_every_arm_has_count_and_arms_are_compared_where_the_first_ends():
    comparison = Comparison.of(["grpo", "own"], RESULTS)
    assert comparison.seeds == [1, 2]
    assert comparison.at_equal("leaves") == [pytest.approx([0.41, 0.42]), pytest.approx([0.51, 0.52])]
    assert comparison.at_equal("generated") == [pytest.approx([0.305, 0.31]), pytest.approx([0.51, 0.52])]
    assert comparison.areas("generated")[1] == pytest.approx([0.355, 0.36])


def test_the_tables_say_it_all_against_the_first_arm():
    text = markdown(Comparison.of(["grpo", "own"], RESULTS))
    assert text.startswith("2 seeds (1, 2)")
    (row,) = [line for line in text.split("Difference")[1].split("**Success")[0].splitlines() if line.startswith("| `own`")]
    _, _, leaves, tokens, steps, _, ratio, _ = (cell.strip() for cell in row.split("|"))
    assert leaves == "+0.100 [+0.100, +0.100]"
    assert tokens.startswith("+0.207 [")
    assert steps == tokens
    # 0.2 + 0.315 x reaches 0.415 at 0.6825 of 500 tokens; the baseline needs 1000.
    assert ratio.startswith("0.34 [")
    assert "| arm | L1 | L1, added to the cold start | L1 score | L1 score, added to the cold start |" in text
    assert (
        "| `own` | 0.515 [0.451, 0.579] (+0.100 [+0.100, +0.100]) | +0.300 [+0.300, +0.300] | 0.650 [0.015, 1.285] (" in text
    )
    assert text.count("+0.150 [-0.485, +0.785]") == 2


def test_what_was_not_measured_has_no_column():
    bare: list[Any] = [{**one, "before": {}, "after": {"L1": {"success": 0.5}}} for one in RESULTS]
    assert "| arm | L1 |\n" in markdown(Comparison.of(["grpo", "own"], bare))


def test_steps_of_training_are_means_over_iterations_and_forks_need_siblings():
    def with_training(one: Any) -> Any:
        forks = 0.0 if one["arm"] == "grpo" else 3.0
        shares = {"inadmissible_ratio": [0.2, 0.4], "malformed_ratio": [0.0, 0.02], "zero_signal_groups": [0.5, 1.0]}
        training = {**shares, "forks": [forks, 0.0], "same_action_siblings": [forks / 6, 0.0]}
        return {**one, "explore_ratio": [0.1, 0.1 * one["seed"]], "training": training}

    text = markdown(Comparison.of(["grpo", "own"], [with_training(one) for one in RESULTS]))
    table = text.split("**Steps in training**")[1].split("**What a run spent**")[0]
    grpo, own = (line for line in table.splitlines() if line.startswith("| `"))
    # 1,000 and 500 tokens for 80 leaves
    refused, malformed, siblings, none = (f"{mean} [{mean}, {mean}]" for mean in ("0.300", "0.010", "0.250", "0.750"))
    exploring = "0.125 [-0.193, 0.443]"  # seeds 1 and 2 have 0.1 and 0.15
    assert grpo == f"| `grpo` | {refused} | {malformed} | {exploring} | no forks | {none} | 12 |"
    assert own == f"| `own` | {refused} | {malformed} | {exploring} | {siblings} | {none} | 6 |"
    assert "Steps in training" not in markdown(Comparison.of(["grpo", "own"], RESULTS))


def test_without_a_whole_seed_there_is_no_table():
    assert "No seed" in markdown(Comparison.of(["grpo", "other"], RESULTS))
    assert "Difference" not in markdown(Comparison.of(["grpo"], RESULTS))


def test_plots_are_written(tmp_path):
    pytest.importorskip("matplotlib")
    from spark_rl.experiments.compare.plots import draw

    written = draw(Comparison.of(["grpo", "own"], RESULTS), tmp_path)
    assert [path.name for path in written] == ["curves.png", "differences.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written)


def test_an_arm_that_begins_elsewhere_says_where():
    others: list[Any] = [{**one, "curve": [{**one["curve"][0], "success": 0.3}, one["curve"][1]]} for one in RESULTS]
    mixed = [one for one in RESULTS if one["arm"] == "grpo"] + [one for one in others if one["arm"] == "own"]
    assert "Cold start: 0.200 [0.200, 0.200]; `own`, which has its own, 0.300 [0.300, 0.300]." in markdown(
        Comparison.of(["grpo", "own"], mixed)
    )
    assert "has its own" not in markdown(Comparison.of(["grpo", "own"], RESULTS))
