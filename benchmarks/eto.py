"""Does ETO add to the cold start? The household recipe, several seeds, every test task of L0 and L1 once.

    python benchmarks/eto.py --seeds 500 501 502 503 504 --jobs 2 -- --tasks 1000 --epochs 1

What follows `--` goes to `spark-rl eto`. Each seed is a cold start (`spark-rl sft`), ETO from it (`spark-rl eto`) and an
evaluation of both, in processes with one thread. Its result is a line of results/eto_cpu.jsonl; a seed that has one
is not run again, and one that was stopped goes on. With all seeds there, docs/results/eto_cpu.md gets means over seeds and
differences paired by seed, with 95 % intervals (Student's t), and what both cost.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TextIO

from spark_rl.common.files import Lines, write_bytes
from spark_rl.errors import UsageError
from spark_rl.experiments.compare.curves import interval, paired
from spark_rl.experiments.compare.study import header, read_study, write_study

ROOT = Path(__file__).resolve().parent.parent
KEPT = ("success", "wins", "tasks", "steps", "invalid_ratio", "repetitive_ratio", "explore_ratio", "tokens")
"""What a result holds of an evaluation."""
COSTS = ("generated", "env_steps", "trained")
"""What it holds of ETO's iterations, added up."""


def main() -> None:
    """Run what is missing, then print the table and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="household")
    parser.add_argument("--seeds", type=int, nargs="+", default=[500, 501, 502, 503, 504])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--levels", nargs="+", default=["L0", "L1"])
    parser.add_argument("--demonstrations", type=int, default=0, help="of the cold start; 0: the recipe's")
    parser.add_argument("--evaluated", type=int, default=0, help="test tasks of each level; 0: all")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "eto")
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "eto_cpu.jsonl")
    parser.add_argument("--tables", type=Path, default=ROOT / "docs" / "results" / "eto_cpu.md")
    parser.add_argument("eto", nargs="*", help="options of spark-rl eto, after --")
    arguments = parser.parse_args()
    done = results(arguments)
    missing = [seed for seed in arguments.seeds if seed not in done]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for future in as_completed([pool.submit(run, arguments, seed) for seed in missing]):
            with Lines(arguments.results) as file:
                file.add([future.result()])
    done = results(arguments)
    tables = report(arguments, [done[seed] for seed in arguments.seeds])
    write_bytes(arguments.tables, tables.encode())
    print(tables, end="")


def asked(arguments: argparse.Namespace) -> dict[str, Any]:
    """What decides a result."""
    names = ("recipe", "levels", "demonstrations", "evaluated", "eto")
    return {name: getattr(arguments, name) for name in names}


def results(arguments: argparse.Namespace) -> dict[int, dict[str, Any]]:
    """Results so far, by seed; the file is begun where there is none."""
    path: Path = arguments.results
    if not path.exists():
        command = shlex.join(["python", "benchmarks/eto.py", *sys.argv[1:]])
        write_study(path, header(path.stem, command, asked=asked(arguments)), [])
    head, rows = read_study(path)
    if head["asked"] != asked(arguments):
        raise UsageError(f"{path} was made with other settings: give another --results, or delete it")
    return {row["seed"]: row for row in rows}


def run(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """The result of a seed, with a log of what its commands print."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    with (arguments.out / f"seed-{seed}.log").open("a") as log:
        return {"seed": seed, **measure(arguments, seed, log)}


def measure(arguments: argparse.Namespace, seed: int, log: TextIO) -> dict[str, Any]:
    """Cold start, ETO, and an evaluation of both."""
    cold, after = (arguments.out / f"seed-{seed}-{name}" for name in ("sft", "eto"))
    size = ["--cold-start.demonstrations", str(arguments.demonstrations)] if arguments.demonstrations else []
    common = ["--seed", str(seed), "--threads", "1"]
    seconds = {
        "sft": call(log, "sft", arguments.recipe, "--out", str(cold), "--probe", "0", *common, *size),
        "eto": call(log, "eto", str(cold), "--out", str(after), "--probe", "0", *arguments.eto),
    }
    few = ["--tasks", str(arguments.evaluated)] if arguments.evaluated else []
    evaluations: dict[str, Any] = {}
    for moment, directory in (("before", cold), ("after", after)):
        file = directory / "test.json"
        if not file.exists():
            call(log, "eval", str(directory), "--level", *arguments.levels, *few, "--threads", "1", "--out", str(file))
        levels = json.loads(file.read_text())
        evaluations[moment] = {level: {name: round(each[name], 4) for name in KEPT} for level, each in levels.items()}
    rows = [json.loads(line) for line in (after / "metrics.jsonl").read_text().splitlines()]
    figures = ("success", "pairs", "dpo_loss", "dpo_margin", "dpo_accuracy")
    return {
        **evaluations,
        "iterations": [{name: round(row[name], 4) for name in figures if name in row} for row in rows],
        "cost": {name: sum(row[name] for row in rows) for name in COSTS},
        "seconds": seconds,
    }


def call(log: TextIO, *words: str) -> int:
    """Run a command of ours to its end on one thread; returns the seconds it took, few where it was done before."""
    started = time.time()
    command = [sys.executable, "-m", "spark_rl", *words]
    subprocess.run(command, check=True, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return round(time.time() - started)


def report(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> str:
    """Markdown: success before and after on each level, the difference paired by seed, and the costs of ETO."""
    seeds = ", ".join(str(row["seed"]) for row in rows)
    options = " ".join(arguments.eto) or "defaults"
    link = os.path.relpath(arguments.results, arguments.tables.parent)
    lines = [
        "# ETO on the household world",
        "",
        f"Recipe {arguments.recipe}, seeds {seeds}, `spark-rl eto` with {options}. Every test task of a level once, sampled "
        "as in training. Means over seeds with 95 % intervals (Student's t); differences are paired by seed. "
        f"One line for each seed: [{arguments.results.name}]({link}); the file's first line holds the command that prints "
        "these tables.",
        "",
        "| level | tasks | cold start | ETO | difference |",
        "|---" * 5 + "|",
    ]
    for level in rows[0]["before"]:
        before, after = ([row[moment][level]["success"] for row in rows] for moment in ("before", "after"))
        tasks = rows[0]["before"][level]["tasks"]
        lines.append(f"| {level} | {tasks:.0f} | {interval(before)} | {interval(after)} | {paired(after, before)} |")
    lines += ["", "| seed | pairs | tokens generated | environment steps | tokens trained |", "|---" * 5 + "|"]
    for row in rows:
        pairs = sum(each["pairs"] for each in row["iterations"])
        costs = " | ".join(f"{row['cost'][name]:,.0f}" for name in COSTS)
        lines.append(f"| {row['seed']} | {pairs:,.0f} | {costs} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
