"""DPO on trajectories against numbers worked out by hand, against TRL's own loss, and on a model that learns."""

from __future__ import annotations

import copy
import math
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from trees import draw, node

from spark_rl.data.demonstrations import texts
from spark_rl.data.format import Demonstration
from spark_rl.data.pairs import Pair
from spark_rl.errors import UsageError
from spark_rl.learning.finetuning.dpo import _Collator, _example, dpo_loss, learn, trajectory_logprobs
from spark_rl.models.tokenizer import learn_tokenizer
from spark_rl.objective.preferences import Preferences
from spark_rl.prompting.prompt import Prompt
from spark_rl.types import Node, Tree

PAD = 0


class Bigram:
    """A model whose next token depends on the last one alone, with probabilities that a test may choose."""

    def __init__(self, table: list[list[float]]) -> None:
        self.logits = torch.tensor(table, dtype=torch.float64).log()

    def get_output_embeddings(self) -> None:
        return None

    def __call__(self, input_ids: torch.Tensor, use_cache: bool) -> Any:
        return SimpleNamespace(logits=self.logits[input_ids])


def steps(*given: tuple[tuple[int, ...], tuple[int, ...]], won: bool) -> Demonstration:
    """A trajectory from the prompt and completion of each step."""
    tree = draw([-1, *range(len(given) - 1)], {len(given) - 1: float(won)})
    for index, (prompt, completion) in enumerate(given):
        old: Node = tree.nodes[index]
        ended = {"success": old.success, "done": old.done, "reward": old.reward}
        tree.nodes[index] = node(old.parent, old.path, prompt=prompt, completion=completion, **ended)
    return Demonstration(tree)


# -- the loss -------------------------------------------------------------------------------------------------------


def test_the_loss_of_a_pair_by_hand():
    # Two steps each. Won: 1/2 * 1/4 now, 1/4 * 1/4 before. Lost: 1/8 * 1/2 now, 1/2 * 1/2 before.
    won, lost = (torch.tensor([p], dtype=torch.float64).log().requires_grad_() for p in (1 / 8, 1 / 16))
    won_before, lost_before = (torch.tensor([p], dtype=torch.float64).log() for p in (1 / 16, 1 / 4))
    loss, margin = dpo_loss(won, lost, won_before, lost_before, 0.5)
    assert margin.item() == pytest.approx(0.5 * (math.log(2) + math.log(4)), abs=1e-12)
    assert loss.item() == pytest.approx(math.log(1 + 8**-0.5), abs=1e-12)
    loss.backward()
    pull = 0.5 * 8**-0.5 / (1 + 8**-0.5)
    assert won.grad is not None
    assert lost.grad is not None
    assert (won.grad.item(), lost.grad.item()) == (pytest.approx(-pull, abs=1e-12), pytest.approx(pull, abs=1e-12))


def test_a_policy_that_has_not_moved_has_the_loss_of_a_coin():
    before = torch.tensor([-3.0, -70.0], dtype=torch.float64)
    loss, margin = dpo_loss(before, before - 5, before, before - 5, 0.1)
    assert loss.tolist() == pytest.approx([math.log(2)] * 2)
    assert margin.tolist() == [0, 0]


def test_a_trajectory_is_the_sum_of_its_rows_sampled_tokens_by_hand():
    model: Any = Bigram([[0.1, 0.5, 0.4], [0.25, 0.25, 0.5], [0.8, 0.1, 0.1]])
    tokens = torch.tensor([[1, 2, 0, 1], [2, 0, 0, 0], [0, 2, 2, 0]])
    sampled = torch.tensor([[0, 1, 0, 1], [0, 1, 0, 0], [0, 0, 1, 1]], dtype=torch.bool)
    logprobs = trajectory_logprobs(model, tokens, sampled, torch.tensor([0, 0, 1]), 2)
    # First trajectory: 1 -> 2 and 0 -> 1 in one row, 2 -> 0 in the other. Second: 2 -> 2 and 2 -> 0.
    assert logprobs.tolist() == pytest.approx([math.log(0.5 * 0.5 * 0.8), math.log(0.1 * 0.8)], abs=1e-12)


# -- rows -----------------------------------------------------------------------------------------------------------


def test_marks_are_what_was_sampled_without_the_slips_of_the_success():
    extended = (((1, 2), (3, 4)), ((1, 2, 3, 4, 5), (6, 7)))
    pair = Pair(Demonstration(steps(*extended, won=True).tree, frozenset({0})), steps(*extended, won=False))
    example = _example(pair)
    assert example["tokens"] == [[1, 2, 3, 4, 5, 6, 7]] * 2
    assert example["sampled"] == [[False] * 5 + [True] * 2, [False, False, True, True, False, True, True]]
    assert example["lost"] == [False, True]


