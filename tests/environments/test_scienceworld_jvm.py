"""ScienceWorld's Java processes: lost ones are replaced, none outlives its parent, and they run what is compiled here."""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from spark_rl.branching.probability import Probability
from spark_rl.contracts import Growth
from spark_rl.environments.scienceworld import ScienceWorld, jvm
from spark_rl.environments.scienceworld.engine import Place
from spark_rl.errors import EnvironmentFailure, MissingExtra, ReplayMismatch, UsageError
from spark_rl.prompting.parsing import respond
from spark_rl.prompting.prompt import Prompt
from spark_rl.rollout.grow import grow_forest
from spark_rl.types import Completion, Forest, Request, Sampling, Task, TreeShape

_HEAPS = itertools.count(300)


def own(world: ScienceWorld) -> ScienceWorld:
    """A world with a process that no other test uses."""
    return replace(world, heap=next(_HEAPS))


def pid_of(world: ScienceWorld) -> int:
    [pid] = world.engines().processes()
    assert pid is not None
    return pid


# -- what can go wrong at the start ---------------------------------------------------------------------------------


def test_without_java_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(UsageError, match=r"needs Java 17 or newer.*apt-get install"):
        jvm.find_java()


def test_an_old_java_is_named(tmp_path, monkeypatch):
    pytest.importorskip("scienceworld", reason="ScienceWorld's engine is the extra scienceworld")
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text('#!/bin/sh\necho \'openjdk version "11.0.2" 2019-01-15\' >&2\n[ "$1" = -version ]\n')
    java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="is version 11: put a newer one on the path or set JAVA_HOME"):
        own(ScienceWorld()).make().reset(Task("scienceworld", "boil/0", "boil water", "boil"))


def test_without_the_extra_a_sentence_names_it(monkeypatch):
    monkeypatch.setattr(sys, "path", [])  # nothing is installed where nobody looks
    with pytest.raises(MissingExtra, match=r'pip install "spark-rl\[scienceworld\]"'):
        jvm.archive()


@pytest.mark.slow
def test_a_heap_too_small_or_too_large_is_named(scienceworld):
    with pytest.raises(UsageError, match=r"--env.heap 100000000 right"):
        replace(scienceworld, heap=100_000_000).make().reset(scienceworld.task("boil/0"))


# -- lost processes -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_episode_goes_on_after_its_process_was_killed(scienceworld):
    world = own(scienceworld)
    env, undisturbed = world.make(), scienceworld.make()
    for one in (env, undisturbed):
        one.reset(world.task("boil/0"))
        one.step("teleport to kitchen")
        one.step("nonsense")
    twin = env.fork()
    before = pid_of(world)
    os.kill(before, signal.SIGKILL)
    for one in (env, twin):
        told = one.step("open cupboard")
        assert told.text == "The cupboard is now open."
        assert told.actions == undisturbed.fork().step("open cupboard").actions
    assert pid_of(world) != before
    assert world.lost() == 1


@pytest.mark.slow
def test_a_world_that_comes_back_different_is_not_used(scienceworld):
    world = own(scienceworld)
    env = world.make()
    env.reset(world.task("boil/0"))
    env.step("teleport to kitchen")
    place = env._place
    assert place is not None
    env._place = Place(place.task_id, ("teleport to hallway",), place.shown, place.trail)
    os.kill(pid_of(world), signal.SIGKILL)
    with pytest.raises(ReplayMismatch, match='task "boil/0": 1 actions replayed end with'):
        env.step("look around")


@pytest.mark.slow
def test_a_process_that_does_not_answer_is_replaced_once(scienceworld):
    world = replace(own(scienceworld), timeout=1e-4)
    with pytest.raises(
        EnvironmentFailure, match=r'did not answer in time at "reset" of task "boil/0", in a second process too'
    ):
        world.make().reset(scienceworld.task("boil/0"))
    assert world.lost() == 2


@pytest.mark.slow
def test_without_copies_forks_are_replayed(scienceworld, monkeypatch):
    # Java with identity hashes of its own: a copy would be wrong, and the process says so.
    monkeypatch.setattr(jvm, "FLAGS", tuple(flag for flag in jvm.FLAGS if "hashCode" not in flag))
    world = own(scienceworld)
    assert "forks by taking the actions again" in world.about()
    env = world.make()
    env.reset(world.task("find-plant/0"))
    env.step("teleport to kitchen")
    twin = env.fork()
    twin.step("open cupboard")
    assert env.step("look in cupboard").text == "The cupboard isn't open, so you can't see inside."
    assert twin.step("look in cupboard").text.startswith("Inside the cupboard is:")
    assert env._engines.fork(env._live, env._here())[1] is None


