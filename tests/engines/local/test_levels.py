"""Where prompts are cut, and the slabs that hold their keys and values."""

from __future__ import annotations

import random

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.engines.local.cache import Ints, Layout, PrefixCache
from spark_rl.engines.local.levels import Slab, cut

LAYOUT = Layout(layers=2, heads=2, width=3, dtype=torch.float32, device=torch.device("cpu"))


def ids(*numbers: int) -> Ints:
    return np.array(numbers, np.int32)


def words(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(10**6) for _ in range(count)]


def test_trunk_limbs_and_tails_by_hand() -> None:
    """Two trees of three leaves: 20 tokens of instructions, 30 of each tree's own, 10 of each leaf's own."""
    rng = random.Random(0)
    head, prompts = words(rng, 20), list[Ints]()
    for _ in range(2):
        tree = words(rng, 30)
        prompts += [ids(*head, *tree, *words(rng, 10)) for _ in range(3)]
    found = cut([prompts[index] for index in (0, 3, 1, 4, 2, 5)], [1] * 6)
    assert found.trunk == 20
    assert found.ends.tolist() == [50] * 6
    assert found.limbs[0] == found.limbs[2] == found.limbs[4] != found.limbs[1] == found.limbs[3] == found.limbs[5]


def test_samples_of_one_prompt_share_all_but_its_last_token() -> None:
    alone = cut([ids(*range(40))], [8])
    assert (alone.trunk, alone.limbs.tolist(), alone.ends.tolist()) == (39, [-1], [39])
    rng = random.Random(0)
    two = cut([ids(*words(rng, 40)), ids(*words(rng, 60))], [8, 8])
    assert (two.trunk, sorted(two.limbs.tolist()), two.ends.tolist()) == (0, [0, 1], [39, 59])


def test_strangers_are_not_cut() -> None:
    rng = random.Random(0)
    found = cut([ids(*words(rng, 30)) for _ in range(5)], [1] * 5)
    assert (found.trunk, found.limbs.tolist(), found.ends.tolist()) == (0, [-1] * 5, [0] * 5)
    assert cut([ids(7)], [1]).trunk == 0


@given(st.sets(st.lists(st.integers(0, 1), min_size=1, max_size=12).map(tuple), min_size=1, max_size=8), st.data())
def test_what_is_cut_off_is_shared_and_never_the_last_token(prompts: set[tuple[int, ...]], data: st.DataObject) -> None:
    sequences = [ids(*prompt) for prompt in data.draw(st.permutations(sorted(prompts)))]
    counts = [data.draw(st.integers(1, 3)) for _ in sequences]
    found = cut(sequences, counts)
    assert all(found.trunk <= end < len(prompt) for end, prompt in zip(found.ends, sequences, strict=True))
    assert len({tuple(prompt[: found.trunk]) for prompt in sequences}) == 1
    for limb in range(int(found.limbs.max()) + 1):
        members = np.flatnonzero(found.limbs == limb).tolist()
        assert sum(counts[member] for member in members) > 1
        assert len({(tuple(sequences[member][: found.ends[member]]), found.ends[member]) for member in members}) == 1
    assert all(end == found.trunk for end in found.ends[found.limbs < 0])


def test_a_slab_writes_in_place_and_keeps_what_it_holds() -> None:
    slab = Slab(LAYOUT)
    slab.open(groups=3, columns=5)
    states = torch.arange(4 * 2 * 3, dtype=torch.float32).view(4, 2, 3)  # four new tokens
    slab.write(2, torch.tensor([1, 1, 2, 2]), torch.tensor([0, 1, 2, 3]), states)
    assert torch.equal(slab.data[2, 1, :, :2], states[:2].transpose(0, 1))
    assert torch.equal(slab.data[2, 2, :, 2:4], states[2:].transpose(0, 1))
    assert not slab.data[0].any()  # the keys of layer 0 are untouched
    slab.select(torch.tensor([2, 2, 1]), width=4)
    slab.widen(9)
    assert torch.equal(slab.data[2, 0, :, 2:4], states[2:].transpose(0, 1))
    assert torch.equal(slab.data[2, 1], slab.data[2, 0])
    assert torch.equal(slab.data[2, 2, :, :2], states[:2].transpose(0, 1))
    assert not slab.data[2, :, :, 5:].any()


def test_slab_and_pool_exchange_cells() -> None:
    kept, slab = PrefixCache(LAYOUT, 8 * LAYOUT.bytes), Slab(LAYOUT)
    slab.open(2, 4)
    slab.data.copy_(torch.randn_like(slab.data))
    before = slab.data.clone()
    slots = kept.reserve(3)
    assert slots is not None
    slab.store(kept.pool, torch.tensor([0, 0, 1]), torch.tensor([1, 2, 2]), torch.from_numpy(slots).long())
    slab.open(2, 4)
    slab.load(kept.pool, torch.tensor([[slots[2], slots[0]], [0, slots[1]]]))
    assert torch.equal(slab.data[:, 0, :, :2], torch.stack([before[:, 1, :, 2], before[:, 0, :, 1]], 2))
    assert torch.equal(slab.data[:, 1, :, 1], before[:, 0, :, 2])
    assert not slab.data[:, 1, :, 0].any()  # padding