def test_steps_with_prompts_of_their_own_are_rows_of_one_trajectory():
    afresh = (((1, 2), (3,)), ((5, 5, 5), (6,)))
    first = _example(Pair(steps(*afresh, won=True), steps(*afresh[:1], won=False)))
    assert first["tokens"] == [[1, 2, 3], [5, 5, 5, 6], [1, 2, 3]]
    assert first["lost"] == [False, False, True]
    second = _example(Pair(steps(*afresh[:1], won=True), steps(*afresh, won=False)))
    batch = _Collator(PAD)([{**first, "before": [-1.0, -2.0]}, {**second, "before": [-3.0, -4.0]}])
    assert batch["owner"].tolist() == [0, 0, 2, 1, 3, 3]  # won of pairs 0 and 1, then their lost ones
    assert batch["before"].tolist() == [-1, -3, -2, -4]
    assert batch["tokens"][0].tolist() == [1, 2, 3, PAD]
    assert batch["sampled"].sum(1).tolist() == [1] * 6


# -- the trainer ----------------------------------------------------------------------------------------------------


def model_and_tokenizer() -> tuple[Any, Any]:
    tree: Tree = draw([-1])
    tokenizer = learn_tokenizer(texts([Demonstration(tree)], Prompt()), vocabulary=300, min_count=1)
    torch.manual_seed(0)
    size: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = Qwen2Config(**size, num_key_value_heads=1, vocab_size=len(tokenizer), max_position_embeddings=64)
    return Qwen2ForCausalLM(config).eval(), tokenizer


def pairs() -> list[Pair]:
    """One whose trajectories are one row each, one with rows of their own."""
    one = Pair(steps(((1, 2), (3, 4)), won=True), steps(((1, 2), (5, 6, 7)), won=False))
    other = Pair(steps(((8, 9), (3,)), ((9, 9), (4,)), won=True), steps(((8, 9), (5,)), ((9, 9), (6,)), won=False))
    return [one, other]


def test_learning_tells_the_pairs_apart_and_leaves_the_model_as_it_was_held():
    model, tokenizer = model_and_tokenizer()
    model.to(torch.bfloat16)
    before = copy.deepcopy(model)
    settings = Preferences(learning_rate=3e-3, epochs=20, batch=2, beta=0.5)
    told: list[tuple[int, int]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        stats = learn(model, tokenizer, pairs(), settings, seed=1, advance=lambda step, total, _: told.append((step, total)))
    assert told == [(step, 20) for step in range(1, 21)]
    assert stats["accuracy"] == 1
    assert stats["loss"] < 0.3 < stats["margin"]
    assert (stats["steps"], stats["tokens"]) == (20, 20 * (4 + 5 + 3 + 3 + 3 + 3))
    assert model.dtype == torch.bfloat16
    assert "forward" not in vars(model)
    for pair in pairs():
        batch = _Collator(PAD)([_example(pair)])
        new, old = (
            trajectory_logprobs(m.float(), batch["tokens"], batch["sampled"], batch["owner"], 2) for m in (model, before)
        )
        assert new[0] - old[0] > new[1] - old[1]


def test_on_one_prompt_and_one_answer_the_loss_is_that_of_the_library(tmp_path):
    from datasets import Dataset
    from trl.trainer.dpo_config import DPOConfig
    from trl.trainer.dpo_trainer import DPOTrainer

    class Prepared(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    model, tokenizer = model_and_tokenizer()
    reference = copy.deepcopy(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    pair = pairs()[0]
    batch = _Collator(PAD)([_example(pair)])
    ours = [trajectory_logprobs(m, batch["tokens"], batch["sampled"], batch["owner"], 2) for m in (model, reference)]
    loss, _ = dpo_loss(ours[0][:1], ours[0][1:], ours[1][:1], ours[1][1:], 0.3)

    row = {"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [5, 6, 7]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        settings = DPOConfig(
            output_dir=str(tmp_path), beta=0.3, use_cpu=True, bf16=False, report_to=[], remove_unused_columns=False
        )
        trainer = Prepared(
            model=model,
            ref_model=reference,
            args=settings,
            train_dataset=Dataset.from_list([row]),
            processing_class=tokenizer,
        )
        theirs = trainer.compute_loss(model, trainer.data_collator([row]))
    assert loss.item() == pytest.approx(theirs.item(), abs=1e-5)
    assert abs(loss.item() - math.log(2)) > 1e-4, "the policy has moved"


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"beta": 0}, "beta is 0: it must be above 0"),
        ({"winner": "own"}, "give --episodes 2 or more"),
        ({"iterations": 0}, "iterations is 0: it must be at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, sentence):
    with pytest.raises(UsageError, match=sentence):
        Preferences(**settings)
