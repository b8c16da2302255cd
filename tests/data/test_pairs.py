"""Pairs: which failure meets which success, what of both counts, and the file."""

from __future__ import annotations

from dataclasses import replace

import shown
from trees import TASK, draw, node

from spark_rl.data.format import Demonstration, Origin, load
from spark_rl.data.pairs import Pair, pair_up, save_pairs
from spark_rl.prompting.prompt import Prompt
from spark_rl.types import Task, Tree

PLAYED = Origin(source="played", author="somebody")
EXPERT = Demonstration(draw([-1], {0: 1}), origin=Origin(author="an expert"))


def episodes() -> Tree:
    """Five of one task: nodes 0, 1 and 4 are lost in one step, 2 and 3 are won in one."""
    return draw([-1] * 5, {0: 0, 1: 0, 2: 1, 3: 1, 4: 0})


def test_every_failure_meets_the_demonstration_of_its_task():
    pairs = pair_up([episodes()], PLAYED, {TASK.id: EXPERT})
    assert [pair.won for pair in pairs] == [EXPERT] * 3
    assert [pair.lost.tree.nodes[0].path for pair in pairs] == [(0,), (1,), (4,)]
    assert all(pair.lost.origin == PLAYED for pair in pairs)


def test_failures_meet_own_wins_in_turn():
    pairs = pair_up([episodes()], PLAYED)
    assert [(pair.won.tree.nodes[0].path, pair.lost.tree.nodes[0].path) for pair in pairs] == [
        ((2,), (0,)),
        ((3,), (1,)),
        ((2,), (4,)),
    ]


def test_without_a_success_or_a_failure_there_is_no_pair():
    elsewhere = replace(episodes(), task=Task("drawn", "drawn/2", "find the key"))
    assert pair_up([elsewhere], PLAYED, {TASK.id: EXPERT}) == []
    assert pair_up([draw([-1, -1], {0: 0, 1: 0})], PLAYED) == []
    assert pair_up([draw([-1, -1], {0: 1, 1: 1})], PLAYED, {TASK.id: EXPERT}) == []


def test_what_was_refused_on_the_way_to_a_win_is_not_to_be_said_and_on_the_way_to_a_failure_it_counts():
    tree = draw([-1, 0, -1, 2], {1: 1, 3: 0})
    for first in (0, 2):
        tree.nodes[first] = node(-1, (first // 2,), admissible=False)
    (pair,) = pair_up([tree], PLAYED)
    assert pair.won.slips == {0}
    assert pair.lost.slips == frozenset()


def test_a_file_holds_each_success_before_its_failure(tmp_path):
    won, lost = shown.won(2), shown.lost()
    save_pairs([Pair(won[0], lost[0]), Pair(won[1], lost[1])], tmp_path / "pairs.jsonl", Prompt())
    found = load(tmp_path / "pairs.jsonl")
    assert [one.won for one in found] == [True, False, True, False]
    assert [one.tree.task.id for one in found] == [one.tree.task.id for one in (won[0], lost[0], won[1], lost[1])]
    assert [node.text for node in found[1].tree.nodes] == [node.text for node in lost[0].tree.nodes]
