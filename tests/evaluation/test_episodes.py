"""An evaluation's folder: interrupted, torn, divided and merged, the numbers are those of an unbroken evaluation."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tiny import RECIPE, WORLD

from spark_rl.errors import StorageError, UsageError
from spark_rl.evaluation.episodes import Played, Shard, open_folder
from spark_rl.evaluation.lookahead import majority
from spark_rl.evaluation.play import play
from spark_rl.evaluation.results import LevelResult, conclude
from spark_rl.policies.scripted import RandomActions
from spark_rl.rollout.grow import grow_forest
from spark_rl.types import Task, TreeShape

TASKS = WORLD.tasks("L0", "train")[:7]
GROWTH = replace(RECIPE.growth, shape=TreeShape(budget=3, roots=2, horizon=5))
SETTINGS = {"model": "chance"}
WANTED = Counter({(task.id, sample): 1 for task in TASKS for sample in range(3)})


class Killed(Exception):
    """The process is gone."""


@dataclass
class Chance:
    """Grows with random actions; is killed when asked once more than `alive` times; fails on `broken` tasks."""

    alive: int = 1000
    broken: frozenset[str] = frozenset()
    asked: Counter[tuple[str, int]] = field(default_factory=Counter)

    async def grow(self, tasks, growth, *, seed, iteration):
        if self.alive == 0:
            raise Killed
        self.alive -= 1
        self.asked.update((task.id, iteration) for task in tasks)
        forest = await grow_forest(tasks, WORLD, RandomActions(), growth, seed=seed, iteration=iteration)
        forest.failures += [f"{tree.task.id}: no" for tree in forest if tree.task.id in self.broken]
        forest.trees = [tree for tree in forest if tree.task.id not in self.broken]
        return forest


def run(executor: Chance, played: Played, shard: Shard | None = None, choose=None, samples: int = 3) -> Played:
    settings = {"temperature": 1.0, "seed": 1, "samples": samples, "batch": 3, "choose": choose}
    return asyncio.run(play(executor, TASKS, GROWTH, **settings, played=played, shard=shard))


def result(played: Played, tasks: Sequence[Task] = TASKS) -> LevelResult:
    return conclude(tasks, played, samples=3, pass_at=(1, 2, 3))


def in_folder(path: Path, executor: Chance, shard: Shard | None = None, **settings) -> LevelResult:
    with open_folder(path, SETTINGS, shard) as folder:
        run(executor, folder.level("L0"), shard, **settings)
        return result(folder.level("L0"))


@pytest.mark.parametrize("choose", [None, majority])
def test_interrupted_and_resumed_is_uninterrupted(tmp_path, choose):
    whole = result(run(Chance(), Played(), choose=choose))
    rounds = 0
    while True:
        executor = Chance(alive=2)
        try:
            resumed = in_folder(tmp_path / "out", executor, choose=choose)
            break
        except Killed:
            rounds += 1
            assert sum(executor.asked.values()) in (4, 6)
    assert rounds == 4  # nine batches, two at a time
    assert resumed == whole == in_folder(tmp_path / "out", Chance(alive=0), choose=choose)
    if choose:
        assert whole.branching is not None
        assert whole.branching.leaves > 2


@pytest.mark.parametrize("cut", range(1, 40, 6))
def test_a_torn_line_is_played_again_and_nothing_is_doubled(tmp_path, cut):
    whole = in_folder(tmp_path, Chance())
    file = tmp_path / "episodes.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    kept = lines[: len(lines) - 1 - cut % 9]
    file.write_bytes(b"".join(kept) + lines[len(kept)][: cut * 3])
    executor = Chance()
    assert in_folder(tmp_path, executor) == whole
    assert 0 < sum(executor.asked.values()) <= 9, "only batches of which something was missing"
    assert Counter(map(bytes, file.read_bytes().splitlines(keepends=True))) == Counter(lines)


def test_shards_come_together(tmp_path):
    whole = result(run(Chance(), Played()))
    executors = [Chance() for _ in range(4)]
    for number, executor in enumerate(executors, start=1):
        merged = in_folder(tmp_path, executor, Shard(number, 4))
    assert sum((executor.asked for executor in executors), Counter()) == WANTED
    assert merged == whole == in_folder(tmp_path, Chance(alive=0))
    assert len(list(tmp_path.glob("episodes.*-of-4.jsonl"))) == 4


def test_shards_of_another_number_play_what_is_left(tmp_path):
    whole = result(run(Chance(), Played()))
    in_folder(tmp_path, Chance(), Shard(1, 3))
    in_folder(tmp_path, Chance(), Shard(2, 2))
    executor = Chance()
    assert in_folder(tmp_path, executor) == whole
    assert 0 < sum(executor.asked.values()) < sum(WANTED.values())


def test_more_samples_can_be_asked_for_later(tmp_path):
    in_folder(tmp_path, Chance(), samples=1)
    executor = Chance()
    assert in_folder(tmp_path, executor) == result(run(Chance(), Played()))
    assert executor.asked == Counter({key: 1 for key in WANTED if key[1] > 0})


def test_failed_episodes_are_tried_again(tmp_path):
    broken = frozenset(task.id for task in TASKS[:3])
    first = in_folder(tmp_path, Chance(broken=broken))
    assert (first.failed, first.episodes) == (9, 21)
    assert in_folder(tmp_path, Chance()) == result(run(Chance(), Played()))


def test_levels_are_kept_apart(tmp_path):
    with open_folder(tmp_path, SETTINGS) as folder:
        run(Chance(), folder.level("L0"))
        assert len(folder.level("L0").episodes) == 21
        assert folder.level("L1").episodes == {}


def test_other_settings_are_refused(tmp_path):
    in_folder(tmp_path / "out", Chance())
    with pytest.raises(UsageError, match='was begun with model "chance", not "other"'):
        open_folder(tmp_path / "out", {"model": "other"}).__enter__()
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "thesis.tex").touch()
    with pytest.raises(UsageError, match="something else"):
        open_folder(tmp_path / "else", SETTINGS).__enter__()


def test_one_process_writes_a_shard(tmp_path):
    with open_folder(tmp_path, SETTINGS):
        with pytest.raises(UsageError, match="another process"), open_folder(tmp_path, SETTINGS):
            pass
        with open_folder(tmp_path, SETTINGS, Shard(1, 2)):
            pass


@pytest.mark.parametrize("line", ["no json", "[1]", '{"task": "a"}', '{"level": "L0", "task": "a"}'])
def test_a_broken_line_is_named(tmp_path, line):
    in_folder(tmp_path, Chance())
    file = tmp_path / "episodes.jsonl"
    file.write_text(f"{line}\n{file.read_text()}")
    with pytest.raises(StorageError, match="line 1"):
        in_folder(tmp_path, Chance())


@pytest.mark.parametrize("text", ["", "2", "0/2", "3/2", "a/b", "1/2/3", "-1/2"])
def test_what_is_no_shard(text):
    with pytest.raises(UsageError, match="such as 2/4"):
        Shard.read(text)
    assert Shard.read("2/4") == Shard(2, 4)


KILLED = """
import os, signal, sys
from pathlib import Path
from test_episodes import *

class Suicide(Chance):
    async def grow(self, *arguments, **settings):
        if self.alive == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return await super().grow(*arguments, **settings)

in_folder(Path(sys.argv[1]), Suicide(alive=3))
"""


def test_a_killed_process_loses_at_most_a_batch(tmp_path):
    where = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1]), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path], env=os.environ | {"PYTHONPATH": where}, check=False
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    kept = [json.loads(line) for line in (tmp_path / "episodes.jsonl").read_text().splitlines()]
    assert sum("batch" in line for line in kept) == 2
    executor = Chance()
    assert in_folder(tmp_path, executor) == result(run(Chance(), Played()))
    assert sum(executor.asked.values()) == 21 - 6
