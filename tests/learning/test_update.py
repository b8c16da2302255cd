import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from exact import model as tiny
from grown import VOCABULARY, grown, shapes, unshared
from hypothesis import given, settings
from hypothesis import strategies as st

from spark_rl.advantage.group import GroupMean
from spark_rl.errors import TrainingDiverged, UsageError
from spark_rl.learning.batch import Batch, pack
from spark_rl.learning.packing import Packing, Passes
from spark_rl.learning.update import accumulate, recomputing, signal_to_noise, trainer_logprobs, update
from spark_rl.models import adapters
from spark_rl.models.weights import Weights
from spark_rl.objective.loss import Loss
from spark_rl.objective.rewards import Rewards

SHAPES = [
    [-1, -1, 0, 0, 1, 2, 2, 3, 4, 5, 6, 6, 10],  # shared prefixes of several lengths
    [-1, 0, 1, 1, 1, 2, 3, 4],
    [-1, -1, -1, -1, 0, 1, 2, 3],  # chains
]


def trees(append, seed=0):
    return [grown(shape, append, seed + number) for number, shape in enumerate(SHAPES)]


def packed(some) -> Batch:
    return pack(some, [Rewards(malformed=0.4).credit(tree, GroupMean()) for tree in some])


def gradient(model, batch, loss, budget=10**6, temperature=0.8, packing: Packing = "rows", reference=None):
    model.zero_grad()
    reference = reference or tiny(seed=1)
    stats = accumulate(model, reference, batch, loss, Passes(temperature, budget, packing))
    del stats["trained_tokens"]
    return torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]), stats


@pytest.mark.parametrize("aggregation", ["token-mean", "sequence-mean"])
@pytest.mark.parametrize("append", [True, False], ids=["transcript", "window"])
@pytest.mark.parametrize("seed", [0, 10])
def test_one_node_one_row_is_exact(append, aggregation, seed):
    """Every step once, or one copy a leaf: the same loss and gradient, off policy, with all the clips and terms at work."""
    shared = trees(append, seed)
    apart = [unshared(tree) for tree in shared]
    loss = Loss(clip_low=0.2, clip_high=0.3, dual_clip=2.0, kl=0.3, entropy=0.1, aggregation=aggregation)
    model = tiny()
    batches = [packed(shared), packed(apart)]
    assert batches[0].sampled < batches[1].sampled
    assert any((part.positive * part.negative < 0).any() for part in batches[0].targets), "no step with mixed signs"
    (once, stats), (copied, expected) = (gradient(model, batch, loss) for batch in batches)
    assert ((once - copied).norm() / copied.norm()).item() < 1e-12
    for name in ("loss", "entropy", "reference_kl", "old_kl", "rollout_kl", "ratio_max"):
        assert stats[name] == pytest.approx(expected[name], rel=1e-12)
    assert 0.01 < stats["dual_clip_fraction"] < stats["clip_fraction"] < 0.99


def test_summing_the_advantages_first_would_be_wrong():
    """The control: one sum instead of two changes the gradient as soon as a clip is at work."""
    batch = packed(trees(append=True))
    summed = []
    for part in batch.targets:
        total = part.positive + part.negative
        summed.append(part._replace(positive=np.maximum(total, 0), negative=np.minimum(total, 0)))
    model, loss = tiny(), Loss()
    exact, wrong = (gradient(model, b, loss)[0] for b in (batch, Batch(batch.rows, tuple(summed))))
    assert ((exact - wrong).norm() / exact.norm()).item() > 1e-3


@pytest.mark.parametrize("append", [True, False], ids=["transcript", "window"])
@pytest.mark.parametrize("budget", [1, 17, 60])
@pytest.mark.parametrize("aggregation", ["token-mean", "sequence-mean"])
def test_cutting_into_micro_batches_changes_nothing(append, budget, aggregation):
    batch, loss, model = packed(trees(append)), Loss(aggregation=aggregation), tiny()
    whole, stats = gradient(model, batch, loss)
    cut, same = gradient(model, batch, loss, budget)
    assert ((whole - cut).norm() / whole.norm()).item() < 1e-12
    assert same == pytest.approx(stats, rel=1e-9)


PASSES = Passes(0.8, 200)
SETTINGS: Any = {"passes": PASSES, "minibatches": 2, "max_grad_norm": 1.0}


def adam(model, lr=1e-2):
    return torch.optim.AdamW(model.parameters(), lr=lr)


def on_policy(model, append=True, temperature=0.8):
    """The trees as if the model had sampled them just now."""
    batch = trainer_logprobs(model, packed(trees(append)), Passes(temperature, 200))
    return Batch(batch.rows, tuple(part._replace(sampling=part.old) for part in batch.targets))


def weights(model):
    return [parameter.detach().clone() for parameter in model.parameters()]


def same(before, after):
    return all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


