"""What version 0.1.0 left half done (`make.py`) is continued, and every name it gave is kept.

What was there stays, what was missing comes. Since version 0.2.0 engine and update add in another order. So the last bits of
numbers, and with them what is sampled, are not those of version 0.1.0.
"""

from __future__ import annotations

import json
import re
import shlex
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from spark_rl.cli import main
from spark_rl.commands.base import Call
from spark_rl.commands.paper import _grid
from spark_rl.config.codec import current, decode, encode
from spark_rl.config.old_names import OLD_NAMES
from spark_rl.config.recipe import Recipe
from spark_rl.data.format import load, prompt_version, read_records
from spark_rl.experiments.paper.published import TABLES
from spark_rl.objective.preferences import Preferences
from spark_rl.prompting.prompt import Prompt
from spark_rl.runs.forests import load_forest
from spark_rl.runs.run import Run

HERE = Path(__file__).resolve().parent
EXPECTED: dict[str, Any] = json.loads((HERE / "expected.json").read_text())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What version 0.1.0 left, as the working directory."""
    with tarfile.open(HERE / "version-0.1.tar.xz") as tar:
        tar.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def inner(name: str) -> Any:
    """A JSON file of the archive."""
    with tarfile.open(HERE / "version-0.1.tar.xz") as tar:
        file = tar.extractfile(name)
        assert file is not None
        return json.loads(file.read())


def go_on(name: str) -> None:
    """The command that version 0.1.0 was stopped in; of its options one has moved."""
    words = shlex.split(EXPECTED["commands"][name].replace("--cache-gb", "--engine.cache-gb"))
    assert main([*words[1:], "--quiet"]) == 0


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def compared(rows: Sequence[dict[str, Any]], expected: Sequence[dict[str, Any]]) -> None:
    """Rows against those of version 0.1.0, which hold some columns."""
    assert [row["iteration"] for row in rows] == [row["iteration"] for row in expected]
    assert all(old.keys() <= row.keys() for row, old in zip(rows, expected, strict=True))


# -- what it wrote is read -----------------------------------------------------------------------------------------------


def test_the_test_data_is_small():
    assert sum(file.stat().st_size for file in HERE.iterdir() if file.name in ("make.py", "expected.json")) < 25_000
    assert (HERE / "version-0.1.tar.xz").stat().st_size < 176_000


def test_the_table_of_old_names_holds_every_name_it_wrote(folder):
    found: set[str] = set()
    for file in (*folder.rglob("*.json"), *folder.rglob("*.jsonl")):
        found |= set(re.findall(r'\\?"type\\?": ?\\?"(spark_rl\.[\w.]+:\w+)', file.read_text()))
    assert found == set(OLD_NAMES)


def leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """The settings of an encoded recipe by place; the cache lies where it lies today."""
    if isinstance(value, dict | list):
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(part, f"{place}.{name}")
    elif place.rpartition(".")[2] == "type":
        yield place, OLD_NAMES.get(value, value)
    else:
        yield place.replace(".cache_gb", ".engine.cache_gb") if place == ".cache_gb" else place, value


def every_encoded() -> Iterator[Any]:
    saved = inner("recipes.json")
    yield from saved["recipes"].values()
    for part in ("algorithms", "components"):
        for known in saved[part].values():
            yield from known.values()


def test_every_recipe_and_component_is_read_with_every_setting_it_had():
    everything = list(every_encoded())
    assert len(everything) > 60
    for old in everything:
        read = decode(old)
        today = dict(leaves(encode(read)))
        assert {place: today[place] for place, _ in leaves(old)} == dict(leaves(old))
        assert current(old) == encode(read)
    assert sum(isinstance(decode(old), Recipe) for old in everything) > 30


def test_forests_are_read(folder):
    for name, expected in EXPECTED["forests"].items():
        forest = load_forest(folder / name)
        assert expected == {
            "iteration": forest.iteration,
            "seed": forest.seed,
            "tasks": [tree.task.id for tree in forest],
            "nodes": [len(tree.nodes) for tree in forest],
            "successes": [sum(tree.nodes[leaf].success for leaf in tree.leaves()) for tree in forest],
        }


def test_demonstrations_are_read_checked_and_merged_with_those_of_today(folder, capsys):
    assert len(load(folder / "demonstrations.jsonl")) == 6
    assert main(["data", "check", "demonstrations.jsonl", "--replay", "--quiet"]) == 0
    assert "6 of 6 trajectories were played again" in capsys.readouterr().out
    assert main(["demos", "household", "--count", "3", "--slips", "0.4", "--out", "today.jsonl", "--quiet"]) == 0
    assert '"type\\":\\"window' in (folder / "today.jsonl").read_text()
    assert main(["data", "merge", "demonstrations.jsonl", "today.jsonl", "--out", "both.jsonl"]) == 0
    groups = read_records(folder / "both.jsonl")
    assert len(groups) == 9
    assert len({(group[0]["world"], group[0]["rendering"]) for group in groups}) == 1
    assert "spark_rl." not in (folder / "both.jsonl").read_text()
    assert main(["data", "check", "both.jsonl", "--quiet"]) == 0


def test_a_prompts_version_is_what_it_was():
    assert prompt_version(Prompt()) == "prompt-177df0a0"


@pytest.mark.parametrize(
    ("scale", "options"),
    [
        ("tiny", []),
        # The recipes of Qwen sample with vLLM today; version 0.1.0 had the local engine only.
        pytest.param("paper", ["--engine", "local", "--engine.cache-gb", "16"], marks=pytest.mark.slow),
    ],
)
def test_every_cell_of_every_table_has_the_name_it_had(scale, options):
    tables = list(TABLES.values())
    _, grid = _grid(Call("spark-rl paper", options), tables, scale, "", None)
    found = sorted(f"{cell.start} {cell.name}" for group in grid.groups(tables, 1) for cell in group)
    assert found == inner("paper_cells.json")[scale]
    assert len(found) == {"tiny": 36, "paper": 146}[scale]


# -- what it began is continued ------------------------------------------------------------------------------------------


def test_an_evaluation_goes_on(folder):
    before = (folder / "evaluation/episodes.jsonl").read_bytes()
    go_on("evaluation")
    assert (folder / "evaluation/episodes.jsonl").read_bytes().startswith(before)
    found = json.loads((folder / "evaluation/results.json").read_text())["L0"]
    assert found["tasks"] == EXPECTED["evaluation"]["L0"]["tasks"]


def test_a_run_is_resumed(folder):
    before = rows(folder / "run")
    go_on("resume")
    assert rows(folder / "run")[:2] == before
    compared(rows(folder / "run")[2:], EXPECTED["run"]["metrics"])
    assert (folder / "run/checkpoints/000004/model.safetensors").exists()
    assert json.loads((folder / "run/eval.json").read_text())["after"]["L0"]["tasks"] == EXPECTED["run"]["after"]["tasks"]


def test_eto_goes_on(folder):
    before = rows(folder / "eto")
    assert Run.open(folder / "eto").preferences == Preferences(2, tasks=4, epochs=1, batch=2, learning_rate=0.001)
    go_on("eto")
    assert rows(folder / "eto")[:1] == before
    compared(rows(folder / "eto")[1:], EXPECTED["eto"]["metrics"])
    assert (folder / "eto/checkpoints/000002/model.safetensors").exists()


def test_a_table_of_the_paper_is_complete(folder, capsys):
    before = {file.name: file.read_bytes() for file in (folder / "paper/cells").iterdir()}
    go_on("paper")
    assert capsys.readouterr().out == EXPECTED["paper"]["said"]
    assert {file.name: file.read_bytes() for file in (folder / "paper/cells").iterdir()} == before
    assert not (folder / "paper/logs").exists(), "nothing was run"


@pytest.mark.slow
def test_a_comparison_goes_on(folder):
    before = {file.name: file.read_bytes() for file in (folder / "compare/cells").iterdir()}
    go_on("compare")
    found = {file.name: file.read_bytes() for file in (folder / "compare/cells").iterdir()}
    assert {name: found[name] for name in before} == before
    assert set(found) - set(before) == set(EXPECTED["compare"]["cells"])
    assert not (folder / "compare/cold/seed-0/checkpoints").exists(), "what is done is not begun again"
