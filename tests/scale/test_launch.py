"""Commands that start ranks: killed and resumed by other numbers of them, torchrun's own launcher, errors in a sentence."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import tiny
from processes import children, until
from ranked import STEADY, TORCHRUN, apart, begin, finish, sampled

from spark_rl import load_forest
from spark_rl.learning.trainer import train
from spark_rl.models.load import load_model
from spark_rl.runs.run import Run

pytestmark = pytest.mark.slow


def test_a_run_goes_on_with_other_ranks_after_one_was_killed(tmp_path):
    """Two ranks, one of which is killed; then one process, which is interrupted; then three ranks: one and the same run."""
    run, whole = (tiny.start(tmp_path / name, iterations=6, **STEADY) for name in ("run", "whole"))
    train(whole, tiny.Log())

    process = begin("train", "--resume", run.directory, "--scale.ranks", 2, "--yes")
    until((run.checkpoints / "000001").exists, process)
    ranks = children(process.pid)
    assert len(ranks) == 2
    os.kill(ranks[1], signal.SIGKILL)
    code, err = finish(process)
    assert code == 2
    assert "was killed (signal 9); what was saved is whole: go on with spark-rl train --resume" in err
    assert "Traceback" not in err
    assert not any(Path(f"/proc/{rank}").exists() for rank in ranks)

    done = max(int(path.name) for path in run.checkpoints.glob("0*"))
    assert done < 4
    with pytest.raises(KeyboardInterrupt):
        train(Run.open(run.directory), tiny.Log(stop_after=done + 2))
    assert (run.checkpoints / f"{done + 1:06d}").exists()
    code, err = finish(begin("train", "--resume", run.directory, "--scale.ranks", 3, "--yes"))
    assert code == 0, err

    for iteration in range(1, 7):
        one, other = (load_forest(each.directory, iteration) for each in (whole, run))
        assert [sampled(tree) for tree in one] == [sampled(tree) for tree in other]
    before, expected, found = (
        load_model(each).state_dict()
        for each in (run.checkpoints / "cold-start", whole.checkpoints / "000006", run.checkpoints / "000006")
    )
    assert apart(expected, found, before) < 1e-4
    assert [row["iteration"] for row in Run.open(run.directory).metrics()] == list(range(1, 7))


def test_torchrun_starts_ranks_as_well(tmp_path):
    """From nothing: demonstrations, cold start, evaluation and training in two ranks of somebody else's launcher."""
    code, err = finish(begin("train", "tiny:recipe", "--iterations", 1, "--out", tmp_path / "run", "--yes", by=TORCHRUN))
    assert code == 0, err
    run = Run.open(tmp_path / "run")
    assert run.finished
    assert len(load_forest(run.directory, 1)) == tiny.RECIPE.tasks_per_iteration
    assert [row["iteration"] for row in run.metrics()] == [1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--scale.ranks", 3), "scale.ranks is 3, more than the 2 tasks of an iteration: lower it, or raise --tasks-per"),
        (("--scale.ranks", 2, "--tree.cap", 6), "with 1 pools 2 ranks cannot: set --tree.pool 1 or lower, or --tree.cap 0"),
    ],
)
def test_what_ranks_cannot_do_is_one_sentence(words, sentence, tmp_path):
    run = tiny.start(tmp_path / "run")
    code, err = finish(begin("train", "--from", run.directory, *words, "--out", tmp_path / "other", "--yes"))
    assert code == 2
    assert err.count("spark-rl: ") == 1
    assert sentence in err.splitlines()[-1]
    assert "{" not in err.splitlines()[-1]
    assert "Traceback" not in err
