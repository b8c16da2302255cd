"""Wins by task type: in a run's summary and in what `spark-rl eval` prints."""

from __future__ import annotations

from rich.console import Console

from spark_rl.evaluation.results import LevelResult, from_json
from spark_rl.evaluation.tables import by_kind
from spark_rl.report.terminal import kinds_table

COOL, HEAT = "pick_cool_then_place_in_recep", "pick_heat_then_place_in_recep"


def result(**kinds: tuple[int, int]) -> LevelResult:
    return from_json({"kinds": {kind: {"wins": wins, "tasks": tasks} for kind, (wins, tasks) in kinds.items()}}, needed=())


L0, L2 = result(**{HEAT: (3, 16), COOL: (0, 25)}), result(**{COOL: (5, 21)})


def test_a_column_a_level():
    assert by_kind({"L0": L0, "L2": L2}).splitlines() == [
        "| type | L0 | L2 |",
        "|---|---|---|",
        f"| {COOL} | 0/25 | 5/21 |",
        f"| {HEAT} | 3/16 |  |",
    ]


def test_one_type_needs_no_table():
    assert by_kind({"L2": L2}) == ""
    assert kinds_table({"after": {"L2": L2}}) is None
    assert kinds_table({"after": {"L0": result()}}) is None


def test_before_and_after_side_by_side():
    table = kinds_table({"before": {"L0": L0}, "after": {"L0": result(**{HEAT: (9, 16), COOL: (2, 25)}), "L2": L2}})
    assert table is not None
    console = Console(width=80)
    with console.capture() as capture:
        console.print(table)
    lines = [line.split() for line in capture.get().splitlines()]
    assert lines[0] == ["won", "by", "type,", "before", "→", "after"]
    assert lines[1:] == [["type", "L0", "L2"], [COOL, "0/25", "→", "2/25", "5/21"], [HEAT, "3/16", "→", "9/16"]]
