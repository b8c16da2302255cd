"""Our numbers beside the paper's: values by seed, means with intervals, paired differences, and one test for each row.

Invariants
----------
* Only cells that have finished give numbers. Where seeds are missing, a mean is printed with its number of seeds.
* Two rows are compared on the seeds that both have, seed by seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from spark_rl.common.jsons import JsonObject
from spark_rl.common.tables import markdown_table
from spark_rl.experiments.compare.cells import CellResult
from spark_rl.experiments.compare.curves import Interval, interval, paired
from spark_rl.experiments.paper.grid import Grid
from spark_rl.experiments.paper.measures import DIGITS, RELATIVE, value
from spark_rl.experiments.paper.significance import FEWEST, signed_rank
from spark_rl.experiments.paper.table import Column, Row, Table

__all__ = ["Outcome", "as_json", "markdown"]

Values = dict[int, float]
"""Values by the number of the seed."""


@dataclass(frozen=True)
class Outcome:
    """A table with the results so far."""

    table: Table
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    seeds: int
    published: tuple[tuple[float | None, ...], ...]
    """[row][column]"""
    ours: tuple[tuple[Values, ...], ...]
    """[row][column]"""

    @classmethod
    def of(cls, table: Table, grid: Grid, results: Mapping[str, CellResult], seeds: int) -> Outcome:
        """The table with its numbers from the results of cells.

        Args:
            table: the table.
            grid: the grid that gives the cells of the table.
            results: results by the name of the cell.
            seeds: the number of seeds in the table.
        """
        rows, columns = grid.rows(table), grid.columns(table)
        ours = [[_values(grid, row, column, results, seeds) for column in columns] for row in rows]
        reference = {row.size: number for number, row in enumerate(rows) if row.name == table.reference}
        relative = [
            [
                _percent(values, ours[reference[row.size]][place])
                if column.measure in RELATIVE and row.size in reference
                else values
                for place, (column, values) in enumerate(zip(columns, of_row, strict=True))
            ]
            for row, of_row in zip(rows, ours, strict=True)
        ]
        published = tuple(tuple(grid.published(table, row, column) for column in columns) for row in rows)
        return cls(table, tuple(columns), tuple(rows), seeds, published, tuple(map(tuple, relative)))

    def against(self, number: int) -> int | None:
        """The number of the reference row of a row; None where it has none, or is the reference row."""
        row = self.rows[number]
        for place, other in enumerate(self.rows):
            if other.name == self.table.reference and other.size == row.size and place != number:
                return place
        return None

    def difference(self, number: int, column: int) -> Interval | None:
        """A row minus its reference row, paired by seed."""
        other = self.against(number)
        if other is None:
            return None
        mine, base = self.ours[number][column], self.ours[other][column]
        both = sorted(mine.keys() & base.keys())
        return paired([mine[seed] for seed in both], [base[seed] for seed in both]) if both else None

    def pairs(self, number: int) -> list[float]:
        """A row minus its reference row, for each pair of benchmark and seed; empty where it has none."""
        other = self.against(number)
        if other is None:
            return []
        return [
            self.ours[number][place][seed] - self.ours[other][place][seed]
            for place, column in enumerate(self.columns)
            if column.measure == self._main
            for seed in sorted(self.ours[number][place].keys() & self.ours[other][place].keys())
        ]

    def tested(self, number: int) -> str:
        """The result of Wilcoxon's test of a row against its reference row, over all pairs of benchmark and seed."""
        if self.against(number) is None or not any(self.ours[number]):
            return ""
        if len(pairs := self.pairs(number)) < FEWEST:
            return f"too few pairs ({len(pairs)})"
        p, n = signed_rank(pairs)
        return f"p = {p:.2g} ({n} of {len(pairs)} pairs differ)"

    @property
    def _main(self) -> str:
        measures = [column.measure for column in self.columns]
        return "success" if "success" in measures else measures[0] if measures else ""


