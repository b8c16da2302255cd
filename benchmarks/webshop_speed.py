"""WebShop: steps a second, and the search at three sizes of catalogue: time, memory, and what building and opening cost.

    python benchmarks/webshop_speed.py [--data DIR] [--products 1000 100000 1180000] [--keep DIR]

CPU time on one core. Larger catalogues are the given one (the official small one, or a generated one) over and over, each
copy under another code, so that lists of documents are as long as they would be. Each size is built into a folder and
then opened in a process of its own, which says what it holds itself and how much of the files is in memory because it was
looked at; the latter is shared by all processes and given back when others need it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean, quantiles

from rich.console import Console
from rich.table import Table

from spark_rl.environments.webshop import Webshop
from spark_rl.environments.webshop.catalogue import Product
from spark_rl.environments.webshop.expert import queries
from spark_rl.environments.webshop.shop import Generated, Shop, build, open_folder

QUERIES = 300


def steps_a_second(world: Webshop, seconds: float = 3.0) -> dict[str, float]:
    """Random walks with a search now and then: steps with text and list of actions, resets and forks a second."""
    rng, environment, tasks = random.Random(0), world.make(), world.tasks("L0", "train")
    chosen = [tasks[rng.randrange(len(tasks))] for _ in range(200)]
    for task in chosen:  # open the shop, and parse what will be looked at
        environment.reset(task)
    steps, end, start = 0, time.process_time() + seconds, time.process_time()
    while time.process_time() < end:
        task = rng.choice(chosen)
        observation = environment.reset(task)
        for _ in range(15):
            if observation.done:
                break
            action = rng.choice(observation.actions)
            observation = environment.step(action.replace("<your query>", task.instruction))
            steps += 1
    found = {"steps a second": steps / (time.process_time() - start)}
    for name, what in (("resets a second", lambda: environment.reset(chosen[0])), ("forks a second", environment.fork)):
        start = time.process_time()
        for _ in range(2000):
            what()
        found[name] = 2000 / (time.process_time() - start)
    return found


def copies(base: Shop, count: int) -> Iterator[Product]:
    """The products of a shop over and over, under codes of their own."""
    originals = [base.products[number] for number in range(len(base.products))]
    for number, product in zip(range(count), itertools.cycle(originals), strict=False):
        yield replace(product, asin=f"{number:010d}")


def resident() -> tuple[float, float]:
    """Megabytes that this process holds itself, and of files that lie in memory for it (Linux)."""
    sizes: dict[str, int] = {}
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.startswith("Rss"):
            sizes[name] = int(value.split()[0])
    return sizes["RssAnon"] / 1e3, sizes["RssFile"] / 1e3


def opened(folder: Path, asked: list[str]) -> dict[str, float]:
    """What a process of its own finds: time to open, time of a query, of a page, and memory."""
    before = resident()
    start = time.process_time()
    shop = open_folder(Generated(0), folder)
    opening = time.process_time() - start
    times: list[float] = []
    for query in asked:
        start = time.process_time()
        hits = shop.search(query)
        times.append(1000 * (time.process_time() - start))
        [shop.products[hit] for hit in hits[:10]]
    goals, start = shop.goals("synthetic"), time.process_time()
    for index in random.Random(1).sample(range(len(goals)), min(200, len(goals))):
        assert goals[index].instruction
    after = resident()
    return {
        "open, ms": 1000 * opening,
        "search, ms": fmean(times),
        "search, 95 %, ms": quantiles(times, n=20)[-1],
        "goal, ms": 1000 * (time.process_time() - start) / 200,
        "own memory, MB": after[0] - before[0],
        "files in memory, MB": after[1] - before[1],
    }


def at_size(base: Shop, count: int, asked: list[str], keep: Path) -> dict[str, float]:
    """Build a catalogue of a size, and open it in a process of its own."""
    folder = keep / f"webshop-{count}"
    start = time.process_time()
    if not folder.is_dir():
        build(folder, copies(base, count))
    building = time.process_time() - start
    size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    texts = (folder / "products.jsonl").stat().st_size / 1e6
    command = [sys.executable, __file__, "--open", str(folder)]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=True)
    return {"build, s": building, "texts, MB": texts, "all else, MB": size - texts, **json.loads(done.stdout)}


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="folder of the official small catalogue; none: a generated one")
    parser.add_argument("--products", type=int, nargs="*", default=[1000, 100_000], help="sizes of catalogue")
    parser.add_argument("--keep", type=Path, help="folder for the catalogues, kept; none: a temporary one")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long to walk")
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open:
        print(json.dumps(opened(options.open, json.load(sys.stdin))))
        return
    world = Webshop(data=options.data, size="small" if options.data else "generated")
    console = Console(highlight=False, width=120)
    console.print(world.about(), soft_wrap=True)
    for name, value in steps_a_second(world, options.seconds).items():
        console.print(f"{name}: {value:,.0f}")
    base = world.shop()
    goals = base.goals("synthetic")
    asked = [queries(goals[index].instruction)[0] for index in range(0, len(goals), max(len(goals) // QUERIES, 1))][:QUERIES]
    keep = options.keep or Path(tempfile.mkdtemp(prefix="spark-rl-webshop-"))
    try:
        columns = {count: at_size(base, count, asked, keep) for count in options.products}
    finally:
        if options.keep is None:
            shutil.rmtree(keep, ignore_errors=True)
    if not columns:
        return
    table = Table("", *(f"{count:,} products" for count in columns))
    for name in next(iter(columns.values())):
        table.add_row(name, *(f"{column[name]:,.2f}" for column in columns.values()))
    console.print(table)


if __name__ == "__main__":
    main()
