"""Drawings read in monochrome and 80 columns, and what a model wrote does nothing."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType
from trees import draw, node

from spark_rl.advantage.group import GroupMean
from spark_rl.evaluation.results import from_json
from spark_rl.recipes import load_recipe
from spark_rl.report.reading import read_run
from spark_rl.report.terminal import (
    choose_tree,
    clean,
    draw_tree,
    evaluation_table,
    forest_summary,
    leaf_advantages,
    sparkline,
    summary,
)
from spark_rl.runs.run import Run
from spark_rl.types import Forest, Fork, Task, Tree

RECIPE = load_recipe("quickstart")


def text(part: RenderableType, **settings: object) -> str:
    console = Console(file=io.StringIO(), width=80, **settings)  # type: ignore[arg-type]
    console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined]


def forked() -> Tree:
    """Two roots; the first explores at its second step and ends in a win and a loss, the second loses after six steps.

    0 - 1 -+- 2 (won)          6 - 7 - 8 - 9 - 10 - 11 (lost)
           +- 3 - 4 - 5 (lost)
    """
    tree = draw([-1, 0, 1, 1, 3, 4, -1, 6, 7, 8, 9, 10], {2: 1.0, 5: 0.0, 11: 0.0})
    tree.nodes[1] = replace(tree.nodes[1], mode="explore", reasoning="The key may be in a drawer.")
    for index, one in enumerate(tree.nodes):
        tree.nodes[index] = replace(one, action=f"act {index}")
    tree.forks.append(Fork(0, 1, "after", 1))
    return tree


# -- trees ----------------------------------------------------------------------------------------------------------


def test_a_tree_tells_who_forked_where_and_what_came_of_it():
    lines = text(draw_tree(forked(), [1.15, -0.58, -0.57])).splitlines()
    assert lines == [
        "find the key",
        "drawn/1: 12 steps, 3 leaves, 1 won",
        "├── act 0 → act 1",
        "│   ⑂ explore: The key may be in a drawer.",
        "│   ├── ✓ +1.15  3 steps  act 2",
        "│   └── ✗ -0.58  5 steps  act 3 → act 4 → act 5",
        "└── ✗ -0.57  6 steps  act 6 → … 4 steps … → act 11",
        "⑂ fork  ✓ won  ✗ not won, then the advantage",
    ]


def test_advantages_may_be_left_out():
    drawn = text(draw_tree(forked()))
    assert "✓  3 steps  act 2" in drawn
    assert "advantage" not in drawn


def test_a_fork_at_a_decision_stands_where_the_decision_was_made():
    tree = forked()
    # The exploring step itself is sampled again: its sibling stands beside it.
    tree.forks = [Fork(0, 3, "decision", 1)]
    tree.nodes[3] = replace(tree.nodes[3], mode="explore", reasoning="Left or right?")
    assert "⑂ explore: Left or right?" in text(draw_tree(tree)).splitlines()[3]
    tree.forks = [Fork(0, 0, "decision", 1)]
    tree.nodes[0] = replace(tree.nodes[0], mode="explore", reasoning="Where to start?")
    assert text(draw_tree(tree)).splitlines()[2] == "⑂ explore: Where to start?"


def test_what_a_model_wrote_is_data():
    hostile = "[red]go[/red]\x1b[31m\x07\nto \u202ethe moon [link=http://x]y"
    tree = forked()
    tree.nodes[1] = replace(tree.nodes[1], reasoning=hostile)
    tree.nodes[2] = replace(tree.nodes[2], action=hostile)
    tree.task = Task("drawn", "drawn/[bold]1", hostile)
    plain = text(draw_tree(tree))
    assert "\x1b" not in plain
    assert "\x07" not in plain
    assert "\u202e" not in plain
    assert plain.count("[red]go[/red]�[31m� to �the moon") == 3
    coloured = text(draw_tree(tree), force_terminal=True, color_system="standard")
    assert "\x07" not in coloured
    assert "�[31m" in coloured


@given(st.text())
def test_cleaned_text_is_one_printable_line_however_often(anything):
    once = clean(anything, 40)
    assert len(once) <= 40
    assert once.isprintable()
    assert clean(once, 40) == once


def test_a_tree_fits_the_screen_and_may_be_very_deep():
    deep = draw(list(range(-1, 2000)), {2000: 1.0})
    drawn = text(draw_tree(deep))
    assert "… 1999 steps …" in drawn
    # A comb forks at every step.
    comb = draw([-1, *(i for i in range(0, 40, 2) for _ in (0, 1))])
    assert all(len(line) <= 80 for line in text(draw_tree(comb)).splitlines())


def test_an_action_that_was_not_understood_is_still_drawn():
    tree = draw([-1])
    tree.nodes[0] = node(-1, (0,), action="", well_formed=False, mode=None)
    assert "(no action)" in text(draw_tree(tree))


def test_advantages_are_the_recipes():
    # Returns 10, 0, 0: mean 10/3, standard deviation 10 / sqrt(3).
    expected = [2 / math.sqrt(3), -1 / math.sqrt(3), -1 / math.sqrt(3)]
    for got, want in zip(leaf_advantages(forked(), replace(RECIPE, advantage=GroupMean())), expected, strict=True):
        assert math.isclose(got, want, rel_tol=1e-5)


def test_the_tree_chosen_has_mixed_outcomes_and_forks():
    dull, lost = draw([-1, -1], {0: 1.0, 1: 1.0}), draw([-1, 0, -1])
    mixed = draw([-1, -1], {0: 1.0, 1: 0.0})
    assert choose_tree(Forest([dull, mixed, forked(), lost])) == 2
    assert choose_tree(Forest([dull, lost, mixed])) == 2


# -- curves and tables ----------------------------------------------------------------------------------------------


def test_sparklines():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([5, 5]) == "▁▁"
    assert sparkline([]) == ""
    assert sparkline([0.0, math.nan, 1.0]) == "▁ █"
    assert sparkline([0] * 50 + [1] * 50, width=4) == "▁▁██"


@given(st.lists(st.floats(), max_size=200), st.integers(1, 60))
def test_a_sparkline_is_never_wider_than_asked(values, width):
    assert len(sparkline(values, width)) == min(len(values), width)


RESULT = from_json({"success": 0.75, "low": 0.30, "high": 0.95, "wins": 3, "tasks": 4})


def test_evaluations_show_fraction_and_interval():
    drawn = text(evaluation_table({"before": {"L0": RESULT, "L1": RESULT}, "after": {"L1": replace(RESULT, wins=4)}}))
    first, second = [line for line in drawn.splitlines() if line.startswith("L")]
    assert first.split() == ["L0", "0.750", "3/4", "0.30", "to", "0.95"]
    assert "4/4" in second


def test_a_forest_in_numbers():
    drawn = text(forest_summary(Forest([forked(), draw([-1, -1], {0: 1.0, 1: 0.0})], iteration=7, failures=["it broke"])))
    assert "forest of iteration 7" in drawn
    assert "2, 1 failed" in drawn
    assert "5, 2.5 a tree" in drawn
    assert "2/5" in drawn
    assert "1, at step 2.0 on average" in drawn


def test_a_run_at_a_glance(tmp_path: Path):
    run = Run.create(tmp_path / "run", RECIPE)
    assert "not trained" in text(summary(read_run(run.directory)))
    costs = {"seconds": 60.0, "seconds_generate": 30.0, "generated": 1000.0, "prefilled": 250.0, "reused": 750.0}
    counts = {"trained": 500.0, "env_steps": 40.0, "env_forks": 4.0, "replayed": 0.0}
    run.log({"iteration": 1, "success": 0.25, **costs, **counts})
    run.log({"iteration": 2, "success": 0.5, "dev_success": 0.5, **costs, **counts})
    drawn = text(summary(read_run(run.directory)))
    assert f"2 of {RECIPE.iterations} iterations" in drawn
    assert "0.25 → 0.5" in drawn
    assert "2:00 min, generate 1:00 min" in drawn
    assert "2,000 generated, 500 prefilled, 1,000 trained" in drawn
    assert "75% of 2,000 prompt tokens" in drawn
    run.save_evaluation("before", {"L0": RESULT})
    run.save_evaluation("after", {"L0": RESULT})
    assert "finished" in text(summary(read_run(run.directory)))