def _values(grid: Grid, row: Row, column: Column, results: Mapping[str, CellResult], seeds: int) -> Values:
    """The numbers of a row in a column, for the seeds that have a result."""
    if row.arm is None:
        return {}
    arm, values = row.arm, Values()
    for seed in range(seeds):

        def result(level: str, seed: int = seed) -> CellResult:
            return results[grid.cell(row, column.world, level, seed).name]

        try:
            number = value(column, result, arm.evaluation, arm.rule)
        except KeyError:  # the cell, or its evaluation, has no result yet
            continue
        if number is not None:
            values[seed] = number
    return values


def _percent(values: Values, base: Values) -> Values:
    return {seed: 100 * values[seed] / base[seed] for seed in values if base.get(seed)}


def markdown(outcome: Outcome) -> str:
    """The table in Markdown: our numbers beside the paper's, differences to the reference row, and the tests."""
    table, columns = outcome.table, outcome.columns
    sizes = len({row.size for row in outcome.rows}) > 1
    names = [f"{row.size} {row.name}" if sizes else row.name for row in outcome.rows]
    parts = [
        f"{table.title} ({table.source}). Ours, mean over seeds with its 95 % interval (Student's t), then a stroke and "
        f"the paper's number.",
        markdown_table(["", *(column.name for column in columns)], [
            [name, *(_cell(outcome, number, place) for place in range(len(columns)))] for number, name in enumerate(names)
        ]),
    ]  # fmt: skip
    compared = [number for number in range(len(names)) if outcome.against(number) is not None and any(outcome.ours[number])]
    if compared:
        head = ["", *(column.name for column in columns), "Wilcoxon signed-rank"]
        lines = [
            [names[number], *(_change(outcome, number, place) for place in range(len(columns))), outcome.tested(number)]
            for number in compared
        ]
        parts.append(f"Difference to {table.reference}, paired by seed; then the paper's.\n\n{markdown_table(head, lines)}")
        if any(len(outcome.pairs(number)) < FEWEST for number in compared):
            parts.append(f"Of fewer than {FEWEST} pairs of benchmark and seed no p below 0.05 can come.")
    return "\n\n".join([*parts, *filter(None, [table.note])])


def as_json(outcome: Outcome) -> JsonObject:
    """The table as JSON: the paper's numbers, and ours by seed."""
    return {
        "table": outcome.table.name,
        "title": outcome.table.title,
        "source": outcome.table.source,
        "note": outcome.table.note,
        "columns": [column.name for column in outcome.columns],
        "rows": [
            {
                "name": row.name,
                "model": row.size,
                "paper": list(published),
                "ours": [[values.get(seed) for seed in range(outcome.seeds)] for values in ours],
                "test": outcome.tested(number),
            }
            for number, (row, published, ours) in enumerate(zip(outcome.rows, outcome.published, outcome.ours, strict=True))
        ],
    }


def _cell(outcome: Outcome, number: int, place: int) -> str:
    values, published = outcome.ours[number][place], outcome.published[number][place]
    form = _form(outcome.columns[place])
    ours = f"{interval(list(values.values())):{form}}" if values else "–"
    few = f" (of {len(values)})" if values and len(values) < outcome.seeds else ""
    return f"{ours}{few} / {'–' if published is None else f'{published:{form}}'}"


def _change(outcome: Outcome, number: int, place: int) -> str:
    difference, other = outcome.difference(number, place), outcome.against(number)
    assert other is not None, "only rows with a reference are compared"
    form = f"+{_form(outcome.columns[place])}"
    mine, base = outcome.published[number][place], outcome.published[other][place]
    theirs = "–" if mine is None or base is None else f"{mine - base:{form}}"
    return f"{'–' if difference is None else f'{difference:{form}}'} / {theirs}"


def _form(column: Column) -> str:
    return f".{DIGITS.get(column.measure, 1)}f"
