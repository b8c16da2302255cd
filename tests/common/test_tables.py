"""Markdown tables, to the letter."""

from __future__ import annotations

from spark_rl.common.tables import markdown_table


def test_tables_in_markdown():
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n|---|---|\n| 1 | 2 |"
    assert markdown_table(["a", "b"], [], spaced=True) == "| a | b |\n| --- | --- |"
    assert markdown_table([], [("1", "2")]) == "| | |\n|---|---|\n| 1 | 2 |"
