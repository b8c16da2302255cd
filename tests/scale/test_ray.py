"""Runs whose trees grow on actors of Ray: workers that are killed or hang, a driver that is killed, errors in a sentence."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
from processes import descendants, gone, until
from ranked import ENVIRONMENT, STEADY, apart, begin, finish, sampled

from spark_rl import load_forest
from spark_rl.learning.trainer import train
from spark_rl.models.load import load_model
from spark_rl.runs.run import Run
from spark_rl.scale.ray_crew import laid_out, taken_up

pytest.importorskip("ray", reason='Ray is not installed: pip install -e ".[ray]"')
slow = pytest.mark.slow

ITERATIONS = 8
# Each test starts a cluster of its own on random ports of 127.0.0.1.
RAY = "--scale.executor", "ray", "--scale.workers", 2
ACTOR = "ray::_Worker"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of one process."""
    run = tiny.start(tmp_path_factory.mktemp("whole") / "run", iterations=ITERATIONS, **STEADY)
    train(run, tiny.Log())
    return run


def actors(driver: int) -> list[int]:
    """Ids of the workers of a process."""
    return sorted(process for process, words in descendants(driver).items() if words.startswith(ACTOR))


def listening(processes: list[int]) -> set[str]:
    """Addresses at which processes take connections, as the kernel writes them."""
    sockets = set[str]()
    for process in processes:
        for entry in Path(f"/proc/{process}/fd").iterdir():
            try:
                sockets |= set(re.findall(r"socket:\[(\d+)\]", str(entry.readlink())))
            except OSError:
                continue
    rows = [line.split() for table in ("tcp", "tcp6") for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets}


def same(whole: Run, run: Run) -> None:
    """The run of one process: trees, costs, weights."""
    for iteration in range(1, ITERATIONS + 1):
        one, other = (load_forest(each.directory, iteration) for each in (whole, run))
        assert [sampled(tree) for tree in one] == [sampled(tree) for tree in other]
        assert one.spent.env_steps == other.spent.env_steps
        assert one.spent.generated == other.spent.generated
    before, expected, found = (
        load_model(each).state_dict()
        for each in (run.checkpoints / "cold-start", *(each.checkpoints / f"{ITERATIONS:06d}" for each in (whole, run)))
    )
    assert apart(expected, found, before) < 1e-4
    assert [row["iteration"] for row in run.metrics()] == list(range(1, ITERATIONS + 1))


def restarts(run: Run) -> int:
    return sum(load_forest(run.directory, iteration).spent.restarts for iteration in range(1, ITERATIONS + 1))


@slow
def test_a_worker_is_killed_and_the_run_goes_on(whole, tmp_path):
    run = tiny.start(tmp_path / "run", iterations=ITERATIONS, **STEADY)
    process = begin("train", "--resume", run.directory, *RAY, "--yes")
    until((run.checkpoints / "000001").exists, process)
    workers, everyone = actors(process.pid), [*descendants(process.pid)]
    assert len(workers) == 2
    assert listening([process.pid, *everyone]) <= {"0100007F", "0000000000000000FFFF00000100007F"}, "loopback alone"
    os.kill(workers[1], signal.SIGKILL)
    code, err = finish(process)
    assert code == 0, err
    assert len(re.findall(r"worker \d died and was started anew; its trees grow again", err)) == 1, err
    assert "Traceback" not in err
    assert gone(everyone), "the cluster ends with the run"
    same(whole, run)
    assert restarts(run) == 1


@slow
def test_a_worker_that_hangs_is_started_anew(whole, tmp_path):
    run = tiny.start(tmp_path / "run", iterations=ITERATIONS, **STEADY)
    process = begin("train", "--resume", run.directory, *RAY, "--scale.timeout", 20, "--yes")
    until((run.checkpoints / "000001").exists, process)
    os.kill(actors(process.pid)[0], signal.SIGSTOP)
    code, err = finish(process)
    assert code == 0, err
    assert re.search(r"worker \d gave no answer for 20 s and was started anew; its trees grow again", err), err
    same(whole, run)
    assert restarts(run) >= 1


