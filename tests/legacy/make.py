"""What version 0.1.0 left on disk, half done: `version-0.1.tar.xz`, and in `expected.json` how that version goes on.

This script runs with version 0.1.0 only (commit 1b7fc72), whose modules it imports; it says how the test data was made and
is not run again. Later code must be able to continue and to read what it wrote:

    git worktree add ../before 1b7fc72
    cd ../before && PYTHONPATH=. OMP_NUM_THREADS=1 python TESTS/legacy/make.py [FOLDER]

It writes both files into FOLDER (its own by default) in some three minutes. The archive holds

    run/                  training, stopped after iteration 2 of 4
    compare/              seed 0 done (its runs deleted), seed 1 with a cold start and runs that have not begun to train
    paper/                table4 done: cells alone
    eto/                  `spark-rl eto run`, stopped after iteration 1 of 2 (its forest deleted)
    evaluation/           `spark-rl eval run`, stopped after 3 of 8 episodes
    demonstrations.jsonl, forest.jsonl.gz
    recipes.json          every recipe and component, and two recipes under every algorithm, as 0.1.0 encodes them
    paper_cells.json      the names of all cells of all tables by scale, under the default settings

All is to be continued with the commands in expected.json, in a folder that the archive was unpacked in (`--cache-gb` of
a recipe is `--engine.cache-gb` since). What is expected was found by unpacking the archive and continuing it with 0.1.0
itself. Numbers are equal bit for bit on one kind of CPU only.
"""

# ruff: noqa: I001  its modules of this package are those of version 0.1.0, which ruff takes for somebody else's

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import lzma
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers

import spark_rl
from spark_rl import eto, trainer
from spark_rl.cli import main
from spark_rl.commands.base import Call
from spark_rl.commands.paper import _grid
from spark_rl.compare.cells import Plan
from spark_rl.episodes import Played
from spark_rl.errors import SparkError
from spark_rl.paper.published import TABLES
from spark_rl.recipe import COMPONENTS, component, encode
from spark_rl.recipes import RECIPES, load_recipe
from spark_rl.recipes.algorithms import ALGORITHMS, with_algorithm
from spark_rl.store import load_forest

HERE = Path(__file__).resolve().parent
LIMIT = 200_000
"""Most bytes of the archive."""

WORLD = (
    "--env.kinds place --env.held-out --env.houses 1 --env.unseen-houses 1 --env.receptacles 8 9 --env.objects 6 "
    "--env.train-tasks 60 --env.dev-tasks 4 --env.test-tasks 8"
)
SMALL = (
    f"{WORLD} --model.hidden 12 --model.layers 1 --model.heads 2 --model.kv-heads 1 --model.intermediate 36 --level L0 "
    "--tasks-per-iteration 2 --tree.horizon 12 --sampling.temperature 0.7 "
    "--cold-start.demonstrations 48 --cold-start.epochs 50 --cold-start.learning-rate 0.02 "
    "--cold-start.muon-learning-rate 0.03 "
    "--evaluation.levels L0 --evaluation.temperature 0.7 --evaluation.dev-tasks 4 --evaluation.batch 4 "
    "--optimizer.learning-rate 0.001 --optimizer.max-kl 10 --threads 1 --cache-gb 0.5"
)
COMMANDS = {
    # The seed is that of the comparison's unfinished cells: equal cold starts are packed once.
    "run": "train household-tiny --algorithm gigpo --branching paced --branching.rule entropy --branching.gap 1 "
    f"{SMALL} --seed 1 --iterations 4 --tree.budget 4 --tree.roots 2 --loss.kl 0.02 "
    "--rewards.inside True --rewards.inadmissible 0.2 "
    "--evaluation.every 4 --keep.every 1 --keep.checkpoints 1 --keep.forests 2 --out run",
    "compare": f"compare household-tiny --arms grpo,paper --seeds 2 --jobs 1 {SMALL} --iterations 2 "
    "--evaluation.every 1 --out compare",
    "paper": f"paper table4 --scale tiny --seeds 1 --jobs 1 {SMALL} --iterations 2 --tree.budget 4 --tree.roots 2 "
    "--evaluation.every 1 --out paper",
    "eto": "eto run --out eto --iterations 2 --tasks 4 --epochs 1 --batch 2 --learning-rate 0.001 --probe 2",
    "evaluation": "eval run --checkpoint cold-start --level L0 --batch 3 --out evaluation",
    "demonstrations": "demos household --count 6 --out demonstrations.jsonl",
    "rollout": f"rollout household-tiny --policy expert --tasks 2 {WORLD} --level L0 --tree.budget 4 --tree.roots 2 "
    "--out rollout",
}
"""What makes each part, as words after `spark-rl`."""
RESUME = "train --resume run"
RESULT = ("success", "wins", "tasks", "episodes", "steps", "tokens", "malformed_ratio", "inadmissible_ratio")
"""Numbers of an evaluation that are compared."""
ROW = (
    *("iteration", "success", "trees", "leaves", "unique_steps", "forks", "completion_tokens", "prompt_tokens"),
    *("malformed_ratio", "inadmissible_ratio", "generated", "prefilled", "reused", "trained", "env_steps", "dev_success"),
    *("update_reference_kl", "update_loss", "update_grad_norm", "pairs", "dpo_loss", "dpo_steps"),
)
"""Columns of metrics.jsonl that are compared, where a row has them."""
SECONDS = r"(?m)^(\| `\w+` \|(?: [\d,]+ \|){5}) [\d,]+ \|$"
"""Where the comparison's last table says how long runs took; in expected.json it reads SECONDS."""