@dataclass
class Wanderer:
    """Takes any of a few actions, as each sample's seed says; kills the process once, after some calls."""

    world: ScienceWorld
    kill_at: int = -1
    calls: int = 0

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        self.calls += 1
        if self.calls == self.kill_at:
            os.kill(pid_of(self.world), signal.SIGKILL)
        return [[self._say(seed) for seed in request.seeds] for request in requests]

    def _say(self, seed: int) -> Completion:
        rng = random.Random(seed)
        rooms = ("kitchen", "workshop", "greenhouse", "outside")
        action = rng.choice(["look around", "dance", "wait1", *(f"teleport to {room}" for room in rooms)])
        return Completion(respond("explore", "so", action))


def grown(world: ScienceWorld, kill_at: int) -> Forest:
    growth = Growth(
        TreeShape(budget=4, roots=2, horizon=8), Probability(0.4, width=2), Prompt(list_actions=False), Sampling()
    )
    tasks = [world.task(task_id) for task_id in ("boil/0", "find-plant/1", "test-conductivity/2")]
    return asyncio.run(grow_forest(tasks, world, Wanderer(world, kill_at), growth, seed=3))


@pytest.mark.slow
def test_a_forest_survives_the_death_of_its_process(scienceworld):
    whole, hurt = grown(own(scienceworld), -1), grown(own(scienceworld), 5)
    assert (whole.spent.restarts, hurt.spent.restarts) == (0, 1)
    assert hurt.trees == whole.trees
    assert not hurt.failures
    assert any(tree.forks for tree in hurt)
    assert {tree.task.id: {tree.observation} for tree in hurt} == {tree.task.id: {tree.observation} for tree in whole}


# -- no process stays -----------------------------------------------------------------------------------------------

PARENT = """
    import os, signal, sys, time
    from spark_rl.environments.scienceworld import ScienceWorld
    world = ScienceWorld(jvms=2)
    for task in ("boil/0", "boil/1", "find-plant/0", "melt/1"):
        world.make().reset(world.task(task))
    print(*world.engines().processes(), flush=True)
    {end}
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    "end", ["pass", "sys.exit(3)", "time.sleep(60)  # Ctrl-C", "time.sleep(60)  # killed", "os._exit(1)"]
)
def test_no_java_stays_behind(scienceworld, end):
    if not Path("/proc/self/stat").exists():
        pytest.skip("who runs is read from /proc, which this system lacks")
    code = textwrap.dedent(PARENT).format(end=end)
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split() if word != "None"]
    assert pids
    if "Ctrl-C" in end:
        parent.send_signal(signal.SIGINT)
    if "killed" in end:
        parent.kill()
    parent.wait(timeout=60)
    parent.stdout.close()
    deadline = time.monotonic() + 20
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids))


@pytest.mark.slow
def test_memory_stays_flat_over_500_episodes(scienceworld):
    world = own(scienceworld)
    env, used = world.make(), []
    kinds = ("boil", "find-plant", "test-conductivity", "freeze", "melt")
    tasks = [world.task(f"{kind}/{number}") for number in range(15) for kind in kinds]
    for episode in range(500):
        env.reset(tasks[episode % len(tasks)])
        twin = env.fork()
        for action in ("teleport to kitchen", "open cupboard", "look around"):
            env.step(action)
            twin.step(action)
        if episode % 100 == 99:
            machine = jvm.machines(world.engines().launch, 1)[0]
            with machine.lock:
                bytes_, worlds = map(int, machine.ask("memory"))
            used.append(bytes_ / 2**20)
            assert worlds < 100
    assert max(used[1:]) < 1.2 * used[0] + 5, used


# -- the helper -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_helper_is_what_its_source_compiles_to(scienceworld, tmp_path):
    compiler = shutil.which("javac")
    if compiler is None:
        pytest.skip("no javac: the helper's classes cannot be rebuilt (Debian: apt-get install openjdk-17-jdk-headless)")
    sources = sorted((jvm.CLASSES / "sparkrl").glob("*.java"))
    command = [compiler, "-nowarn", "-XDignore.symbol.file", "--release", "17", "-cp", str(jvm.archive()), "-d", tmp_path]
    subprocess.run([*command, *sources], check=True, capture_output=True)
    built = {path.name: path.read_bytes() for path in (tmp_path / "sparkrl").glob("*.class")}
    shipped = {path.name: path.read_bytes() for path in (jvm.CLASSES / "sparkrl").glob("*.class")}
    assert built.keys() == shipped.keys()
    version = subprocess.run([compiler, "-version"], check=True, capture_output=True, text=True)
    if re.search(r"javac 17\.", version.stdout + version.stderr):  # others order the same things in other ways
        assert built == shipped, "the classes are not those of the source: make helper"
