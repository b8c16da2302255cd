"""What a table is: rows are ways to train and to ask, columns are benchmarks, and the paper's number stands in each cell.

Invariant: a table is a frozen value and holds no logic. What it needs to be run is an `Arm` a row; a row without one was
published only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from spark_rl.experiments.paper.benchmarks import Scale, Size
from spark_rl.objective.preferences import Preferences

__all__ = ["Arm", "Column", "Measure", "Row", "Table"]

Measure = Literal["success", "score", "kind", "drop", "repetitive", "pass_at", "explore", "tokens", "generated", "per_leaf"]
"""What is read off a result (`measures.value` says how)."""


@dataclass(frozen=True)
class Arm:
    """How a policy came about and how it is asked, as changes to a base recipe."""

    algorithm: str = "paper"
    """Of `spark_rl.recipes.algorithms`; set first."""
    options: str = ""
    """Of `spark-rl train`, set after it."""
    evaluation: str = ""
    """Of `spark-rl eval`; empty: the evaluation after training."""
    rule: str = ""
    """Of the rules that an evaluation's trees were asked by, the one whose success is read; empty: the evaluation's own."""
    share: float = 1.0
    """Share of the training tasks; of a model from nothing also of the demonstrations, which its tasks must yield."""
    preferences: Preferences | None = None
    """Of ETO, which takes the place of RL."""


@dataclass(frozen=True)
class Column:
    """A benchmark, and what is measured on it."""

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
    """None: published only."""
    paper: tuple[float | None, ...] = ()
    """The paper's numbers in the order of the columns; empty where it has none."""
    size: Size = "1.5B"
    scale: Scale | None = None
    """The only scale it can be run at; None: both."""


@dataclass(frozen=True)
class Table:
    """A table or figure of the paper."""

    name: str
    """On the command line, and of its files."""
    title: str
    source: str
    """Where the published numbers stand."""
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    reference: str
    """Name of the row that others of its size are compared with."""
    note: str = ""
    """What differs from the paper, or has to be known to read it."""