HANGING = """
import asyncio, os, signal, sys
from dataclasses import replace
from pathlib import Path

import tiny
from processes import descendants

from spark_rl.config.recipe import Scale
from spark_rl.contracts import ModelSource
from spark_rl.scale.ray_crew import crew

async def main():
    recipe = replace(tiny.RECIPE, scale=Scale(executor="ray", timeout=5.0))
    async with crew(recipe, ModelSource(name=Path(sys.argv[1]), threads=1), print) as workers:
        found = [process for process, words in descendants(os.getpid()).items() if words.startswith("ray::_Worker")]
        os.kill(found[0], signal.SIGSTOP)
        await workers.finish(1)
        print(*found)

asyncio.run(main())
"""


@slow
def test_a_worker_that_hangs_between_two_forests_holds_nobody_up():
    """It is told that a forest is finished, then that the run ends, and answers neither."""
    model = tiny.finished()[0].checkpoints / "cold-start"
    path = os.pathsep.join([str(Path(tiny.__file__).parent), ENVIRONMENT.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", HANGING, model],
        env=ENVIRONMENT | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    workers = [int(word) for word in done.stdout.split()]
    assert len(workers) == 2
    assert gone(workers)


@slow
def test_the_driver_is_killed_and_one_process_goes_on(whole, tmp_path):
    run = tiny.start(tmp_path / "run", iterations=ITERATIONS, **STEADY)
    process = begin("train", "--resume", run.directory, *RAY, "--yes")
    until((run.checkpoints / "000002").exists, process)
    everyone = [*descendants(process.pid)]
    os.kill(process.pid, signal.SIGKILL)
    finish(process)
    assert gone(everyone), "no process is left behind"
    train(Run.open(run.directory), tiny.Log())
    same(whole, run)


@slow
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("--scale.workers", 3),
            "scale.workers is 3, more than the 2 tasks of an iteration: lower it, or raise",
        ),
        (("--scale.ranks", 2), "scale.ranks is 2 and scale.executor ray: ranks grow their own trees"),
        (
            ("--scale.address", "127.0.0.1:9"),
            "no Ray cluster answers at scale.address 127.0.0.1:9: start one with",
        ),
        (("--scale.workers", 0), "scale.workers"),
    ],
)
def test_what_workers_cannot_do_is_one_sentence(words, sentence, tmp_path):
    code, err = finish(begin("train", "tiny:recipe", *RAY, *words, "--out", tmp_path / "run", "--yes"))
    assert code == 2
    assert err.count("spark-rl: ") == 1
    assert sentence in err.splitlines()[-1]
    assert "Traceback" not in err


@slow
def test_a_missing_extra_is_named_before_anything_is_spent(tmp_path):
    (tmp_path / "ray.py").write_text("raise ImportError\n")
    path = os.pathsep.join([str(tmp_path), ENVIRONMENT.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "spark_rl", "train", "tiny:recipe", *map(str, RAY), "--out", tmp_path / "run", "--yes"],
        env=ENVIRONMENT | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert 'needs the extra "ray": pip install "spark-rl[ray]"' in done.stderr
    assert not (tmp_path / "run" / "demonstrations.jsonl.gz").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_laid_out_are_taken_up_as_they_were(dtype):
    """A tied weight is laid out once."""
    tied = torch.randn(5, 3).to(dtype)
    weights = {"embed": tied, "head": tied, "scalar": torch.tensor(2.0), "part": torch.randn(4, 4).to(dtype)[:, 1]}
    laid = laid_out(weights)
    assert laid["embed"][2] is laid["head"][2]
    found = taken_up(laid)
    assert list(found) == list(weights)
    for name, value in weights.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)
