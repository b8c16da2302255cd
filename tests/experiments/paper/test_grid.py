"""Which cells the tables need: all can be made, none is made twice."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass, field, fields, replace

import pytest

from spark_rl.advantage.rows import Rows
from spark_rl.branching.chains import Chains
from spark_rl.branching.probability import Probability
from spark_rl.cli import main
from spark_rl.config.codec import decode, encode
from spark_rl.config.recipe import Recipe
from spark_rl.engines.local.settings import Local
from spark_rl.errors import UsageError
from spark_rl.experiments.compare.cells import prepared
from spark_rl.experiments.paper.benchmarks import BENCHMARKS, base_recipe
from spark_rl.experiments.paper.costs import Cost, cost, memory_bytes
from spark_rl.experiments.paper.grid import Grid, _digest, _start
from spark_rl.experiments.paper.published import TABLES
from spark_rl.experiments.paper.table import Arm, Row
from spark_rl.recipes import load_recipe

PAPER = ("alfworld", "scienceworld", "webshop")
ASKED_FOR = [TABLES[name] for name in ("table2", "table4", "table5", "table7", "table15", "table16", "figure5")]


@pytest.fixture(scope="module")
def tiny() -> Grid:
    return Grid("tiny", {("household", "1.5B"): prepared(base_recipe("household", "1.5B", "tiny"))})


@pytest.fixture(scope="module")
def full() -> Grid:
    sizes = ("1.5B", "7B")
    return Grid("paper", {(world, size): prepared(base_recipe(world, size, "paper")) for world in PAPER for size in sizes})


def named(name: str, table: str) -> Row:
    return next(row for row in TABLES[table].rows if row.name == name and row.arm is not None)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_published_numbers_fill_their_rows(table):
    for row in table.rows:
        assert len(row.paper) in (0, len(table.columns)), row.name
        assert row.arm is not None or row.paper, f"{row.name} is neither run nor published"
    assert len(set(table.columns)) == len(table.columns)


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_every_cell_at_both_scales_is_a_recipe_that_can_be_written_and_read(table, tiny, full):
    for grid in (tiny, full):
        cells = grid.needed(table)
        assert cells
        for cell in cells:
            assert decode(json.loads(json.dumps(encode(cell.recipe)))) == cell.recipe
            assert cost(cell, grid.scale).env_steps >= 0


def test_cells_are_counted_by_hand(tiny, full):
    def count(grid: Grid, *names: str) -> int:
        return len(list(itertools.chain(*grid.groups([TABLES[name] for name in names], 1))))

    # Seven arms (ReAct, SFT, four baselines, SPARK), two sizes, five trainings: two worlds with and without L2, one without.
    assert count(full, "table1") == 7 * 2 * 5
    assert count(full, "table1", "table3", "table6", "table13") == 70, "all of theirs are Table 1's"
    assert count(full, "table4") == 3 * 2
    assert count(full, "table4", "figure5", "table5") == 6 + 3 * 2 + 2 * 2, "SPARK is trained once a benchmark"
    assert count(full, "table11-12") == 4 * 5 * 2
    assert count(tiny, *TABLES) == 6 + 16 + 1 + 2 + 2 + 2 + 2 + 5


def test_the_ablations_need_nine_cells_a_seed_on_a_laptop_and_one_cold_start(tiny):
    groups = tiny.groups(ASKED_FOR, 5)
    # SPARK, chains, forks at random, M = 2 and 6, B = 3 and 4, N = 4 and 16.
    assert [len(group) for group in groups] == [9] * 5
    assert [{cell.recipe.seed for cell in group} for group in groups] == [{0}, {1}, {2}, {3}, {4}]
    (asked,) = {cell.evaluations for cell in groups[0] if cell.evaluations}
    assert len(asked) == 6, "Table 16 asks its cell in six more ways, of which trees and chains answer two rows each"


def test_rows_are_the_base_with_what_they_change(tiny):
    base = tiny.base("household")

    def recipe(name: str, table: str):
        return tiny.cell(named(name, table), "household", "L0").recipe

    assert recipe("SPARK", "table1") == base
    assert recipe("M = 6", "figure5") == replace(base, tree=replace(base.tree, roots=6))
    assert recipe("N = 16", "table15") == replace(base, tree=replace(base.tree, budget=16, roots=8))
    assert recipe("fixed probability 0.2", "table4") == replace(base, branching=Probability(0.2))
    chains = recipe("GRPO", "table1")
    assert (chains.branching, chains.tree.roots) == (Chains(), 8)
    shared = recipe("SPARK, 20 %", "table11-12")
    assert (shared.env.train_tasks, shared.cold_start.demonstrations) == (1000, 800)
    assert isinstance(recipe("statistics over rows", "readings").advantage, Rows)


def test_what_the_paper_and_the_released_code_do_differently_is_two_cells(full):
    paper, released = (
        full.cell(named(name, "readings"), "scienceworld", "L0").recipe
        for name in ("as in the paper (SPARK)", "released code")
    )
    assert (paper.sampling.temperature, released.sampling.temperature) == (0.4, 1.0)
    assert (paper.prompt.limit, released.prompt.limit) == (4096, 2048)


def test_a_level_that_the_base_is_not_evaluated_on_is_trained_apart(full):
    row = named("SPARK", "table3")
    near, far = (full.cell(row, "alfworld", level).recipe for level in ("L0", "L2"))
    assert (near.level, near.evaluation.levels) == ("L0", ("L0", "L1"))
    assert (far.level, far.evaluation.levels) == ("L2", ("L2",))
    assert full.cell(row, "alfworld", "L1") == full.cell(row, "alfworld", "L0")


def test_a_setting_of_a_later_version_changes_no_name():
    @dataclass(frozen=True)
    class Now:
        width: int = 2
        rate: float = 0.1

    @dataclass(frozen=True)
    class Later:
        width: int = 2
        rate: float = 0.1
        pace: tuple[int, ...] = field(default_factory=lambda: (1, 2))

    Later.__qualname__ = Now.__qualname__
    assert _digest(Now(3)) == _digest(Later(3))
    assert len({_digest(Later(3)), _digest(Later(4)), _digest(Later(3, pace=(1,)))}) == 3


def test_a_setting_that_begins_alike_later_names_its_own_cold_start_where_it_is_set():
    @dataclass(frozen=True)
    class Later(Recipe):
        curriculum: str = "none"

    @dataclass(frozen=True)
    class Other(Local):
        share: float = 0.5

    recipe = load_recipe("household-tiny")
    later = Later(**{each.name: getattr(recipe, each.name) for each in fields(recipe)})
    assert _start(later) == _start(recipe)
    assert len(_start(recipe)) == 11
    for free in ({"iterations": 3}, {"engine": Local(cache_gb=9.0)}, {"tree": replace(recipe.tree, budget=9, roots=2)}):
        assert _digest(_start(replace(recipe, **free))) == _digest(_start(recipe)), free
    changes = [{"curriculum": "hard"}, {"engine": Other()}, {"engine": Other(share=0.7)}, {"threads": 3}]
    digests = [_digest(_start(replace(later, **change))) for change in [{}, *changes]]
    assert len(set(digests)) == len(digests)


def test_a_teachers_file_is_named_by_world_and_level(full):
    found = {full.cell(named("Kimi-K2", "table10"), "scienceworld", level).recipe.cold_start.data for level in ("L0", "L2")}
    assert found == {"teachers/kimi-k2/scienceworld-L0.jsonl", "teachers/kimi-k2/scienceworld-L2.jsonl"}


def test_columns_of_a_stand_in_are_those_of_the_benchmark_at_all_its_levels(tiny):
    names = [column.name for column in tiny.columns(TABLES["table15"])]
    assert names == ["household L0", "household L1", "household L2"]
    row = named("N = 4", "table15")
    assert [tiny.published(TABLES["table15"], row, column) for column in tiny.columns(TABLES["table15"])] == [
        89.1,
        81.3,
        None,
    ]
    kinds = [column.key for column in tiny.columns(TABLES["table1"]) if column.measure == "kind"]
    assert kinds == ["look", "clean"], "two objects are no task of the recipe"


def test_split_sizes_are_those_of_the_worlds():
    world = load_recipe("household-tiny").env
    assert {level: len(world.tasks(level, "test")) for level in ("L0", "L1", "L2")} == BENCHMARKS["household"].tests
    assert len(world.tasks("L2", "train")) == BENCHMARKS["household"].tasks


def test_a_cost_counts_leaves_at_the_budget_and_all_evaluations(tiny):
    cell = tiny.cell(Row("x", Arm(evaluation="--samples 4 --pass-at 2")), "household", "L0")
    # 12 iterations of 16 tasks with 8 leaves; two looks at 60 tasks; 360 test tasks once and four times more.
    steps = 13 * (12 * 16 * 8 + 2 * 60 + 360 + 4 * 360)
    assert cost(cell, "tiny") == Cost(13.0 * steps, steps)


def test_failures_are_learnt_from_instead_of_rl(tiny, capsys):
    (row,) = (row for row in tiny.rows(TABLES["table1"]) if row.name == "ETO")
    cell = tiny.cell(row, "household", "L0")
    supervised = tiny.cell(named("SFT", "table1"), "household", "L0")
    assert (cell.recipe, cell.start) == (supervised.recipe, supervised.start), "it begins with the others' cold start"
    assert cell.name != supervised.name
    # A thousand tasks played once, then 360 test tasks; no look at the held-out slice on the way.
    assert cost(cell, "tiny").env_steps == 13 * (1000 + 360)
    assert main(["paper", "table1", "--scale", "tiny", "--dry-run"]) == 0
    assert "spark-rl eto --iterations 1 --tasks 1000 " in capsys.readouterr().out


def test_memory_is_told_without_a_network(full):
    """The figures of docs/real-models.md, for CUDA; there the engine has 0.5 GiB of keys and values while 7B grows trees."""
    recipes = (full.base("alfworld", size) for size in ("1.5B", "7B"))
    on_gpu = (replace(recipe, weights=replace(recipe.weights, device="cuda")) for recipe in recipes)
    assert [round((memory_bytes(recipe) or 0) / 1e9, 1) for recipe in on_gpu] == [41.5, 171.5]


# -- the command -----------------------------------------------------------------------------------------------------------


def test_the_command_lists_tables_and_shows_every_cell(capsys):
    assert main(["paper", "--scale", "tiny"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{name} " in out for name in TABLES)
    assert "36 cells in all" in out

    assert main(["paper", "table4", "--dry-run", "--loss.kl", "0.5", "--env", "alfworld"]) == 0
    out = capsys.readouterr().out
    assert "branching.probability              0.1" in out
    assert "loss.kl" not in out, "what a user sets is part of the base"
    assert "2 cells a seed, 5 seeds" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tabel4"], 'did you mean "table4"'),
        (["table4", "--scale", "small"], "it must be paper or tiny"),
        (["table4", "--env", "household"], 'unknown benchmark at the paper scale "household"'),
        (["table6", "--env", "webshop"], "table6 has no column of webshop"),
        (["table4", "--size", "7B"], "has no row of it"),
        (["table4", "--seeds", "0"], "at least 1"),
    ],
)
def test_what_cannot_be_run_is_said_in_a_sentence(words, said, capsys):
    assert main(["paper", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_published_row_has_no_cell(tiny):
    with pytest.raises(AssertionError):
        tiny.cell(TABLES["table1"].rows[0], "household", "L0")
    with pytest.raises(UsageError, match="unknown benchmark"):
        base_recipe("alfword", "7B", "paper")