def test_an_update_makes_good_completions_likelier_and_bad_ones_rarer():
    model = tiny()
    batch = on_policy(model)
    stats = update(model, None, adam(model), batch, Loss(kl=0, entropy=0), **SETTINGS, epochs=3)
    after = trainer_logprobs(model, batch, PASSES).flat()
    gain = after.old - batch.flat().old
    advantage = after.positive + after.negative
    assert gain[advantage > 0].mean() > 0.01
    assert gain[advantage < 0].mean() < -0.01
    assert stats["steps"] == 6
    assert stats["trained_tokens"] == 3 * batch.tokens
    assert stats["sampled_tokens"] == 3 * batch.sampled


def test_what_the_sampler_and_the_trainer_disagree_in_is_measured_before_any_step():
    model = tiny(dtype=torch.float32)
    stats = update(model, tiny(1, torch.float32), adam(model), on_policy(model), Loss(), **SETTINGS, epochs=2)
    assert abs(stats["rollout_kl"]) < 1e-6
    assert stats["rollout_gap_max"] < 1e-5
    assert stats["old_kl"] > 1e-4, "later steps are off policy"


def test_importance_takes_the_trainer_s_own_log_probabilities_as_old():
    """Where the engines agree nothing changes; where the sampler said half, the gradient doubles, up to the cap."""
    loss = [Loss(kl=0, entropy=0, importance=cap) for cap in (0.0, 5.0, 1.5)]
    model = tiny()
    batch = on_policy(model)
    halved = Batch(
        batch.rows, tuple(part._replace(sampling=part.old - math.log(2), old=part.old * 0) for part in batch.targets)
    )
    norms = []
    for setting, sampled in ((loss[0], batch), (loss[1], batch), (loss[1], halved), (loss[2], halved)):
        frozen = torch.optim.SGD(model.parameters(), lr=0.0)
        norms.append(update(model, None, frozen, sampled, setting, **SETTINGS)["grad_norm"])
    assert norms == pytest.approx([norms[0], norms[0], 2 * norms[0], 1.5 * norms[0]])


def test_dropout_is_off():
    model = tiny(dropout=0.5).train()
    stats = update(model, None, adam(model), on_policy(tiny()), Loss(kl=0), **SETTINGS)
    assert stats["rollout_gap_max"] < 1e-12


def test_one_seed_one_result_and_the_order_of_trees_matters_only_by_the_seed():
    results = []
    for seed in (3, 3, 4):
        model = tiny(dtype=torch.float32)
        update(
            model, None, adam(model), on_policy(tiny(dtype=torch.float32)), Loss(kl=0), **SETTINGS, rng=random.Random(seed)
        )
        results.append(weights(model))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_the_gradient_is_clipped_and_its_norm_before_is_told():
    model = tiny()
    before = weights(model)
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    stats = update(model, None, sgd, on_policy(model), Loss(kl=0), **SETTINGS | {"minibatches": 1, "max_grad_norm": 1e-3})
    moved = math.sqrt(sum((x - y).square().sum().item() for x, y in zip(before, weights(model), strict=True)))
    assert stats["grad_norm"] > 1e-2
    assert moved == pytest.approx(1e-3, rel=1e-3)


def test_a_loss_that_is_not_finite_stops_before_the_weights_change():
    model = tiny()
    batch = on_policy(model)
    with torch.no_grad():
        model.get_output_embeddings().weight[3, 3] = math.nan
    before = weights(model)
    with pytest.raises(TrainingDiverged, match="the loss is nan"):
        update(model, None, adam(model), batch, Loss(kl=0), **SETTINGS)
    assert all(torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in zip(before, weights(model), strict=True))


def test_a_gradient_that_is_not_finite_stops_before_the_weights_change():
    model = tiny()
    batch = on_policy(model)
    model.get_output_embeddings().weight.register_hook(lambda gradient: gradient * math.inf)
    before = weights(model)
    with pytest.raises(TrainingDiverged, match="the gradient's norm is"):
        update(model, None, adam(model), batch, Loss(kl=0), **SETTINGS)
    assert same(before, weights(model))


def test_a_reference_is_asked_for_only_where_it_counts():
    model = tiny()
    with pytest.raises(UsageError, match="there is no reference model"):
        update(model, None, adam(model), on_policy(model), Loss(), **SETTINGS)
    reference = tiny(1)
    stats = update(model, reference, adam(model), on_policy(model), Loss(), **SETTINGS)
    assert stats["reference_kl"] > 0
    assert all(parameter.grad is None for parameter in reference.parameters())


def test_nothing_to_learn_from_makes_no_step():
    model = tiny()
    assert update(model, None, adam(model), pack([], []), Loss(kl=0), **SETTINGS) == {"steps": 0}


