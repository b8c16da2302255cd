"""Packed numbers are those of the tuple they stand for, and what a sequence takes from another is held once."""

from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.common.packed import Packed, floats, ids

TOKENS = st.lists(st.integers(0, 2**31 - 1), max_size=8).map(tuple)


@given(st.lists(st.tuples(TOKENS, st.integers(0, 20)), min_size=1, max_size=6))
def test_a_chain_is_the_tuple_of_its_numbers(steps):
    packed, plain = ids(()), ()
    for new, kept in steps:
        plain = (*plain[:kept], *new)
        packed = ids(plain, packed)
        assert packed == plain
        assert plain == packed
        assert (len(packed), hash(packed), repr(packed)) == (len(plain), hash(plain), repr(plain))
        assert [packed[at] for at in range(-len(plain), len(plain))] == [*plain, *plain]
        assert packed[1:-1] == plain[1:-1]
        assert pickle.loads(pickle.dumps(packed)) == plain
        assert packed != (*plain, 1)


def test_what_two_prompts_share_is_held_once():
    first = ids((1, 2, 3))
    second = ids((1, 2, 3, 4, 5), first)
    assert (second.above, second.kept, second.new.tolist()) == (first, 3, [4, 5])
    other = ids((1, 2, 9), second)
    assert (other.kept, other.new.tolist()) == (2, [9])
    assert ids(first) is first


def test_every_float_comes_back_exactly():
    numbers = (-0.1, -1 / 3, 5e-324, float("inf"))
    assert floats(numbers) == numbers
    assert isinstance(floats(numbers), Packed)


def test_a_number_beyond_the_row_is_an_error():
    with pytest.raises(IndexError):
        ids((1,))[1]
    with pytest.raises(OverflowError):
        ids((2**31,))
