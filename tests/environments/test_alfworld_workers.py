"""ALFWorld's handles outlive their engines: other processes, killed, hanging and crashing workers, and long runs."""

from __future__ import annotations

import os
import pickle
import random
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest

from spark_rl.contracts import Environment
from spark_rl.environments.alfworld import Alfworld, engine, workers
from spark_rl.environments.alfworld.engine import Engines, Place, Shown
from spark_rl.environments.alfworld.games import FolderGames
from spark_rl.environments.check import check_world
from spark_rl.errors import EnvironmentFailure, ReplayMismatch, UsageError
from spark_rl.types import Task

pytest.importorskip("textworld", reason="ALFWorld's engine is the extra alfworld")

SMALL = Alfworld(games="generated", objects=8)
DEPTHS = (5, 15, 30)


@pytest.fixture(scope="module")
def here() -> Alfworld:
    """Small games, played in this process."""
    return SMALL


@pytest.fixture(scope="module")
def away() -> Alfworld:
    """The same games, played by two workers."""
    return replace(SMALL, workers=2)


@pytest.fixture(scope="module", autouse=True)
def no_worker_stays():
    yield
    workers._workers.close()


def walk(env: Environment, actions: tuple[str, ...], seed: int, steps: int) -> list[tuple]:
    """What a seeded random walk sees, an unknown command now and then included."""
    rng, seen = random.Random(seed), []
    for _ in range(steps):
        action = "dance" if rng.random() < 0.1 else rng.choice(actions)
        observation = env.step(action)
        actions = observation.actions
        seen.append((action, observation, env.state_key()))
    return seen


def repeat(env: Environment, seen: list[tuple], *, between: Callable[[], object] = lambda: None) -> list[tuple]:
    """The same actions again, with something else done before each."""
    found = []
    for action, _, _ in seen:
        between()
        found.append((action, env.step(action), env.state_key()))
    return found


def worker_of(world: Alfworld, task: Task) -> int:
    """Process id of the worker that has the task's game."""
    pools = [pool for pool in workers._workers.all() if pool.engines.games == world.source()]
    [pool] = [pool for pool in pools if pool.count == world.workers]
    pid = pool._of(task.id).pid
    assert pid is not None
    return pid


# -- other processes ------------------------------------------------------------------------------------------------


