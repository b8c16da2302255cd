from dataclasses import replace

import pytest
from grown import chains, ended, shapes
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.advantage.anchors import Anchors
from spark_rl.errors import UsageError

OUTCOMES = st.sampled_from([0.0, 10.0])


def advantages(credit):
    return [up + down for up, down in zip(credit.positive, credit.negative, strict=True)]


def keyed(tree, keys):
    tree.nodes = [replace(node, state_key=key) for node, key in zip(tree.nodes, keys, strict=True)]
    return tree


@st.composite
def trees(draw):
    shape = draw(shapes())
    leaves = len(ended(shape).leaves())
    tree = ended(shape, draw(st.lists(OUTCOMES, min_size=leaves, max_size=leaves)))
    return keyed(tree, draw(st.lists(st.sampled_from("abc"), min_size=len(shape), max_size=len(shape))))


def test_steps_in_one_state_are_compared_by_what_came_after():
    """gamma 0.5. A win in 3 steps (returns 2.5, 5, 10 of its steps) passes state b twice; a failure begins there too."""
    tree = keyed(chains([3, 2], [10, 0]), "abbbc")
    credit = Anchors(gamma=0.5, std=False)(tree)
    assert advantages(credit) == [0, 0, 5, -5, 0]  # b: 5, 10 and 0, mean 5; a and c: alone
    assert credit.weight == (1.0,) * 5


def test_by_the_standard_deviation_of_the_state_and_the_weight():
    credit = Anchors(gamma=0.5, weight=2.0)(keyed(chains([3, 2], [10, 0]), "abbbc"))
    assert advantages(credit) == pytest.approx([0, 0, 2, -2, 0], abs=1e-5)


def test_a_shared_step_is_worth_the_mean_of_its_branches():
    """One state everywhere, gamma 0.5: the first step 0.5 * (10 + 0) / 2 = 2.5, its branches 10 and 0; mean 4.1667."""
    assert advantages(Anchors(gamma=0.5, std=False)(ended([-1, 0, 0], [10, 0]))) == pytest.approx(
        [-1.6667, 5.8333, -4.1667], abs=5e-5
    )


def test_bootstrapped_a_step_hears_of_what_others_met():
    """Two chains a1 b1 (wins) and a2 b2 (fails), states a and b; gamma 0.5, beta 0.5.

    Before: b 10 and 0, a 5 and 0. One sweep with m(b) = 5: a1 = .5 (.5 * 10 + .5 * 5) = 3.75, a2 = .5 (0 + 2.5) = 1.25.
    Terminal steps keep their reward, so further sweeps change nothing here.
    """
    tree = keyed(chains([2, 2], [10, 0]), "abab")
    assert advantages(Anchors(gamma=0.5, beta=0.5, sweeps=1, std=False)(tree)) == [1.25, 5, -1.25, -5]
    assert advantages(Anchors(gamma=0.5, beta=0.5, sweeps=3, std=False)(tree)) == [1.25, 5, -1.25, -5]


def test_each_sweep_reaches_one_state_further():
    """A win in 3 steps and a failure in 3, states a, b, c; gamma 1, beta 1: what follows is the state's mean alone.

    First sweep, m(b) = m(c) = 5: b 5 and 5, a 5 and 5. Only the last step tells them apart.
    """
    tree = keyed(chains([3, 3], [10, 0]), "abcabc")
    assert advantages(Anchors(gamma=1, beta=1, sweeps=1, std=False)(tree)) == [0, 0, 5, 0, 0, -5]
    assert advantages(Anchors(gamma=1, std=False)(tree)) == [5, 5, 5, -5, -5, -5]


def test_what_a_refused_action_led_to_is_no_anchor_by_option():
    tree = keyed(chains([2, 2], [10, 0]), "abcb")
    tree.nodes[0] = replace(tree.nodes[0], admissible=False)
    assert advantages(Anchors(std=False)(tree)) == [0, 5, 0, -5]
    assert advantages(Anchors(std=False, failed=False)(tree)) == [0, 0, 0, 0]


def test_settings_out_of_range_are_refused():
    with pytest.raises(UsageError, match=r"gamma is 1\.5"):
        Anchors(gamma=1.5)
    with pytest.raises(UsageError, match="sweeps is -1"):
        Anchors(sweeps=-1)


@given(trees(), st.booleans())
def test_credit_of_a_state_adds_up_to_nothing(tree, failed):
    credit = advantages(Anchors(beta=0.5, sweeps=2, failed=failed)(tree))
    for key in "abc":
        assert sum(c for c, node in zip(credit, tree.nodes, strict=True) if node.state_key == key) == pytest.approx(
            0, abs=1e-9
        )


@given(trees())
def test_what_states_are_called_does_not_matter(tree):
    renamed = keyed(replace(tree), [{"a": "z", "b": "x", "c": "y"}[node.state_key] for node in tree.nodes])
    assert advantages(Anchors()(renamed)) == advantages(Anchors()(tree))


@given(trees())
def test_without_beta_or_without_sweeps_it_is_gigpo_s(tree):
    assert Anchors(beta=0.5, sweeps=0)(tree) == Anchors(beta=0.0, sweeps=3)(tree) == Anchors()(tree)


@given(trees())
def test_failures_alone_carry_no_signal(tree):
    tree.nodes = [replace(node, reward=0.0) for node in tree.nodes]
    assert advantages(Anchors(beta=0.5, sweeps=3)(tree)) == [0.0] * len(tree.nodes)
