import random
from dataclasses import replace

import numpy as np
import pytest
from grown import grown, shapes
from hypothesis import given
from hypothesis import strategies as st
from trees import TASK, draw, node

from spark_rl.advantage.group import GroupMean
from spark_rl.errors import PolicyFailure, UsageError
from spark_rl.learning.batch import pack, packed_sequences
from spark_rl.objective.rewards import Rewards
from spark_rl.types import Credit, Tree


def credits(trees):
    return [Rewards().credit(tree, GroupMean()) for tree in trees]


def forest(count, append, seed=0):
    rng = random.Random(seed)
    forks = [[rng.randint(max(-1, index - 4), index - 1) for index in range(rng.randint(1, 12))] for _ in range(count)]
    return [grown(shape, append, seed + number) for number, shape in enumerate(forks)]


def hand_made() -> Tree:
    """A root whose two children continue it; a third child was shown something else (its prompt had been shortened)."""
    tree = draw([-1, 0, 0, 0])
    tokens = [((1, 2), (3, 4)), ((1, 2, 3, 4, 5), (6,)), ((1, 2, 3, 4, 5), (7, 8)), ((9, 5), (6,))]
    for index, (prompt, completion) in enumerate(tokens):
        tree.nodes[index] = replace(
            tree.nodes[index], prompt=prompt, completion=completion, logprobs=tuple(-0.1 * token for token in completion)
        )
    return tree


def test_only_true_extensions_share_a_row():
    rows = packed_sequences([hand_made()])
    assert [row.nodes for row in rows] == [(0, 1), (2,), (3,)]
    assert [row.tokens.tolist() for row in rows] == [[1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 7, 8], [9, 5, 6]]
    assert [np.flatnonzero(row.sampled).tolist() for row in rows] == [[2, 3, 5], [5, 6], [2]]


def test_each_sampled_token_has_its_node_s_credit():
    credit = Credit(positive=(3, 1, 2, 0), negative=(-1, 0, 0, -1), weight=(3, 1, 1, 1))
    batch = pack([hand_made()], [credit])
    first, second, third = batch.targets
    assert first.positive.tolist() == [3, 3, 1]
    assert first.negative.tolist() == [-1, -1, 0]
    assert first.weight.tolist() == [3, 3, 1]
    assert first.length.tolist() == [2, 2, 1]
    assert first.sampling.tolist() == first.old.tolist() == pytest.approx([-0.3, -0.4, -0.6])
    assert second.positive.tolist() == [2, 2]
    assert third.negative.tolist() == [-1]
    assert (batch.tokens, batch.sampled) == (16, 6)


@given(shapes(), st.integers(0, 99))
def test_appended_contexts_give_a_row_a_leaf(shape, seed):
    tree = grown(shape, append=True, seed=seed)
    rows = packed_sequences([tree])
    assert sorted(row.nodes[-1] for row in rows) == tree.leaves()
    longest = {leaf: len(tree.nodes[leaf].prompt) + len(tree.nodes[leaf].completion) for leaf in tree.leaves()}
    assert sum(map(len, rows)) == sum(longest.values())


@given(shapes(), st.integers(0, 99))
def test_prompts_rendered_afresh_give_a_row_a_node(shape, seed):
    tree = grown(shape, append=False, seed=seed)
    rows = packed_sequences([tree])
    assert [row.nodes for row in rows] == [(index,) for index in range(len(shape))]
    assert sum(map(len, rows)) == sum(len(node.prompt) + len(node.completion) for node in tree.nodes)


@given(st.lists(shapes(), min_size=1, max_size=3), st.booleans(), st.integers(0, 99))
def test_every_node_is_trained_once_on_what_it_read_and_said(forks, append, seed):
    trees = [grown(shape, append, seed + number) for number, shape in enumerate(forks)]
    batch = pack(trees, credits(trees))
    seen: list[tuple[int, int]] = []
    for row, targets in zip(batch.rows, batch.targets, strict=True):
        ends = np.flatnonzero(row.sampled)
        for number in row.nodes:
            node = trees[row.tree].nodes[number]
            where, ends = ends[: len(node.completion)], ends[len(node.completion) :]
            assert tuple(row.tokens[where]) == node.completion
            assert tuple(row.tokens[: where[0]]) == node.prompt
            seen.append((row.tree, number))
        assert len(ends) == 0
        assert len(targets.old) == row.sampled.sum()
    assert sorted(seen) == [(index, number) for index, tree in enumerate(trees) for number in range(len(tree.nodes))]
    assert batch.sampled == sum(len(node.completion) for tree in trees for node in tree.nodes)


@pytest.mark.parametrize("count", [1, 3, 50])
@pytest.mark.parametrize("seed", [None, 7])
def test_minibatches_are_whole_trees_of_about_equal_tokens(count, seed):
    trees = forest(9, append=True)
    batch = pack(trees, credits(trees))
    parts = batch.minibatches(count, None if seed is None else random.Random(seed))
    homes = [{row.tree for row in part.rows} for part in parts]
    assert len(parts) == min(count, 9)
    assert sorted(tree for home in homes for tree in home) == list(range(9))
    assert sum(part.tokens for part in parts) == batch.tokens
    largest = max(sum(len(row) for row in batch.rows if row.tree == tree) for tree in range(9))
    assert max(part.tokens for part in parts) - min(part.tokens for part in parts) <= largest


def test_one_seed_one_split():
    trees = forest(9, append=False)
    batch = pack(trees, credits(trees))
    split = [[[row.tree for row in part.rows] for part in batch.minibatches(3, random.Random(seed))] for seed in (1, 1, 2)]
    assert split[0] == split[1] != split[2]


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"completion": (), "logprobs": ()}, "no completion tokens"),
        ({"prompt": ()}, "no prompt tokens"),
        ({"logprobs": ()}, "0 log-probabilities for 2 sampled"),
    ],
)
def test_what_was_not_sampled_as_tokens_is_refused(changes, cause):
    tree = Tree(TASK, "start", nodes=[node(-1, (0,), **changes)])
    with pytest.raises(PolicyFailure, match=rf'"drawn/1", step \[0\] has {cause}'):
        pack([tree], credits([tree]))


def test_demonstrations_need_no_log_probabilities():
    tree = Tree(TASK, "start", nodes=[node(-1, (0,), logprobs=())])
    assert [row.sampled.tolist() for row in packed_sequences([tree])] == [[False, False, True, True]]


def test_nothing_gives_nothing():
    batch = pack([], [])
    assert (batch.rows, batch.tokens, batch.minibatches(4)) == ((), 0, [])


def test_a_count_below_one_is_refused():
    with pytest.raises(UsageError, match="minibatches is 0"):
        pack([], []).minibatches(0)
