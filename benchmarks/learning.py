"""Does reinforcement learning add to the cold start? The household recipe, several seeds, every test task once.

    python benchmarks/learning.py --seeds 11 12 13 14 15 --jobs 2 --evaluation.levels L1 --env.test_tasks 240

Each seed is one process with one thread, in its own run directory; a seed that was stopped continues. Its result is a line
of results/learning_cpu.jsonl, so a seed that is there is not run again. Settings were chosen on seeds 0 to 6.
The run's own evaluations sample at the temperature of the rollouts (1.0): what is measured is what is trained. Sampling
less, at 0.4 as in the paper's validation, is evaluated besides, since learning may also be but a lower temperature.
The tables give means over seeds with 95 % intervals (Student's t); differences are paired by seed.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

from spark_rl.common.files import Lines
from spark_rl.experiments.compare.curves import interval, paired
from spark_rl.experiments.compare.study import header, read_study, write_study

ROOT = Path(__file__).resolve().parent.parent
COOLER = 0.4
"""The paper's temperature of validation."""
SUFFIX = f"_at_{COOLER}"
MOMENTS = {"before": "cold-start", "after": "last"}
"""Name of an evaluation -> checkpoint."""


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="household")
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12, 13, 14, 15])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "learning")
    parser.add_argument("--results", type=Path, default=ROOT / "results" / "learning_cpu.jsonl")
    arguments, overrides = parser.parse_known_args()
    if not arguments.results.exists():
        command = shlex.join(["python", "benchmarks/learning.py", *sys.argv[1:]])
        write_study(arguments.results, header(arguments.results.stem, command), [])
    done = results(arguments.results)
    missing = [seed for seed in arguments.seeds if seed not in done]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for result in pool.map(lambda seed: run(arguments.recipe, seed, arguments.out, overrides), missing):
            with Lines(arguments.results) as file:
                file.add([result])
    rows = [row for seed, row in sorted(results(arguments.results).items()) if seed in arguments.seeds]
    print(f"{len(rows)} seeds, sampled as in training\n\n{table(rows, '')}")
    print(f"\nThe same models, sampled at {COOLER}\n\n{table(rows, SUFFIX)}")


def results(path: Path) -> dict[int, dict[str, Any]]:
    """Results so far, by seed."""
    return {row["seed"]: row for row in read_study(path)[1]}


def run(recipe: str, seed: int, out: Path, overrides: list[str]) -> dict[str, Any]:
    """Train one seed, or go on with it, and say what it came to."""
    directory, started = out / f"seed-{seed}", time.time()
    command = [sys.executable, "-m", "spark_rl", "train"]
    if (directory / "recipe.json").exists():
        command += ["--resume", str(directory)]
    else:
        command += [recipe, "--out", str(directory), "--seed", str(seed), "--threads", "1", *overrides]
    out.mkdir(parents=True, exist_ok=True)
    with (out / f"seed-{seed}.log").open("w") as log:
        call(command, log)
        evaluations = json.loads((directory / "eval.json").read_text())
        for moment, checkpoint in MOMENTS.items():
            path = directory / f"eval-{moment}{SUFFIX}.json"
            options = ["--checkpoint", checkpoint, "--temperature", str(COOLER), "--out", str(path)]
            call([sys.executable, "-m", "spark_rl", "eval", str(directory), *options], log)
            evaluations[moment + SUFFIX] = json.loads(path.read_text())
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    kept = ("success", "wins", "tasks", "steps", "invalid_ratio", "repetitive_ratio", "explore_ratio", "tokens")
    return {
        "seed": seed,
        "recipe": recipe,
        "iterations": len(rows),
        "wall_seconds": round(time.time() - started),
        "generated": sum(row["generated"] for row in rows),
        "training_success": [round(row["success"], 4) for row in rows],
        **{
            moment: {level: {name: round(result[name], 4) for name in kept} for level, result in levels.items()}
            for moment, levels in evaluations.items()
        },
    }


def call(command: list[str], log: TextIO) -> None:
    """Run a command to its end on one thread."""
    subprocess.run(command, check=True, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})


def table(rows: list[dict[str, Any]], suffix: str) -> str:
    """Markdown: success before and after on each level, and the difference paired by seed."""
    lines = ["| level | tasks | cold start | after RL | difference |", "|---" * 5 + "|"]
    for level in rows[0]["before"]:
        before, after = ([row[moment + suffix][level]["success"] for row in rows] for moment in MOMENTS)
        tasks = rows[0]["before"][level]["tasks"]
        lines.append(f"| {level} | {tasks:.0f} | {interval(before)} | {interval(after)} | {paired(after, before)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