# -- making ---------------------------------------------------------------------------------------------------------


def make(folder: Path) -> None:
    """All parts, stopped where they are to be continued."""
    with contextlib.chdir(folder):
        with replaced(trainer, "train", stopping_after(trainer.train, 2)):
            called("run", 130)
        called("demonstrations", 0)
        called("rollout", 0)
        shutil.copy("rollout/forests/000001.jsonl.gz", "forest.jsonl.gz")
        shutil.rmtree("rollout")
        with replaced(Played, "add", then_stop(Played.add)):
            called("evaluation", 130)
        with replaced(eto, "improve", stopping_after(eto.improve, 1)):
            called("eto", 130)
        with replaced(Plan, "_call", without_training(Plan._call, "runs/seed-1")):
            called("compare", 1)
        called("paper", 0)
        Path("recipes.json").write_text(json.dumps(recipes(), indent=1) + "\n")
        names = {scale: paper_cells(scale) for scale in ("tiny", "paper")}
        Path("paper_cells.json").write_text(json.dumps(names, indent=1) + "\n")
        thin(Path())


def thin(folder: Path) -> None:
    """Delete what nothing is continued from."""
    for place in ("compare/logs", "compare/runs/seed-0", "compare/cold/seed-0/checkpoints", "paper/runs", "paper/cold"):
        shutil.rmtree(folder / place)
    for place in ("paper/logs", "eto/forests"):
        shutil.rmtree(folder / place)
    for file in (*(folder / "compare").glob("*.*"), *(folder / "paper").glob("*.*")):
        file.unlink()
    (folder / "compare/cold/seed-0/demonstrations.jsonl").unlink()


def called(name: str, code: int) -> None:
    """A command in this process, which must end with this code."""
    print(f"{name} ...", flush=True)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        found = main([*shlex.split(COMMANDS[name]), "--quiet"])
    assert found == code, f"{name} ended with {found}: {said.getvalue()}"


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Generator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


class Stopping:
    """A watcher that interrupts after an iteration, as Ctrl-C would."""

    def __init__(self, watcher: Any, last: int) -> None:
        self.watcher, self.last = watcher, last

    def __getattr__(self, name: str) -> Any:
        return getattr(self.watcher, name)

    def iteration(self, row: Mapping[str, float]) -> None:
        if row["iteration"] == self.last:
            raise KeyboardInterrupt


def stopping_after(work: Callable[..., None], iteration: int) -> Callable[..., None]:
    """`train` or `improve`, whose last argument is the watcher."""
    return lambda *given: work(*given[:-1], Stopping(given[-1], iteration))


def then_stop(add: Callable[..., None]) -> Callable[..., None]:
    def add_and_stop(*given: Any) -> None:
        add(*given)
        raise KeyboardInterrupt

    return add_and_stop


def without_training(call: Callable[..., None], place: str) -> Callable[..., None]:
    """`Plan._call`, stopped where the cells in a place begin to train."""

    def stopped(plan: Any, log: Path, *words: str) -> None:
        if words[0] == "train" and place in words[2]:
            raise SparkError("stopped")
        call(plan, log, *words)

    return stopped


def recipes() -> dict[str, Any]:
    return {
        "recipes": {name: encode(load_recipe(name)) for name in RECIPES},
        "algorithms": {
            name: {algorithm: encode(with_algorithm(load_recipe(name), algorithm)) for algorithm in ALGORITHMS}
            for name in ("household-tiny", "alfworld-qwen-1-5b")
        },
        "components": {slot: {name: encode(component(slot, name)) for name in names} for slot, names in COMPONENTS.items()},
    }


