"""The bookkeeping of kept keys and values, without a model."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.engines.local.cache import Entry, Layout, PrefixCache

LAYOUT = Layout(layers=2, heads=2, width=3, dtype=torch.float32, device=torch.device("cpu"))


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int32)


def cache(tokens: int) -> PrefixCache:
    return PrefixCache(LAYOUT, tokens * LAYOUT.bytes)


def test_a_token_is_two_states_of_every_layer() -> None:
    assert LAYOUT.bytes == 2 * 2 * 2 * 3 * 4
    assert cache(10).capacity == 10


def test_sequences_share_the_slots_of_their_prefix() -> None:
    kept = cache(6)
    head = kept.reserve(3)
    assert head is not None
    for name in "ab":
        tail = kept.reserve(1)
        assert tail is not None
        kept.put(name, Entry(ids(1, 2, 3, 4), np.concatenate([head, tail])))
        kept.release(tail)
    kept.release(head)
    assert kept.left == 1
    kept.find("a")  # a use: "b" is now the oldest
    assert kept.reserve(2) is not None
    assert list(kept.entries) == ["a"]
    assert kept.left == 0


def test_what_is_held_is_never_given_out() -> None:
    kept = cache(4)
    first = kept.reserve(3)
    assert first is not None
    kept.put("a", Entry(ids(1, 2, 3), first))
    assert kept.reserve(2) is None  # evicting "a" frees nothing while its slots are held
    kept.release(first)
    again = kept.reserve(4)
    assert again is not None
    assert sorted(again) == [1, 2, 3, 4]  # slot 0 is padding
    assert kept.reserve(5) is None


def test_low_slots_are_used_first_so_that_memory_grows_with_use() -> None:
    kept = cache(1000)
    slots = kept.reserve(3)
    assert slots is not None
    assert max(slots) == 3


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6), st.integers(0, 5)), max_size=40), st.integers(0, 15))
def test_every_slot_is_free_or_held_and_none_twice(calls: list[tuple[int, int, int]], capacity: int) -> None:
    kept = cache(capacity)
    for address, count, parent in calls:
        entry = kept.find(parent)
        prefix = entry.slots[: count // 2] if entry else ids()
        kept.hold(prefix)
        if (new := kept.reserve(count)) is not None:
            assert not set(new) & set(prefix)
            kept.put(address, Entry(ids(*range(len(prefix) + count)), np.concatenate([prefix, new])))
            kept.release(new)
        kept.release(prefix)
        holders = np.zeros(capacity + 1, int)
        for item in kept.entries.values():
            assert len(set(item.slots)) == len(item.slots)
            holders[item.slots] += 1
        assert (holders == kept.held).all()
        assert sorted(kept.free[: kept.left]) == list(np.flatnonzero(holders[1:] == 0) + 1)