def test_an_episode_goes_on_in_a_fresh_process(here: Alfworld) -> None:
    env = here.make()
    actions = env.reset(here.tasks("L1", "test")[0]).actions
    actions = walk(env, actions, seed=1, steps=4)[-1][1].actions
    pickled = pickle.dumps(env)
    expected = walk(env, actions, seed=2, steps=4)
    script = """
        import pickle, sys
        env, actions = pickle.load(sys.stdin.buffer)
        seen = [(action, env.step(action), env.state_key()) for action in actions]
        pickle.dump(seen, sys.stdout.buffer)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        input=pickle.dumps((pickle.loads(pickled), [action for action, _, _ in expected])),
        capture_output=True,
        check=True,
    )
    assert pickle.loads(done.stdout) == expected


def test_a_pickled_episode_is_small_and_compared(here: Alfworld) -> None:
    env = here.make()
    env.reset(here.tasks("L1", "test")[0])
    env.step("look")
    assert len(pickle.dumps(env)) < 10_000  # no engine, no state
    copied = pickle.loads(pickle.dumps(env))
    assert copied.state_key() == env.state_key()
    seen = copied._place.shown
    copied._place.shown = Shown("You see a dragon.", seen.actions, seen.won, seen.holding)
    with pytest.raises(ReplayMismatch, match=r"1 actions replayed end with .*You see a dragon"):
        copied.step("look")


def test_a_rebuilt_state_serves_all_its_forks(here: Alfworld, monkeypatch: pytest.MonkeyPatch) -> None:
    env = here.make()
    env.reset(here.tasks("L1", "test")[0])
    env.step("look")
    lost = pickle.loads(pickle.dumps(env))
    starts: list[int] = []
    start = engine.Engine.start
    monkeypatch.setattr(engine.Engine, "start", lambda self: starts.append(1) or start(self))
    for fork in (lost.fork(), lost.fork(), lost):
        fork.step("look")
    assert len(starts) == 1


# -- workers --------------------------------------------------------------------------------------------------------


def test_workers_answer_as_this_process_does(here: Alfworld, away: Alfworld, capfd: pytest.CaptureFixture) -> None:
    argv, stdout = sys.argv, sys.stdout
    for task in here.tasks("L1", "test")[::40]:
        home, far = here.make(), away.make()
        assert home.fork_cost == far.fork_cost
        first = home.reset(task)
        assert far.reset(task) == first
        seen = walk(home, first.actions, seed=3, steps=6)
        left, right = far.fork(), far.fork()
        assert repeat(left, seen, between=lambda right=right: right.step("look")) == seen
        assert repeat(far, seen) == seen
    assert sys.argv is argv
    assert sys.stdout is stdout
    assert capfd.readouterr() == ("", "")


def test_the_contract_holds_in_workers(away: Alfworld) -> None:
    report = check_world(away, tasks=2, steps=6)
    assert report.passed, str(report)


def test_after_a_kill_a_new_worker_goes_on(here: Alfworld, away: Alfworld) -> None:
    task = here.tasks("L1", "test")[1]
    home, far = here.make(), away.make()
    before = walk(home, home.reset(task).actions, seed=4, steps=5)
    far.reset(task)
    assert repeat(far, before) == before
    after = walk(home, before[-1][1].actions, seed=5, steps=4)
    sibling, killed = far.fork(), worker_of(away, task)
    os.kill(killed, signal.SIGKILL)
    assert repeat(far, after) == after
    assert worker_of(away, task) != killed
    assert repeat(sibling, after, between=lambda: far.step("look")) == after


def test_a_worker_that_hangs_is_replaced(here: Alfworld) -> None:
    impatient = replace(SMALL, workers=1, timeout=4.0, engines=2)
    task = here.tasks("L1", "test")[2]
    home, far = here.make(), impatient.make()
    seen = walk(home, home.reset(task).actions, seed=6, steps=3)
    far.reset(task)
    stopped = worker_of(impatient, task)
    os.kill(stopped, signal.SIGSTOP)
    assert repeat(far, seen) == seen
    with pytest.raises(ProcessLookupError):
        os.kill(stopped, 0)


def test_a_game_that_hangs_every_time_fails_by_name(tmp_path: Path) -> None:
    task_id = "valid_seen/pick_and_place_simple-Mug-None-Desk-1/trial_a"
    file = FolderGames(tmp_path).file(task_id)
    file.parent.mkdir(parents=True)
    os.mkfifo(file)  # reading it waits for a writer, for ever
    env = Alfworld(data=str(tmp_path), workers=1, timeout=0.5).make()
    with pytest.raises(EnvironmentFailure, match=rf'did not answer within 0.5 s at action "reset" of game "{task_id}"'):
        env.reset(Task("alfworld", task_id, "", ""))


def test_a_game_that_kills_its_process_fails_by_name(away: Alfworld, monkeypatch: pytest.MonkeyPatch) -> None:
    task = away.tasks("L1", "test")[3]
    env = away.make()
    env.reset(task)
    monkeypatch.setattr(Place, "__reduce__", lambda self: (os._exit, (1,)))  # whoever reads it dies
    with pytest.raises(
        EnvironmentFailure, match=f'the engine died at action "look" of game "{task.id}", in a second process too'
    ):
        env.step("look")
    monkeypatch.undo()
    assert env.step("look").text


def test_errors_of_a_worker_are_those_of_the_engine(tmp_path: Path) -> None:
    task_id = "valid_seen/pick_and_place_simple-Mug-None-Desk-1/trial_a"
    file = FolderGames(tmp_path).file(task_id)
    file.parent.mkdir(parents=True)
    file.write_text("{")
    task = Task("alfworld", task_id, "", "")
    said = []
    for count in (0, 1):
        with pytest.raises(EnvironmentFailure, match="cannot be read") as error:
            Alfworld(data=str(tmp_path), workers=count).make().reset(task)
        said.append((type(error.value), str(error.value)))
    assert said[0] == said[1]


def test_a_mismatch_in_a_worker_is_a_mismatch_here(away: Alfworld) -> None:
    env = away.make()
    env.reset(away.tasks("L1", "test")[4])
    env.step("look")
    assert env._place is not None
    seen = env._place.shown
    env._place = Place(env._place.task_id, ("look", "look"), Shown("A dragon.", seen.actions, seen.won, seen.holding))
    with pytest.raises(ReplayMismatch, match="before they ended with"):
        env.step("look")


def test_tasks_stick_to_workers_and_threads_play_side_by_side(here: Alfworld, away: Alfworld) -> None:
    tasks = here.tasks("L1", "test")[:8]
    seen: dict[bool, list[list[tuple]]] = {}
    for world in (here, away):
        into: list[list[tuple]] = [[] for _ in tasks]

        def play(task: Task, into: list, world: Alfworld = world) -> None:
            env = world.make()
            into += walk(env, env.reset(task).actions, seed=7, steps=4)

        threads = [threading.Thread(target=play, args=pair) for pair in zip(tasks, into, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        seen[world is away] = into
    assert seen[True] == seen[False]
    assert len({worker_of(away, task) for task in tasks}) == 2
    assert all(worker_of(away, task) == worker_of(away, task) for task in tasks)


@pytest.mark.parametrize(("end", "code"), [("", 0), ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL)])
def test_no_worker_outlives_its_parent(end: str, code: int) -> None:
    script = f"""
        import os, signal
        from spark_rl.environments.alfworld import Alfworld, workers
        world = Alfworld(games="generated", objects=8, workers=1)
        world.make().reset(world.tasks("L1", "test")[0])
        print(*(pid for pool in workers._workers.all() for pid in pool.processes()), flush=True)
        {end}
    """
    # The worker holds its parent's standard error until it ends, so `run` returns only then.
    done = subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(script)], capture_output=True, timeout=600)
    assert done.returncode == code, done.stderr
    assert int(done.stdout)
    assert done.stderr == b""


def test_kept_places_are_few_and_the_rest_is_replayed(here: Alfworld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "KEPT_PLACES", 2)
    engines, places = Engines(here.source()), workers._Places()
    place = workers._answer(engines, places, (here.tasks("L1", "test")[0].id, ""))
    start = place
    for _ in range(4):
        place = workers._answer(engines, places, (pickle.loads(pickle.dumps(place)), "look"))
        assert isinstance(place, Place)
    assert [actions for _, actions in places] == [("look",) * 3, ("look",) * 4]
    again = workers._answer(engines, places, (pickle.loads(pickle.dumps(start)), "look"))
    assert isinstance(again, Place)
    assert again.actions == ("look",)


def test_wrong_values() -> None:
    with pytest.raises(UsageError, match="workers is -1"):
        Alfworld(workers=-1)
    for seconds in (0.0, float("nan")):
        with pytest.raises(UsageError, match=f"timeout is {seconds}"):
            Alfworld(timeout=seconds)


# -- at length ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_forks_equal_replay_on_fifty_games_and_after_a_kill(alfworld_games: Path) -> None:
    world = Alfworld(data=str(alfworld_games), engines=8)
    far = Alfworld(data=str(alfworld_games), engines=8, workers=1)
    tasks = [*world.tasks("L0", "test"), *world.tasks("L1", "test")]
    for number, task in enumerate(random.Random(0).sample(tasks, 50)):
        trunk, actions, seen, forks = world.make(), world.make().reset(task).actions, [], {}
        trunk.reset(task)
        for depth in range(1, max(DEPTHS) + 1):
            seen += walk(trunk, actions, seed=100 * number + depth, steps=1)
            actions = seen[-1][1].actions
            if depth in DEPTHS:
                forks[depth] = trunk.fork()
        for depth, fork in forks.items():
            sibling = fork.fork()
            rest = walk(fork.fork(), seen[depth - 1][1].actions, seed=number, steps=4)
            assert repeat(fork, rest, between=lambda sibling=sibling: walk(sibling, ("look", "inventory"), 0, 1)) == rest
            replayed = world.make()
            replayed.reset(task)
            assert repeat(replayed, seen[:depth] + rest) == seen[:depth] + rest
            if depth == DEPTHS[number % 3]:  # an engine of its own, killed on the way
                other = far.make()
                other.reset(task)
                assert repeat(other, seen[:depth]) == seen[:depth]
                os.kill(worker_of(far, task), signal.SIGKILL)
                assert repeat(other, rest) == rest


_EPISODES = """
    import random, sys
    from pathlib import Path
    from spark_rl.environments.alfworld import Alfworld
    world, rng = Alfworld(data=sys.argv[1], engines=4), random.Random(0)
    tasks = rng.sample([*world.tasks("L0", "test"), *world.tasks("L1", "test")], 200)
    files = {task.id: Path(sys.argv[1], "json_2.1.1", task.id, "game.tw-pddl").stat().st_size for task in tasks}
    for task in sorted(tasks, key=lambda task: -files[task.id]):
        env = world.make()
        observation = env.reset(task)
        for _ in range(10):
            observation = env.fork().step(rng.choice(observation.actions))
        print(next(line for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line).split()[1])
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="resident memory is read from /proc")
def test_memory_stays_flat_over_200_episodes(alfworld_games: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_EPISODES), alfworld_games], capture_output=True, text=True, check=True
    )
    memory = [int(size) for size in done.stdout.split()]
    # Larger games take more, so the largest come first: what grows after them is a leak.
    early, late = median(memory[50:100]), median(memory[150:])
    assert abs(late - early) <= 0.1 * early, (early, late)
