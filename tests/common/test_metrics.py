"""Names of metrics are declared once: what is logged, shown and documented agrees with the declarations."""

from __future__ import annotations

import ast
import io
import re
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tiny import finished

from spark_rl.common.metrics import CURVES, METRICS, PROGRESS, Metric, declared
from spark_rl.common.progress import figures
from spark_rl.common.tables import markdown_table
from spark_rl.config.recipe import Recipe
from spark_rl.environments.household import Household
from spark_rl.evaluation import results
from spark_rl.evaluation.results import LevelResult, development, from_json
from spark_rl.report.payload import metrics_payload
from spark_rl.report.reading import read_run
from spark_rl.report.terminal import summary
from spark_rl.runs.run import Run
from spark_rl.types import SPENT_COUNTERS

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENT = REPOSITORY / "docs" / "run-directory.md"
ELSEWHERE = {"gradient_snr", "pairs", "dpo_loss", "dpo_margin", "dpo_accuracy", "dpo_steps"}
"""What the small run does not log: its recipe measures no noise, and `spark-rl eto` is another command."""


def test_a_run_logs_what_is_declared_and_nothing_else():
    found = {name: declared(name) for row in finished()[0].metrics() for name in row}
    unknown = [name for name, metric in found.items() if metric is None]
    assert not unknown, f"declare {unknown} in spark_rl/common/metrics.py"
    logged = {metric.name for metric in found.values() if metric}
    assert {metric.name for metric in METRICS} - logged == ELSEWHERE


def test_names_are_declared_once_and_a_family_takes_what_has_no_declaration_of_its_own():
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)

    def owner(name: str) -> str | None:
        metric = declared(name)
        return metric and metric.name

    assert owner("seconds_generate") == "seconds_{phase}"
    assert owner("explore_ratio") == "explore_ratio"
    assert owner("explore_ratio_6_10") == "explore_ratio_{interval}"
    assert owner("fork_depth") == "fork_depth"
    assert owner("fork_depth_0") == "fork_depth_{interval}"
    assert owner("seconds_") is None
    assert owner("update_nothing") is None
    assert {*SPENT_COUNTERS, *development(from_json({}, needed=()))} <= set(names)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_is_shown_where_its_declaration_says(metric: Metric, tmp_path: Path):
    run = Run.create(tmp_path / "run", Recipe("drawn", Household()))
    run.log({"iteration": 1.0, metric.name: 0.125})
    out = io.StringIO()
    Console(file=out, width=80).print(summary(read_run(run.directory)))
    assert (f"{metric.summary} " in out.getvalue() and "0.125 → 0.125" in out.getvalue()) == bool(metric.summary)
    assert (figures({metric.name: 0.125}) == f"{metric.name} 0.12") == metric.progress == (metric.name in PROGRESS)
    page: Any = metrics_payload()
    shown = {
        curve["id"]: [*(column["name"] for column in curve["columns"]), *(curve["band"] or [])] for curve in page["curves"]
    }
    assert [curve for curve, names in shown.items() if metric.name in names] == [metric.curve] * bool(metric.curve)
    [known] = [each for each in page["metrics"] if each["name"] == metric.name]
    assert (known["about"], known["unit"]) == (metric.about.replace("`", ""), metric.unit)


def test_a_chart_has_lines_and_several_are_told_apart():
    page: Any = metrics_payload()
    for curve in page["curves"]:
        labels = [column["label"] for column in curve["columns"]]
        assert len(set(labels)) == len(labels) > 0
        assert len(labels) == 1 or all(labels)
        assert curve["band"] is None or len(curve["band"]) == 2
    [kl] = [curve for curve in page["curves"] if curve["id"] == "kl"]
    assert kl["columns"] == [
        {"name": "update_reference_kl", "label": "from the cold start"},
        {"name": "update_kl", "label": "of one update"},
    ]
    [dev] = [curve for curve in page["curves"] if curve["id"] == "dev"]
    assert (dev["band"], dev["share"]) == (["dev_low", "dev_high"], True)
    assert dev["why"].startswith("Share of the development tasks that were solved: the same")


def test_the_page_s_costs_are_of_metrics_that_are_declared():
    costs = (REPOSITORY / "web" / "src" / "costs.tsx").read_text()
    names = re.findall(r'(?:name: |total\(run, )"(\w+)"', costs)
    assert len(set(names)) >= 8
    assert [name for name in names if declared(name) is None] == []


# -- documentation ------------------------------------------------------------------------------------------------------


def shown(metric: Metric) -> str:
    """Where a metric is shown, in words."""
    titles = {curve.id: curve.title for curve in CURVES}
    places = ["progress"] * metric.progress + ["summary"] * bool(metric.summary)
    return ", ".join([*places, *([f"page: {titles[metric.curve]}"] if metric.curve else [])])


def of_training() -> str:
    """The table of METRICS."""
    rows = [[f"`{metric.name}`", metric.unit, metric.about, shown(metric)] for metric in METRICS]
    return markdown_table(["name", "unit", "meaning", "shown"], rows)


def of_evaluation() -> str:
    """The table of `LevelResult`, whose texts are those below its fields."""
    module = ast.parse(Path(results.__file__).read_text())
    [body] = [node.body for node in module.body if isinstance(node, ast.ClassDef) and node.name == LevelResult.__name__]
    docs: dict[str, str] = {}
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            docs[ast.unparse(field.target)] = " ".join(ast.literal_eval(text.value).split())
    assert list(docs) == [field.name for field in fields(LevelResult)], "each field has its text"
    return markdown_table(["name", "meaning"], [[f"`{name}`", text] for name, text in docs.items()])


@pytest.mark.parametrize("table", [of_training(), of_evaluation()], ids=["metrics.jsonl", "eval.json"])
def test_the_documentation_holds_every_number(table):
    assert f"\n{table}\n" in DOCUMENT.read_text(), f"{DOCUMENT.name} should hold this table:\n\n{table}\n"
