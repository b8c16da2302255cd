"""Demonstrations for tests: won and lost trajectories of a small household, and the file as its first version was."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from spark_rl.branching.chains import Chains
from spark_rl.contracts import Growth
from spark_rl.data.demonstrations import as_demonstrations, collect, texts
from spark_rl.data.format import Demonstration, origin, prompt_version, read_records
from spark_rl.environments.household import Household
from spark_rl.policies.scripted import Script
from spark_rl.prompting.encoder import ChatEncoder
from spark_rl.prompting.prompt import Prompt
from spark_rl.rollout.grow import grow_forest
from spark_rl.types import Sampling, TreeShape

WORLD = Household(train_tasks=40)


@cache
def won(count: int = 5, prompt: Prompt = Prompt(), slips: float = 0.3) -> tuple[Demonstration, ...]:
    """The expert's, on level L2."""
    return tuple(asyncio.run(collect(WORLD, count, level="L2", horizon=30, prompt=prompt, slips=slips)))


@cache
def lost(prompt: Prompt = Prompt()) -> tuple[Demonstration, ...]:
    """Two of a policy that looks around, says something malformed, and asks for what is not there."""
    lines = ["look", "<think>what now", "go to the moon 1"]
    growth = Growth(TreeShape(budget=1, roots=1, horizon=3), Chains(), prompt, Sampling())
    forest = asyncio.run(grow_forest(WORLD.tasks("L2", "train")[:2], WORLD, Script(lines), growth, seed=0))
    return tuple(as_demonstrations(forest.trees, origin(WORLD, "L2", "played", "a script", prompt_version(prompt))))


def as_first_version(path: Path) -> None:
    """Rewrite a file as the first version wrote it."""
    lines: list[str] = []
    for record in (record for group in read_records(path) for record in group):
        for name in ("world", "level", "source", "author", "date", "prompt_version", "rendering", "reward", "done"):
            del record[name]
        actions = record["actions"].split("\n") if record["actions"] else []
        lines.append(json.dumps({**record, "format": "spark-rl-demonstration/1", "actions": actions}) + "\n")
    path.write_text("".join(lines))


def learnt_encoder(demonstrations: Iterable[Demonstration], prompt: Prompt) -> ChatEncoder:
    """A tokenizer learnt from demonstrations, as prompts use it."""
    from spark_rl.models.tokenizer import learn_tokenizer

    tokenizer: Any = learn_tokenizer(texts(demonstrations, prompt))
    return ChatEncoder(tokenizer)
