from dataclasses import replace

import pytest
from grown import chains, ended, shapes, unshared
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.advantage.tags import Tags


def advantages(credit):
    return [up + down for up, down in zip(credit.positive, credit.negative, strict=True)]


def change(tree, index, **flags):
    tree.nodes[index] = replace(tree.nodes[index], **flags)


def test_a_plan_is_worth_what_came_of_it():
    """Three steps of a win, one of a failure: 1, 1, 1, 0, mean 0.75, std 0.5."""
    assert advantages(Tags(weight=1, std=False)(chains([3, 1], [10, 0]))) == [0.25, 0.25, 0.25, -0.75]
    assert advantages(Tags()(chains([3, 1], [10, 0]))) == pytest.approx([0.25, 0.25, 0.25, -0.75], abs=1e-5)


def test_exploring_is_trying_something_new():
    """Four exploring steps of two trajectories that both fail: go, go again, stay; go, new on its own trajectory."""
    tree = chains([3, 1], [0, 0])
    for index, action in enumerate(["go", "go", "stay", "go"]):
        change(tree, index, mode="explore", action=action)
    assert advantages(Tags(weight=1, std=False)(tree)) == [0.25, -0.75, 0.25, 0.25]


def test_thinking_after_a_refusal_is_to_do_something_else():
    """Two refused first steps; one goes on with another action, one insists. Their first steps are plans that failed."""
    tree = chains([2, 2], [0, 0])
    for index in (0, 2):
        change(tree, index, admissible=False)
    change(tree, 1, action="stay")
    assert advantages(Tags(weight=1, std=False)(tree)) == [0, 0.5, 0, -0.5]


def test_a_malformed_step_has_no_tag_and_took_no_action():
    tree = chains([2, 1], [0, 0])
    change(tree, 0, well_formed=False, mode="explore")
    for index, action in ((1, "go"), (2, "go")):
        change(tree, index, mode="explore", action=action)
    assert advantages(Tags()(tree)) == [0, 0, 0]  # both explored: "go" counts as taken nowhere before


def test_a_shared_plan_came_true_on_one_of_two_trajectories():
    credit = Tags(weight=1, std=False)(ended([-1, 0, 0], [10, 0]))
    assert (credit.positive, credit.negative, credit.weight) == ((0.5, 0.5, 0), (-0.5, 0, -0.5), (2, 1, 1))


@given(shapes(), st.data())
def test_sharing_steps_changes_nothing(shape, data):
    leaves = len(ended(shape).leaves())
    tree = ended(shape, data.draw(st.lists(st.sampled_from([0.0, 10.0]), min_size=leaves, max_size=leaves)))
    for index in range(len(shape)):
        change(tree, index, mode=data.draw(st.sampled_from(["explore", "think"])), action=data.draw(st.sampled_from("ab")))
        change(tree, index, admissible=data.draw(st.booleans()), well_formed=data.draw(st.booleans()))
    apart = unshared(tree)
    shared, copied = advantages(Tags()(tree)), advantages(Tags()(apart))
    assert [shared[leaf] for leaf in tree.leaves()] == pytest.approx([copied[leaf] for leaf in apart.leaves()])
    assert sum(shared) == pytest.approx(sum(copied), abs=1e-9)


# -- in RLVMR's own modes ---------------------------------------------------------------------------------------------------


def test_a_plan_is_judged_by_the_outcome_and_a_monitor_not_at_all():
    """Plans of a win and of two failures: 1, 0, 0, mean 1/3. What is monitored in between learns nothing here."""
    tree = chains([2, 2, 1], [10, 0, 0])
    for index, mode in enumerate(["planning", "monitor", "planning", "monitor", "planning"]):
        change(tree, index, mode=mode)
    assert advantages(Tags(weight=1, std=False)(tree)) == pytest.approx([2 / 3, 0, -1 / 3, 0, -1 / 3])
    # Unbiased deviation of 1, 0, 0: sqrt(1/3).
    assert advantages(Tags()(tree)) == pytest.approx([0.5 * 2 / 3**0.5, 0, -0.5 / 3**0.5, 0, -0.5 / 3**0.5], abs=1e-5)


def test_a_reflection_is_worth_another_action_after_a_refused_one():
    """Five reflections: refused and changed, refused and insisted, nothing refused, malformed and changed, at the start."""
    tree = chains([2, 2, 2, 2, 1], [0, 0, 0, 0, 0])
    for index in (0, 2, 4, 6):
        change(tree, index, mode="monitor", action="go")
    change(tree, 0, admissible=False)
    change(tree, 2, admissible=False)
    change(tree, 6, well_formed=False)
    for index, action in ((1, "stay"), (3, "go"), (5, "stay"), (7, "stay"), (8, "go")):
        change(tree, index, mode="reflection", action=action)
    # Rewards 1, 0, 0, 1, 0 with mean 0.4.
    assert advantages(Tags(weight=1, std=False)(tree)) == pytest.approx([0, 0.6, 0, -0.4, 0, -0.4, 0, 0.6, -0.4])


def test_modes_are_compared_with_their_own():
    """A plan of a failure beside an exploring step of it: each is alone in its mode and learns nothing."""
    tree = chains([3], [0])
    for index, mode in enumerate(["planning", "explore", "reflection"]):
        change(tree, index, mode=mode)
    assert advantages(Tags()(tree)) == [0, 0, 0]
