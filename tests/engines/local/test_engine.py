"""The local engine against plain forward passes of the same transformers model."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from spark_rl.contracts import Policy
from spark_rl.engines.local.engine import LocalEngine
from spark_rl.engines.local.packed_weights import PackedWeights
from spark_rl.errors import PolicyFailure, PromptTooLong, UsageError
from spark_rl.types import Completion, Cost, Observation, Request, Task

VOCABULARY, END = 61, 1
TASK, NOWHERE = Task("none", "none/1", "nothing"), Observation("")
SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
# Weights five times the usual: attention is far from uniform, so that a wrong key shows.
WIDE = {"initializer_range": 0.1, "bos_token_id": None, "eos_token_id": END, "pad_token_id": None}


class Letters:
    """A tokenizer reduced to what the engine asks of it: token i is the letter chr(64 + i)."""

    eos_token_id = END

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return "".join(chr(64 + i) for i in ids)


def qwen2(**settings: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    return Qwen2ForCausalLM(Qwen2Config(**SHAPE, **WIDE, intermediate_size=64, num_key_value_heads=2, **settings))


def llama() -> PreTrainedModel:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPE, **WIDE, intermediate_size=64, num_key_value_heads=1))


def gpt_neox() -> PreTrainedModel:
    torch.manual_seed(0)
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE, **WIDE, intermediate_size=64))


def gpt2() -> PreTrainedModel:
    torch.manual_seed(0)
    size = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
    return GPT2LMHeadModel(GPT2Config(**size, **WIDE))


def halved() -> PreTrainedModel:
    model: Any = qwen2().eval()
    return model.to(torch.bfloat16)


QWEN2 = qwen2()


class Counted(LocalEngine):
    """Adds up what its completions cost."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.spent = Cost()

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        answers = await super().sample(requests)
        self.spent = sum((completion.cost for answer in answers for completion in answer), self.spent)
        return answers


def policy(model: PreTrainedModel = QWEN2, **settings: Any) -> Counted:
    return Counted(model, Letters(), **settings)


def ask(engine: LocalEngine, requests: Sequence[Request]) -> list[list[Completion]]:
    return asyncio.run(engine.sample(requests))


def request(prompt: Sequence[int], seeds: Sequence[int] = (0,), **settings: Any) -> Request:
    return Request(TASK, (), NOWHERE, tuple(seeds), tuple(prompt), **{"max_tokens": 12, **settings})


def words(rng: random.Random, length: int) -> tuple[int, ...]:
    return tuple(rng.randrange(2, VOCABULARY) for _ in range(length))