def test_signal_to_noise_is_that_of_the_trees_gradients():
    """Against mean and variance of gradients taken one tree at a time; nothing of the model is changed."""
    model, batch = tiny(), packed(trees(append=True))
    policy = Loss(kl=0.0, entropy=0.0)
    parts = [batch.select([i for i, row in enumerate(batch.rows) if row.tree == tree]) for tree in range(3)]
    gradients = torch.stack([gradient(model, part, policy)[0] for part in parts])
    noise = gradients.var(dim=0).sum()
    signal = gradients.mean(dim=0).square().sum() - noise / 3  # the mean's own noise taken off
    before = [parameter.clone() for parameter in model.parameters()]
    found = signal_to_noise(model, batch, Loss(kl=0.3, entropy=0.1), Passes(0.8, 10**6))
    assert found == pytest.approx(float(signal / noise), rel=1e-9)
    assert found == pytest.approx(signal_to_noise(model, batch, policy, Passes(0.8, 1)), rel=1e-9)
    assert all(torch.equal(old, new) and new.grad is None for old, new in zip(before, model.parameters(), strict=True))
    assert signal_to_noise(model, parts[0], policy, Passes(0.8, 10**6)) == 0.0


# -- each token once --------------------------------------------------------------------------------------------------


@st.composite
def forests(draw: st.DrawFn):
    """Trees that share their instructions, with siblings that say the same and rows that go on where others end."""
    head = tuple(draw(st.lists(st.integers(1, 2), max_size=6)))
    append, vocabulary, seed = draw(st.booleans()), draw(st.sampled_from([2, 3, VOCABULARY])), draw(st.integers(0, 99))
    forks = draw(st.lists(shapes(), min_size=1, max_size=3))
    grew = [grown(shape, append, seed + number, vocabulary=vocabulary, head=head) for number, shape in enumerate(forks)]
    return [unshared(tree) for tree in grew] if draw(st.booleans()) else grew


def losses():
    return st.builds(
        Loss,
        clip_low=st.just(0.1),
        dual_clip=st.sampled_from([0.0, 1.5]),
        kl=st.sampled_from([0.0, 0.3]),
        entropy=st.sampled_from([0.0, 0.1]),
        aggregation=st.sampled_from(["token-mean", "sequence-mean"]),
        importance=st.sampled_from([0.0, 1.2]),
    )


def adapted():
    """A model with adapters that have learnt something, all of it in 64 bits."""
    model = adapters.add(tiny(), Weights(lora_rank=2)).double()
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0.0, 0.3)
    return model


@given(forests(), losses(), st.sampled_from([5, 25, 10**6]), st.booleans(), st.booleans())
@settings(max_examples=25, deadline=None)
def test_each_token_once_is_exact(some, loss, budget, lora, checkpointing):
    """Prefix trees and padded rows give the same gradient and the same statistics."""
    model = adapted() if lora else tiny()
    batch = packed(some)
    with recomputing(model, checkpointing):
        ways = [
            gradient(model, batch, loss, budget, packing=packing, reference=model if lora else None)
            for packing in ("tree", "rows")
        ]
    (once, stats), (apart, expected) = ways
    assert (once - apart).norm().item() <= 1e-10 * apart.norm().item()
    assert stats == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert model.config._attn_implementation == "sdpa"


@given(forests(), losses(), st.sampled_from([5, 40, 10**6]))
@settings(max_examples=6, deadline=None)
def test_an_update_of_trees_is_that_of_rows(some, loss, budget):
    """Mini-batches, epochs, the trainer's own log-probabilities and the noise of gradients: the same weights in the end."""
    results, batch = [], packed(some)
    for packing in ("tree", "rows"):
        model = tiny()
        sgd = torch.optim.SGD(model.parameters(), lr=0.1)
        passes = Passes(0.8, budget, packing)
        noise = signal_to_noise(model, batch, loss, passes)
        stats = update(model, tiny(1), sgd, batch, loss, passes, minibatches=2, max_grad_norm=1.0, epochs=2)
        old = trainer_logprobs(model, batch, passes).flat().old
        results.append((torch.cat([each.flatten() for each in weights(model)]), old, noise, stats))
    (once, old, noise, stats), (apart, old_apart, noise_apart, stats_apart) = results
    assert (once - apart).abs().max().item() < 1e-10
    assert np.abs(old - old_apart).max() < 1e-9
    assert noise == pytest.approx(noise_apart, rel=1e-6, abs=1e-9)
    assert stats.pop("trained_tokens") <= stats_apart.pop("trained_tokens")
    assert stats == pytest.approx(stats_apart, rel=1e-7, abs=1e-9)


def test_trees_read_each_beginning_once():
    """Fewer tokens go through the model than two trees with the same instructions have in their rows."""
    batch = packed([grown([-1, 0, 0, 0], True, seed, head=(1, 2, 3, 4, 5)) for seed in (0, 1)])
    counts = [
        accumulate(tiny(), None, batch, Loss(kl=0), Passes(1.0, 10**6, packing))["trained_tokens"]
        for packing in ("tree", "rows")
    ]
    beginnings = {tuple(row.tokens[: stop + 1]) for row in batch.rows for stop in range(len(row))}
    assert counts == [len(beginnings), batch.tokens]
    assert counts[0] < 0.7 * counts[1]
