"""The definition of a table: rows are ways to train and evaluate, columns are benchmarks, cells hold the paper's numbers.

Invariant: a table is a frozen value and holds no logic. A row that can be run has an `Arm`; a row without an `Arm` is only
published.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spark_rl.experiments.paper.benchmarks import Scale, Size
from spark_rl.objective.preferences import Preferences

__all__ = ["Arm", "Column", "Measure", "Row", "Table"]

Measure = Literal["success", "score", "kind", "drop", "repetitive", "pass_at", "explore", "tokens", "generated", "per_leaf"]
"""The quantity read from a result (`measures.value` reads it)."""


@dataclass(frozen=True)
class Arm:
    """How a policy is trained and evaluated, as changes to a base recipe."""

    algorithm: str = "paper"
    """Name in `spark_rl.recipes.algorithms`; applied first."""
    options: str = ""
    """Options of `spark-rl train`, applied after the algorithm."""
    evaluation: str = ""
    """Options of `spark-rl eval`; empty: the evaluation after training is used."""
    rule: str = ""
    """The rule of choosing a trajectory whose success is read from an evaluation; empty: the evaluation's own rule."""
    share: float = 1.0
    """Share of the training tasks; for a model from scratch also of the demonstrations, which come from these tasks."""
    preferences: Preferences | None = None
    """Settings of ETO, which replaces RL; None: RL."""


@dataclass(frozen=True)
class Column:
    """A benchmark and the quantity measured on it."""

    name: str
    world: str
    level: str = "L0"
    measure: Measure = "success"
    key: str = ""
    """`kind`: the task type; `pass_at`: k; `drop`: the level that is compared with `level`; `explore`: share of training."""


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    name: str
    arm: Arm | None = None
    """None: the row is only published."""
    paper: tuple[float | None, ...] = ()
    """The paper's numbers in the order of the columns; empty if the paper has none."""
    size: Size = "1.5B"
    scale: Scale | None = None
    """The only scale at which the row can be run; None: both."""


@dataclass(frozen=True)
class Table:
    """A table or figure of the paper."""

    name: str
    """Name on the command line and in the names of its files."""
    title: str
    source: str
    """Place of the published numbers in the paper."""
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    reference: str
    """Name of the row with which other rows of its size are compared."""
    note: str = ""
    """Differences from the paper, and other facts that a reader of the table needs."""
