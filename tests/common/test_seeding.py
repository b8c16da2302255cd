"""Seeds from names."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spark_rl.common.seeding import derive

PARTS = st.lists(
    st.one_of(st.integers(-(2**70), 2**70), st.text(max_size=5), st.tuples(st.integers(0, 9), st.integers(0, 9))), max_size=4
)


def test_values_never_change_between_versions_or_machines():
    """Or no forest could be grown again from its seed."""
    assert derive() == 4090036724241674979
    assert derive(0, 1, "household/1", (0, 2, 1)) == 9185830473205938016


@given(PARTS, PARTS)
def test_other_parts_other_seeds(left, right):
    assert (derive(*left) == derive(*right)) == (left == right)
    assert 0 <= derive(*left) < 2**63


def test_parts_do_not_run_into_each_other():
    assert (
        len({derive("ab"), derive("a", "b"), derive(12), derive(1, 2), derive("12"), derive((1, 2)), derive((1,), 2)}) == 7
    )