def plain(model: PreTrainedModel, prompt: Sequence[int], ids: Sequence[int], temperature: float) -> list[float]:
    """Log-probabilities of `ids` after `prompt`, by one unpadded forward pass."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    logprobs = torch.log_softmax(logits.float() / (temperature or 1.0), -1)
    return logprobs[torch.arange(len(ids)), torch.tensor(ids)].tolist()


def entropies(model: PreTrainedModel, prompt: Sequence[int], ids: Sequence[int], temperature: float) -> list[float]:
    """Entropies (nats) of what each of `ids` was drawn from, by one unpadded forward pass."""
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    return torch.distributions.Categorical(logits=logits.float() / (temperature or 1.0)).entropy().tolist()


def assert_exact(model: PreTrainedModel, requests: Sequence[Request], answers: list[list[Completion]]) -> None:
    for asked, answer in zip(requests, answers, strict=True):
        assert len(answer) == asked.n
        for completion in answer:
            assert completion.ids
            assert asked.prompt
            assert completion.logprobs == pytest.approx(
                plain(model, asked.prompt, completion.ids, asked.temperature), abs=1e-5
            )
            assert completion.entropies == pytest.approx(
                entropies(model, asked.prompt, completion.ids, asked.temperature), abs=1e-4
            )


Continue = Callable[[random.Random, tuple[int, ...], tuple[int, ...], tuple[int, ...]], tuple[int, ...]]


def transcript(rng: random.Random, head: tuple[int, ...], prompt: tuple[int, ...], ids: tuple[int, ...]) -> tuple[int, ...]:
    return (*prompt, *ids, *words(rng, rng.randrange(1, 6)))


def window(rng: random.Random, head: tuple[int, ...], prompt: tuple[int, ...], ids: tuple[int, ...]) -> tuple[int, ...]:
    return (*head, *words(rng, rng.randrange(3, 12)), *ids[:4])


def grow(
    engine: LocalEngine, following: Continue, turns: int = 4, temperature: float = 0.7
) -> list[tuple[Request, Completion]]:
    """Three trees of three roots; at each step one branch in three forks in two, and one in six ends."""
    rng = random.Random(7)
    heads = [words(rng, length) for length in (5, 9, 14)]
    asked = [
        request(head, range(tree * 10, tree * 10 + 3), parent=(tree,), children=tuple((tree, i) for i in range(3)))
        for tree, head in enumerate(heads)
    ]
    seen: list[tuple[Request, Completion]] = []
    for turn in range(turns):
        asked = [replace(item, temperature=temperature) for item in asked]
        answers = ask(engine, asked)
        steps = [(item, i, answer[i]) for item, answer in zip(asked, answers, strict=True) for i in range(item.n)]
        seen += [(item, completion) for item, _, completion in steps]
        asked = []
        for item, i, completion in steps:
            parent = item.children[i]
            assert item.prompt
            assert completion.ids
            prompt = following(rng, heads[parent[0]], item.prompt, completion.ids)
            if (kind := rng.randrange(6)) == 0:
                continue
            n = 2 if kind < 3 else 1
            seeds = tuple(rng.getrandbits(63) for _ in range(n))
            asked.append(request(prompt, seeds, parent=parent, children=tuple((*parent, k) for k in range(n))))
        assert asked, turn
    return seen


@pytest.mark.parametrize("make", [qwen2, llama, gpt_neox, gpt2])
@pytest.mark.parametrize("following", [transcript, window])
def test_log_probabilities_are_those_of_a_plain_forward_pass(
    make: Callable[[], PreTrainedModel], following: Continue
) -> None:
    model = make().eval()
    engine = policy(model)
    for item, completion in grow(engine, following):
        assert_exact(model, [replace(item, seeds=(0,))], [[completion]])
    assert engine.spent.reused > 0
    assert engine.spent.misses == 0


@pytest.mark.parametrize("following", [transcript, window])
@pytest.mark.parametrize("cache_bytes", [0, 10_000, 40_000])
def test_a_small_cache_or_none_gives_the_same_samples(following: Continue, cache_bytes: int) -> None:
    whole, small = policy(), policy(cache_bytes=cache_bytes)
    expected, found = grow(whole, following), grow(small, following)
    assert [c.ids for _, c in found] == [c.ids for _, c in expected]
    for (_, left), (_, right) in zip(expected, found, strict=True):
        assert left.logprobs == pytest.approx(right.logprobs, abs=1e-5)
    assert small.spent.misses > 0
    total = whole.spent.prefilled + whole.spent.reused
    assert small.spent.prefilled + small.spent.reused == total
    assert small.spent.prefilled > whole.spent.prefilled


def test_eager_attention_is_served_too() -> None:
    model = qwen2(attn_implementation="eager").eval()
    for item, completion in grow(policy(model), transcript, turns=2):
        assert_exact(model, [replace(item, seeds=(0,))], [[completion]])


def test_the_same_calls_give_the_same_bits() -> None:
    assert [c for _, c in grow(policy(), transcript)] == [c for _, c in grow(policy(), transcript)]


def test_a_sample_does_not_depend_on_its_neighbours() -> None:
    rng = random.Random(3)
    asked = [request(words(rng, rng.randrange(1, 40)), (rng.getrandbits(64),)) for _ in range(64)]
    together = ask(policy(), asked)
    alone = [ask(policy(), [item])[0] for item in asked]
    assert [a[0].ids for a in together] == [a[0].ids for a in alone]
    assert_exact(QWEN2, asked, together)


def test_many_samples_of_one_prompt_are_one_prefill_and_equal_single_requests() -> None:
    prompt = words(random.Random(1), 10)
    engine, single = policy(), policy()
    together = ask(engine, [request(prompt, range(5))])[0]
    assert [c.ids for c in together] == [ask(single, [request(prompt, (seed,))])[0][0].ids for seed in range(5)]
    assert (engine.spent.prefilled, engine.spent.reused) == (10, 40)
    assert single.spent.prefilled == 50
    assert engine.spent.generated == sum(len(c.ids or ()) for c in together)


def test_counters_by_hand() -> None:
    engine = policy()
    engine.stops[:] = False
    head = words(random.Random(2), 10)
    # Two requests with one prompt and two samples each: the prompt runs once.
    roots = [request(head, (i, i + 1), parent=(0,), children=((0, i), (0, i + 1)), max_tokens=4) for i in (0, 2)]
    first = ask(engine, roots)
    assert (engine.spent.generated, engine.spent.prefilled, engine.spent.reused) == (16, 10, 30)
    # A transcript's next turn feeds the last sampled token, which never ran, and the 3 new ones.
    longer = (*head, *(first[1][0].ids or ()), *words(random.Random(4), 3))
    ask(engine, [request(longer, parent=(0, 2), children=((0, 2, 0),), max_tokens=1)])
    assert (engine.spent.prefilled, engine.spent.reused) == (14, 43)
    # A sibling that comes later shares the prompt; only its last token runs, for the logits. So does a later root.
    ask(engine, [request(longer, (5,), parent=(0, 2), children=((0, 2, 1),), max_tokens=1)])
    ask(engine, [request(head, (6,), parent=(0,), children=((0, 4),), max_tokens=1)])
    assert (engine.spent.prefilled, engine.spent.reused, engine.spent.misses) == (16, 43 + 16 + 9, 0)
    ask(engine, [request(longer, (5,), parent=(3, 1), max_tokens=1)])
    assert (engine.spent.prefilled, engine.spent.misses) == (33, 1)


def test_what_prompts_have_in_common_is_read_once() -> None:
    rng = random.Random(2)
    head, trees = words(rng, 20), [words(rng, 30) for _ in range(2)]
    asked = [request((*head, *tree, *words(rng, 5)), (0, 1)) for tree in trees for _ in range(3)]
    engine = policy()
    answers = ask(engine, asked)
    assert engine.spent.prefilled == 20 + 2 * 30 + 6 * 5
    assert engine.spent.prefilled + engine.spent.reused == 12 * 55
    assert_exact(QWEN2, asked, answers)


def test_stop_tokens_end_a_completion_and_stay_out_of_its_text() -> None:
    model = qwen2().eval()
    assert model.generation_config
    model.generation_config.eos_token_id = list(range(40, VOCABULARY))
    engine = policy(model)
    asked = [request(words(random.Random(i), 6), range(4), max_tokens=8) for i in range(8)]
    answers = [completion for answer in ask(engine, asked) for completion in answer]
    for completion in answers:
        assert completion.ids
        stopped = completion.ids[-1] == END or completion.ids[-1] >= 40
        assert all(i != END and i < 40 for i in completion.ids[:-1])
        assert stopped or len(completion.ids) == 8
        assert completion.text == Letters().decode(completion.ids[:-1] if stopped else completion.ids)
    assert any(completion.text == "" for completion in answers)  # an empty answer is an answer
    assert_exact(model, asked, [answers[4 * i : 4 * i + 4] for i in range(8)])


def test_greedy_takes_the_most_likely_token_at_temperature_one() -> None:
    asked = [request(words(random.Random(i), 4 + i), temperature=0.0) for i in range(5)]
    answers = ask(policy(), asked)
    for item, (completion,) in zip(asked, answers, strict=True):
        sequence = [*(item.prompt or ())]
        for token in completion.ids or ():
            with torch.no_grad():
                assert int(QWEN2(torch.tensor([sequence])).logits[0, -1].argmax()) == token
            sequence.append(token)
    assert_exact(QWEN2, asked, answers)


def test_temperatures_and_limits_may_differ_within_a_call() -> None:
    engine = policy()
    engine.stops[:] = False
    asked = [
        request(words(random.Random(i), 3 + 5 * i), (i, i + 50), temperature=temperature, max_tokens=limit)
        for i, (temperature, limit) in enumerate([(0.0, 3), (0.5, 90), (1.0, 1), (2.0, 40), (0.3, 7)])
    ]
    answers = ask(engine, asked)
    assert [[len(c.ids or ()) for c in answer] for answer in answers] == [[3, 3], [90, 90], [1, 1], [40, 40], [7, 7]]
    assert_exact(QWEN2, asked, answers)


@pytest.mark.parametrize(("batch_tokens", "prefill"), [(64, 4096), (10**6, 16), (1, 1)])
def test_splitting_the_work_changes_nothing(monkeypatch: pytest.MonkeyPatch, batch_tokens: int, prefill: int) -> None:
    expected = grow(policy(), transcript)
    monkeypatch.setattr("spark_rl.engines.local.batch.PREFILL_TOKENS", prefill)
    found = grow(policy(batch_tokens=batch_tokens), transcript)
    assert [c.ids for _, c in found] == [c.ids for _, c in expected]
    for (_, left), (_, right) in zip(expected, found, strict=True):
        assert left.logprobs == pytest.approx(right.logprobs, abs=1e-5)


@settings(max_examples=25)
@given(st.data())
def test_any_order_of_prompts_and_addresses_is_exact(data: st.DataObject) -> None:
    """Addresses may be reused for other texts, parents may be unknown: what is kept is used only where ids agree."""
    engine = policy(cache_bytes=data.draw(st.sampled_from([0, 6_000, 20_000, 10**6])))
    token = st.integers(2, 4)  # few, so that prefixes are shared by accident
    address = st.tuples(st.integers(0, 1), st.integers(0, 2))
    for _ in range(3):
        asked = [
            request(
                data.draw(st.lists(token, min_size=1, max_size=12)),
                data.draw(st.lists(st.integers(0, 2**63), min_size=1, max_size=3)),
                parent=data.draw(st.none() | address),
                max_tokens=data.draw(st.integers(1, 4)),
            )
            for _ in range(data.draw(st.integers(1, 4)))
        ]
        asked = [replace(item, children=tuple(data.draw(address) for _ in item.seeds)) for item in asked]
        assert_exact(QWEN2, asked, ask(engine, asked))


def test_clear_forgets_what_the_old_weights_computed() -> None:
    model = qwen2().eval()
    engine = policy(model)
    head = words(random.Random(5), 8)
    asked = [request(head, (1,), parent=(0,), children=((0, 0),))]
    ask(engine, asked)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.1)
    engine.forget()
    assert_exact(model, asked, ask(engine, asked))
    assert engine.spent.prefilled == 16


def test_weights_are_taken_over_with_their_version() -> None:
    """What another model has learnt is sampled from, and nothing that was computed before is used."""
    taught = qwen2().eval()
    with torch.no_grad():
        for weight in taught.parameters():
            weight.mul_(1.1)
    engine = policy(qwen2().eval())
    asked = [request(words(random.Random(5), 8), (1,), parent=(0,), children=((0, 0),))]
    before = ask(engine, asked)[0][0]
    asyncio.run(engine.load_weights(3, taught.state_dict()))
    after = ask(engine, asked)[0][0]
    assert_exact(taught, asked, [[after]])
    assert (before.version, after.version) == (0, 3)
    assert engine.spent.prefilled == 16
    assert engine.model is not taught


def test_weights_of_another_model_are_refused() -> None:
    engine = policy(qwen2().eval())
    with pytest.raises(PolicyFailure, match="version 2 are not of the engine's model: their names or shapes differ"):
        asyncio.run(engine.load_weights(2, gpt2().state_dict()))
    assert engine.version == 0


def test_sampling_leaves_training_possible() -> None:
    model = qwen2().train()
    engine = policy(model)
    model.train()
    ask(engine, [request((2, 3))])
    assert not model.training
    model(torch.tensor([[2, 3, 4]])).logits.sum().backward()
    assert next(model.parameters()).grad is not None


def test_half_precision_runs() -> None:
    model = halved()
    asked = [request(words(random.Random(i), 5 + i), (i,)) for i in range(4)]
    for item, (completion,) in zip(asked, ask(policy(model), asked), strict=True):
        assert completion.logprobs == pytest.approx(plain(model, item.prompt or (), completion.ids or (), 1.0), abs=0.2)


def test_what_cannot_be_answered_is_a_sentence() -> None:
    engine = policy(qwen2(max_position_embeddings=32).eval())
    assert isinstance(engine, Policy)
    with pytest.raises(UsageError, match="none/1 has no prompt ids"):
        ask(engine, [replace(request((2,)), prompt=None)])
    with pytest.raises(PromptTooLong, match="has 32 tokens, and the model's context is 32"):
        ask(engine, [request([2] * 32)])
    engine.stops[:] = False
    assert len(ask(engine, [request([2] * 30)])[0][0].ids or ()) == 2  # the context ends it
    assert ask(engine, []) == []
    assert ask(engine, [request((2,), ())]) == [[]]


def test_a_model_that_the_engine_cannot_run_is_refused() -> None:
    sliding = MistralConfig(**SHAPE, **WIDE, intermediate_size=64, num_key_value_heads=2, sliding_window=8)
    with pytest.raises(UsageError, match='full attention in every layer, unlike type "mistral"'):
        policy(MistralForCausalLM(sliding))


def test_a_model_with_attention_of_its_own_is_refused() -> None:
    model = BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, **WIDE))
    with pytest.raises(UsageError, match='attention of type "bloom", which does not use transformers\' AttentionInterface'):
        policy(model)


def test_packed_weights_give_the_bits_of_plain_ones() -> None:
    model = halved()
    asked = [request(words(random.Random(i), 5 + i), (i, i + 9)) for i in range(4)]
    packed, plainly = policy(model), policy(model)
    plainly.packed = PackedWeights(nn.Module())
    assert ask(packed, asked) == ask(plainly, asked)
    assert packed.packed is not None
    assert packed.packed.products
    assert not plainly.packed.products
    assert "forward" not in model.lm_head.__dict__


def test_weights_that_diverged_are_reported_and_nothing_of_them_is_kept() -> None:
    model = qwen2().eval()
    engine = policy(model)
    head = words(random.Random(5), 8)
    good = {name: weight.clone() for name, weight in model.state_dict().items()}
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(PolicyFailure, match="not finite"):
        ask(engine, [request(head, parent=(0,), children=((0, 0),))])
    model.load_state_dict(good)
    asked = [request(head, parent=(0,), children=((0, 0),))]
    assert_exact(model, asked, ask(engine, asked))