def pack(folder: Path, archive: Path) -> None:
    """Equal folders are equal archives."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
        entry.mode = 0o755 if entry.isdir() else 0o644
        return entry

    with lzma.open(archive, "wb", preset=9 | lzma.PRESET_EXTREME) as packed, tarfile.open(fileobj=packed, mode="w") as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, path.name, filter=plain)
    size = archive.stat().st_size
    assert size < LIMIT, f"{archive} has {size} bytes"


# -- what is expected -----------------------------------------------------------------------------------------------


def expected(folder: Path) -> dict[str, Any]:
    """What is in an unpacked archive, and what comes of continuing it."""
    found: dict[str, Any] = {
        "version": spark_rl.__version__,
        "made_with": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
            "cpu": cpu(),
        },
        "commands": {name: f"spark-rl {words}" for name, words in COMMANDS.items()} | {"resume": f"spark-rl {RESUME}"},
        "types": types(folder),
        "forests": {str(file.relative_to(folder)): forest(file) for file in sorted(folder.rglob("*.jsonl.gz"))},
    }
    before = rows(folder / "run")
    continued(folder, COMMANDS["evaluation"])
    found["evaluation"] = read(folder / "evaluation/results.json")
    found["eto"] = {"said": continued(folder, COMMANDS["eto"]), **trained(folder / "eto", 2)}
    continued(folder, RESUME)
    found["run"] = {**trained(folder / "run", 4), "eval": read(folder / "run/eval.json")}
    assert found["run"]["metrics"][:2] == before
    there = cells(folder / "compare")
    said = continued(folder, COMMANDS["compare"])
    new = {name: result for name, result in cells(folder / "compare").items() if name not in there}
    found["compare"] = {"said": re.sub(SECONDS, r"\1 SECONDS |", said), "cells": new}
    there = {file: file.read_bytes() for file in (folder / "paper/cells").iterdir()}
    found["paper"] = {"said": continued(folder, COMMANDS["paper"]), "table": read(folder / "paper/table4.json")}
    assert there == {file: file.read_bytes() for file in (folder / "paper/cells").iterdir()}, "all was done"
    return found


def trimmed(found: dict[str, Any]) -> dict[str, Any]:
    """What tests look at, so that all of this stays small; what the archive itself holds is left out."""
    continuing = ("compare", "paper", "eto", "evaluation", "resume")
    found["commands"] = {name: found["commands"][name] for name in continuing}
    del found["version"], found["types"], found["paper"]["table"]
    found["evaluation"]["L0"] = {name: found["evaluation"]["L0"][name] for name in RESULT}
    for run, first in (("run", 3), ("eto", 2)):
        later = [row for row in found[run]["metrics"] if row["iteration"] >= first]
        found[run]["metrics"] = [{name: row[name] for name in ROW if name in row} for row in later]
    after = found["run"].pop("eval")["after"]["L0"]
    found["run"]["after"] = {name: after[name] for name in RESULT}
    found["compare"]["cells"] = {name: cell["training_success"] for name, cell in found["compare"]["cells"].items()}
    return found


def continued(folder: Path, words: str) -> str:
    """What a command writes on standard output, in a process of its own."""
    print(f"spark-rl {words[:60]} ...", flush=True)
    command = [sys.executable, "-m", "spark_rl", *shlex.split(words), "--quiet"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def trained(run: Path, iteration: int) -> dict[str, Any]:
    model = run / f"checkpoints/{iteration:06d}/model.safetensors"
    return {"metrics": rows(run), "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest()}


def read(file: Path) -> Any:
    return json.loads(file.read_text())


def rows(run: Path) -> list[dict[str, float]]:
    """Rows of metrics without the clock."""
    return [untimed(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]


def untimed(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.startswith("seconds")}


def cells(out: Path) -> dict[str, Any]:
    """Results without the clock, and without the settings, which a later version writes otherwise."""
    found = {file.name: read(file) for file in sorted((out / "cells").iterdir())}
    for result in found.values():
        result["curve"] = [untimed(point) for point in result["curve"]]
        del result["settings"]
    return found


def forest(file: Path) -> dict[str, Any]:
    loaded = load_forest(file)
    return {
        "iteration": loaded.iteration,
        "seed": loaded.seed,
        "tasks": [tree.task.id for tree in loaded],
        "nodes": [len(tree.nodes) for tree in loaded],
        "successes": [sum(tree.nodes[leaf].success for leaf in tree.leaves()) for tree in loaded],
    }


def types(folder: Path) -> list[str]:
    """Every `type` in a JSON file; those of a demonstration's world are JSON within JSON."""
    found: set[str] = set()
    for file in folder.rglob("*.json*"):
        if file.suffix in (".json", ".jsonl"):
            found |= set(re.findall(r'\\?"type\\?": ?\\?"(spark_rl\.[\w.]+:\w+)', file.read_text()))
    return sorted(found)


def paper_cells(scale: Any) -> list[str]:
    """The names of all cells of all tables, which hold digests of their settings."""
    tables = list(TABLES.values())
    _, grid = _grid(Call("spark-rl paper", []), tables, scale, "", None)
    return sorted(f"{cell.start} {cell.name}" for group in grid.groups(tables, 1) for cell in group)


def cpu() -> str:
    file = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", file.read_text()) if file.exists() else []
    return names[0] if names else platform.processor()


if __name__ == "__main__":
    assert spark_rl.__version__ == "0.1.0", f"{spark_rl.__file__} is {spark_rl.__version__}"
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    archive = out.resolve() / "version-0.1.tar.xz"
    with tempfile.TemporaryDirectory() as work:
        made, again = Path(work) / "made", Path(work) / "again"
        made.mkdir()
        make(made)
        pack(made, archive)
        print(f"{archive}: {archive.stat().st_size:,} bytes", flush=True)
        with tarfile.open(archive) as tar:
            tar.extractall(again, filter="data")
        lines = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in trimmed(expected(again)).items())
        (archive.parent / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
