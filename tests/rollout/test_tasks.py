"""Which tasks an iteration trains on."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.errors import UsageError
from spark_rl.rollout.tasks import choose_tasks
from spark_rl.types import Task


def split(size: int) -> list[Task]:
    return [Task("drawn", f"drawn/{number}", "") for number in range(size)]


@given(size=st.integers(1, 12), count=st.integers(1, 30), iterations=st.integers(1, 6), seed=st.integers(0, 9))
def test_every_epoch_holds_each_task_once(size, count, iterations, seed):
    tasks = split(size)
    chosen = [choose_tasks(tasks, count, seed=seed, iteration=i) for i in range(1, iterations + 1)]
    assert {len(part) for part in chosen} == {count}
    flat = [task.id for part in chosen for task in part]
    for first in range(0, len(flat) - size + 1, size):
        assert len(set(flat[first : first + size])) == size
    often = Counter(flat).values()
    assert max(often) - min(often) <= 1 or len(often) < size


def test_epochs_differ_in_order_and_so_do_seeds():
    first, second, other = (
        [task.id for task in choose_tasks(split(20), 20, seed=seed, iteration=iteration)]
        for seed, iteration in ((0, 1), (0, 2), (1, 1))
    )
    assert sorted(first) == sorted(second) == sorted(other)
    assert len({tuple(first), tuple(second), tuple(other), tuple(sorted(first))}) == 4


def test_nothing_to_train_on_is_said():
    with pytest.raises(UsageError, match="the training split is empty; choose another level"):
        choose_tasks([], 4, seed=0, iteration=1)
