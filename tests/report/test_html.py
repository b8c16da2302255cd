"""A report is one file that holds its runs, stays below its size, and lets nothing in that was not built with it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html.parser
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from trees import draw

from spark_rl.cli import main
from spark_rl.config.recipe import Keep, Recipe
from spark_rl.environments.household import Household
from spark_rl.report.html import packed, report
from spark_rl.report.reading import read_run
from spark_rl.runs.run import Run
from spark_rl.types import Forest

RECIPE = Recipe("drawn", Household(), iterations=30, keep=Keep(forests=0))
EVIL = "</script><script>document.title='xyzzy'</script><!-- {{script}} {{data}}"


class Elements(html.parser.HTMLParser):
    """The script and style elements, and the policy."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], str]] = []
        self.policy = ""
        self.inline: list[str] = []
        self._open: tuple[str, dict[str, str | None]] | None = None
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.inline += [name for name in given if name.startswith("on") or name == "style"]
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = str(given["content"])
        if tag in ("script", "style"):
            self._open = (tag, given)
            self.found.append((tag, given, ""))

    def handle_data(self, data):
        if self._open:
            tag, given, text = self.found[-1]
            self.found[-1] = (tag, given, text + data)

    def handle_endtag(self, tag):
        self._open = None

    def data(self, name: str) -> str:
        [text] = [text for _, given, text in self.found if given.get("id") == name]
        return text

    def forest(self, name: str) -> dict:
        return json.loads(gzip.decompress(base64.b64decode(self.data(name))))


@pytest.fixture
def run(tmp_path) -> Run:
    """Thirty iterations, whose model says what it should not."""
    run = Run.create(tmp_path / "run", RECIPE)
    for iteration in range(1, 31):
        tree = draw([-1, 0, 0], {1: 1.0, 2: 0.0})
        tree.nodes[0] = replace(tree.nodes[0], reasoning=EVIL, observation=f"{EVIL} {iteration}")
        tree = replace(tree, task=replace(tree.task, instruction=EVIL))
        run.save_forest(Forest([tree], iteration=iteration))
        run.log({"iteration": float(iteration), "success": 0.5})
    return run


def written(directory: Path, out: Path, *options: str) -> Elements:
    assert main(["report", str(directory), "--out", str(out), "--quiet", *options]) == 0
    return Elements(out.read_text())


def test_a_report_holds_every_forest(run, tmp_path, capsys):
    page = written(run.directory, tmp_path / "report.html")
    [shown] = json.loads(page.data("runs"))
    assert shown["metrics"]["success"] == [0.5] * 30
    assert [entry["iteration"] for entry in shown["forests"]] == list(range(1, 31))
    forest = page.forest("forest-0-17")
    assert forest["strings"][forest["trees"][0]["nodes"]["observation"][0]] == f"{EVIL} 17"
    assert re.search(r"report.html: 1 run, 0\.\d MB; open it in a browser", capsys.readouterr().out)


def test_what_a_model_said_is_no_part_of_the_page(run, tmp_path):
    page = written(run.directory, tmp_path / "report.html")
    kinds = [(tag, given.get("type")) for tag, given, _ in page.found]
    assert kinds.count(("script", "application/json")) == 2
    assert kinds.count(("script", "text/plain")) == 30
    assert kinds.count(("script", None)) == 1
    assert kinds.count(("style", None)) == 1
    assert page.inline == []
    assert "xyzzy" not in (tmp_path / "report.html").read_text().replace(page.data("runs"), "")
    assert json.loads(page.data("runs"))[0]["tasks"][0]["instruction"] == EVIL


def test_the_policy_lets_in_this_script_and_style_only(run, tmp_path):
    page = written(run.directory, tmp_path / "report.html")

    def hashed(tag: str) -> str:
        [text] = [text for kind, given, text in page.found if kind == tag and not given.get("type")]
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

    rules = dict(rule.strip().split(" ", 1) for rule in page.policy.split(";"))
    assert rules == {
        "default-src": "'none'",
        "script-src": f"'sha256-{hashed('script')}'",
        "style-src": f"'sha256-{hashed('style')}'",
        "connect-src": "'none'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_what_does_not_fit_is_left_out_evenly_and_said(run, tmp_path):
    reading = read_run(run.directory)
    full = len(report([reading], ["run"], 10**9).encode())
    one = len(base64.b64encode(packed({"x": 1}))) + 500
    assert len(report([reading], ["run"], full - 6 * one).encode()) <= full - 6 * one
    page = Elements(report([reading], ["run"], full - 6 * one))
    [shown] = json.loads(page.data("runs"))
    kept = [entry["iteration"] for entry in shown["forests"] if "missing" not in entry]
    assert kept[0] == 1
    assert kept[-2:] == [28, 30]
    assert len(shown["forests"]) == 30
    assert all(len(entry["trees"]) == 1 for entry in shown["forests"]), "the index tells of those left out as well"
    assert "--max-mb" in next(entry["missing"] for entry in shown["forests"] if "missing" in entry)
    assert len(Elements(report([reading], ["run"], 1)).found) == 4, "without room: script, style, metrics and the runs"


def test_several_runs_have_names_that_tell_them_apart(run, tmp_path, capsys):
    other = Run.create(tmp_path / "b" / "run", RECIPE)
    assert main(["report", str(run.directory), str(other.directory), "--out", str(tmp_path / "two.html"), "--quiet"]) == 0
    shown = json.loads(Elements((tmp_path / "two.html").read_text()).data("runs"))
    assert [each["id"] for each in shown] == ["0", "1"]
    assert [each["name"] for each in shown] == [f"{tmp_path.name}/run", "b/run"]
    assert [each["state"] for each in shown] == ["30 of 30 iterations", "not trained"]


def test_remarks_are_printed_and_on_the_page(run, tmp_path, capsys):
    (run.forests / "000002.jsonl.gz").write_bytes(b"broken")
    page = written(run.directory, tmp_path / "report.html")
    assert "There is no checkpoint" in capsys.readouterr().out
    [shown] = json.loads(page.data("runs"))
    assert "There is no checkpoint" in shown["notes"][0]
    assert "not a readable forest" in shown["forests"][1]["missing"]


def test_equal_runs_are_equal_reports(run, tmp_path):
    pages = [report([read_run(run.directory)], ["run"], 10**9) for _ in range(2)]
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["report"], "needs a run directory"),
        (["report", "nowhere"], "nowhere is no folder"),
        (["report", ".", "--max-mb", "0"], "max_mb is 0.0: it must be above 0"),
        (["export", "nowhere"], "nowhere is no folder"),
    ],
)
def test_mistakes_are_one_sentence(run, monkeypatch, capsys, words, says):
    monkeypatch.chdir(run.directory)
    assert main([*words, "--quiet"]) == 2
    assert says in capsys.readouterr().err


def test_metrics_become_a_table(run, tmp_path, capsys):
    run.log({"iteration": 31.0, "success": 0.25, "late": 1.0})
    out = tmp_path / "metrics.csv"
    assert main(["export", str(run.directory), "--out", str(out)]) == 0
    lines = out.read_text().splitlines()
    assert lines[0] == "run,iteration,success,late"
    assert lines[1] == "run,1.0,0.5,"
    assert lines[-1] == "run,31.0,0.25,1.0"
    assert capsys.readouterr().out == f"{out}: 31 rows, 3 metrics\n"
