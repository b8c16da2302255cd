"""Reports: how large the file of a long run is, and how soon a browser shows it.

    python benchmarks/report.py [--iterations 200] [--trees 16] [--leaves 8] [--keep DIR]

A run is grown in the household world by an expert who slips, forking where it explores, with log-probabilities drawn at
random (they pack worst). Sizes are set against the same forests as plain JSON in the page. Times are of a headless Chromium
from the start of loading to the first curve, and from a click on an iteration to its first tree, medians of five.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.config.recipe import Keep, Recipe
from spark_rl.contracts import Growth, Policy
from spark_rl.evaluation.statistics import wilson
from spark_rl.policies.scripted import Slips
from spark_rl.recipes import load_recipe
from spark_rl.report.html import report
from spark_rl.report.payload import forest_payload
from spark_rl.report.reading import read_run
from spark_rl.rollout.grow import grow_forest
from spark_rl.rollout.metrics import summarise
from spark_rl.rollout.tasks import choose_tasks
from spark_rl.runs.run import Run
from spark_rl.types import Completion, Request, Sampling, Spent, TreeShape

OPENINGS = 5
CHROMIUM = "/usr/bin/chromium"
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")


@dataclass
class Sampled:
    """Another policy's words, as if they had been sampled token by token."""

    policy: Policy
    spent: Spent

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The other policy's answers, with an id, a log-probability and an entropy for each word."""
        answers = await self.policy.sample(requests)
        for request, completions in zip(requests, answers, strict=True):
            for number, seed in enumerate(request.seeds):
                rng, text = random.Random(seed), completions[number].text
                ids = tuple(rng.randrange(500) for _ in text.split())
                logprobs = tuple(-rng.expovariate(4) for _ in ids)
                completions[number] = Completion(text, ids, logprobs, tuple(rng.expovariate(3) for _ in ids))
        return answers


def generate(directory: Path, iterations: int, trees: int, leaves: int) -> Run:
    """A run of this size, as a trainer would leave it."""
    base = load_recipe("household")
    shape = TreeShape(budget=leaves, roots=max(1, leaves // 2), horizon=base.tree.horizon)
    recipe = replace(base, name="generated", iterations=iterations, tree=shape, keep=Keep(forests=0))
    run, tasks = Run.create(directory, recipe), recipe.env.tasks("L0", "train")
    for iteration in range(1, iterations + 1):
        forest = asyncio.run(_forest(recipe, choose_tasks(tasks, trees, seed=0, iteration=iteration), iteration))
        run.save_forest(forest)
        row = summarise(forest, leaves)
        low, high = wilson(round(row["success"] * 60), 60)
        run.log({"iteration": float(iteration), **row, "dev_success": row["success"], "dev_low": low, "dev_high": high})
    return run


async def _forest(recipe: Recipe, tasks: Sequence[Any], iteration: int) -> Any:
    expert = recipe.env.expert(tags="sparse")  # type: ignore[attr-defined]
    policy = Sampled(Slips(expert, 0.7 * (1 - iteration / (2 * recipe.iterations))), Spent())
    growth = Growth(recipe.tree, ExploreTag(), recipe.prompt, Sampling())
    return await grow_forest(tasks, recipe.env, policy, growth, seed=0, iteration=iteration)


def openings(page: Path) -> tuple[list[float], list[float]]:
    """Seconds until the first curve and, after a click, until the first tree, of several openings."""
    from playwright.sync_api import sync_playwright

    curves, trees = list[float](), list[float]()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for _ in range(OPENINGS):
            tab = browser.new_page(viewport={"width": 1440, "height": 900})
            start = time.perf_counter()
            tab.goto(page.as_uri(), wait_until="commit")
            tab.wait_for_selector("[data-testid=chart-success] :is(canvas, svg)")
            curves.append(time.perf_counter() - start)
            slider = tab.get_by_test_id("forest-slider")
            slider.scroll_into_view_if_needed()
            tab.wait_for_selector("[data-testid=step]")
            start = time.perf_counter()
            slider.focus()
            tab.keyboard.press("Home")
            tab.wait_for_selector("[data-testid=drawing][data-iteration='1'] [data-testid=step]")
            trees.append(time.perf_counter() - start)
            tab.close()
        browser.close()
    return curves, trees


def main(arguments: Sequence[str] | None = None) -> None:
    """Generate the run, write its report, open it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--iterations", type=int, default=200)
    parser.add_argument("--trees", type=int, default=16)
    parser.add_argument("--leaves", type=int, default=8)
    parser.add_argument("--keep", type=Path, help="leave run and report in this folder, and use the run that is there")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        if not (folder / "run").exists():
            generate(folder / "run", options.iterations, options.trees, options.leaves)
        measure(folder / "run", folder / "report.html")


def measure(directory: Path, page: Path) -> None:
    """Print what the report of a run costs."""
    reading = read_run(directory)
    start = time.process_time()
    page.write_text(report([reading], ["generated"], 10**9), encoding="utf-8")
    seconds = time.process_time() - start
    plain = nodes = 0
    for iteration in reading.forests:
        forest = reading.open_forest(iteration)
        assert not isinstance(forest, str)
        nodes += sum(len(tree.nodes) for tree in forest)
        plain += len(json.dumps(forest_payload(forest, reading.recipe)))
    size = page.stat().st_size
    table = Table(title=f"report of {len(reading.forests)} forests, {nodes:,} steps", title_justify="left")
    table.add_column("what")
    table.add_column("figure", justify="right")
    table.add_row("file", f"{size / 1e6:.1f} MB")
    table.add_row("the same forests as plain JSON", f"{plain / 1e6:.1f} MB ({plain / size:.1f}x)")
    table.add_row("writing it", f"{seconds:.1f} CPU-s")
    if Path(CHROMIUM).exists():
        curves, trees = openings(page)
        table.add_row("opened to the first curve", f"{statistics.median(curves):.2f} s")
        table.add_row("another iteration's tree", f"{statistics.median(trees):.2f} s")
    Console().print(table)


if __name__ == "__main__":
    main()
