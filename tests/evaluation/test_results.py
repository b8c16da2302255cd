"""A result and its JSON: the names that files hold, there and back, and what older files hold."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from typing import Any

import pytest
from trees import draw

from spark_rl.errors import StorageError
from spark_rl.evaluation.episodes import Played, episode
from spark_rl.evaluation.lookahead import majority
from spark_rl.evaluation.results import (
    KindResult,
    LevelResult,
    Mean,
    conclude,
    development,
    from_json,
    levels_from_json,
    levels_to_json,
    to_json,
)
from spark_rl.evaluation.tables import report
from spark_rl.types import Spent, Task

NAMES = [
    "success", "low", "high", "wins", "tasks", "samples", "episodes", "score", "steps", "steps_won", "explore_ratio",
    "malformed_ratio", "inadmissible_ratio", "invalid_ratio", "repetitive_ratio", "truncated_ratio", "empty_ratio", "tokens",
    "env_steps", "prefilled", "reused", "discarded", "failed", "failures", "kinds", "averages",
]  # fmt: skip
"""What eval.json has had since its first version with `averages`, in order."""


def result(*, chosen: bool = False, pass_at: tuple[int, ...] = ()) -> LevelResult:
    """Three tasks of two types: one won, one lost, one whose environment failed; with progress."""
    tasks = [Task("drawn", f"drawn/{i}", "", kind) for i, kind in enumerate(("find", "bring", "bring"))]
    won, lost = draw([-1, -1, 0], {1: 0.0, 2: 1.0}) if chosen else draw([-1, 0], {1: 1.0}), draw([-1], {0: 0.0})
    won.task, lost.task = tasks[0], tasks[1]
    lost.nodes[-1].progress = {"score": 0.25}
    played = Played(failures=["drawn/2: the door is stuck"])
    choose = majority if chosen else None
    played.add(tasks, 0, [episode(won, 0, choose), episode(lost, 0, choose)], Spent(generated=7, env_steps=3, reused=2))
    return conclude(tasks, played, pass_at=pass_at)


def test_a_file_holds_these_names_in_this_order():
    assert list(to_json(result())) == NAMES
    assert list(to_json(result(pass_at=(1,)))) == [*NAMES, "pass_at"]
    saved: Any = to_json(result(chosen=True, pass_at=(1,)))
    assert list(saved) == [*NAMES, "pass_at", "branching"]
    assert list(saved["branching"]) == [
        "leaves", "by_majority", "by_likelihood", "alone", "gained", "lost", "pass_at_leaves", "alone_tokens", "alone_steps",
    ]  # fmt: skip
    assert saved["kinds"] == {"bring": {"wins": 0, "tasks": 2}, "find": {"wins": 1, "tasks": 1}}
    assert saved["averages"]["score"] == {"tasks": 0.25 / 3, "types": 0.0625}
    assert saved["failures"] == ["drawn/2: the door is stuck"]


@pytest.mark.parametrize("chosen", [False, True])
@pytest.mark.parametrize("pass_at", [(), (1,)])
def test_there_and_back(chosen, pass_at):
    levels = {"L0": result(chosen=chosen, pass_at=pass_at), "L1": result()}
    assert levels_from_json(json.loads(json.dumps(levels_to_json(levels)))) == levels


def test_every_number_of_the_class_is_written_and_read():
    """So that a field which is added needs no line in `to_json` or `from_json`."""
    whole = result(chosen=True, pass_at=(1,))
    assert list(to_json(whole)) == [each.name for each in fields(LevelResult)]
    for number, each in enumerate(fields(LevelResult)):
        if each.type in ("int", "float"):
            other = replace(whole, **{each.name: number + 1000})
            assert from_json(to_json(other)) == other != whole


def test_what_an_older_version_wrote_is_read_and_shown():
    old = {"success": 0.5, "low": 0.1, "high": 0.9, "wins": 2, "tasks": 4, "kinds": {"": {"wins": 2, "tasks": 4}}, "odd": 1}
    found = from_json(old)
    assert (found.success, found.samples, found.episodes, found.failed, found.reused) == (0.5, 1, 4, 0, 0)
    assert found.kinds == {"": KindResult(2, 4)}
    assert (found.averages, found.pass_at, found.branching, found.failures) == ({}, {}, None, ())
    assert math.isnan(found.steps)
    assert math.isnan(found.invalid_ratio)
    assert "| L0 | 0.500 | 0.100 to 0.900 | 2/4 | nan |" in report({"L0": found})
    assert from_json(old | {"samples": 3}).episodes == 12
    assert math.isnan(from_json({"averages": {"score": {"tasks": 0.5}}}, needed=()).averages["score"].types)
    assert from_json({"averages": {"score": {"tasks": 0.5, "types": 1}}}, needed=()).averages == {"score": Mean(0.5, 1)}


@pytest.mark.parametrize(
    ("saved", "says"),
    [
        ([], "must be an object"),
        (None, "must be an object"),
        ({"wins": 1}, "has no success"),
        ({"success": None, "low": 0, "high": 1, "wins": 0, "tasks": 1}, "cannot be read"),
        ({"success": 1, "low": 0, "high": 1, "wins": 0, "tasks": "many"}, "cannot be read"),
        ({"success": 1, "low": 0, "high": 1, "wins": 0, "tasks": 1, "kinds": [1]}, "cannot be read"),
        ({"success": 1, "low": 0, "high": 1, "wins": 0, "tasks": 1, "branching": 3}, "cannot be read"),
    ],
)
def test_what_is_no_result_is_said_in_a_sentence(saved, says):
    with pytest.raises(StorageError, match=says):
        levels_from_json({"L0": saved})


def test_the_development_slice_of_a_row():
    whole = result()
    assert development(whole) == {
        "dev_success": 1 / 3,
        "dev_low": whole.low,
        "dev_high": whole.high,
        "dev_steps": 1.5,
        "dev_invalid_ratio": 0.0,
    }
