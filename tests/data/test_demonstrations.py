"""Demonstrations: won, written, read back, and rendered exactly as reinforcement learning renders."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from shown import learnt_encoder

from spark_rl.data.demonstrations import collect, tokenize
from spark_rl.data.format import Demonstration, load, save
from spark_rl.environments.household import Household
from spark_rl.environments.replay import replay
from spark_rl.errors import StorageError, UsageError
from spark_rl.learning.batch import packed_sequences
from spark_rl.learning.finetuning.sft import _examples
from spark_rl.prompting.prompt import Prompt
from spark_rl.prompting.transcript import Transcript
from spark_rl.prompting.window import Window
from spark_rl.types import Task, Tree

WORLD = Household(train_tasks=40)
CONTEXTS = [Window(3), Transcript(), Transcript("changes"), Transcript("all")]


PROMPT = Prompt(Transcript(), instructions="none")


def demonstrations(count: int = 12, prompt: Prompt = PROMPT, slips: float = 0.0) -> list[Demonstration]:
    return asyncio.run(collect(WORLD, count, level="L2", horizon=30, prompt=prompt, slips=slips))


def trees(count: int = 12) -> list[Tree]:
    return [shown.tree for shown in demonstrations(count)]


def test_every_demonstration_was_won_within_the_horizon_on_a_training_task():
    tasks = {task.id for task in WORLD.tasks("L2", "train")}
    for tree in trees():
        assert tree.nodes[-1].success
        assert len(tree.nodes) <= 30
        assert tree.task.id in tasks
        assert all(node.well_formed and node.admissible for node in tree.nodes)
        seen = [tree.observation, *(node.observation for node in tree.nodes)]
        assert replay(WORLD.make(), tree.task, [node.action for node in tree.nodes], seen).success


def test_no_held_out_type_is_shown():
    assert {tree.task.kind for tree in trees(40)} <= {"place", "clean", "heat", "light"}


def test_more_demonstrations_than_tasks_are_other_episodes():
    episodes = {(tree.task.id, tuple(node.action for node in tree.nodes)) for tree in trees(80)}
    assert len(episodes) > len(WORLD.tasks("L2", "train"))


def test_only_some_tasks_are_shown_the_same_ones_by_the_same_seed():
    runs = [asyncio.run(collect(WORLD, 15, level="L2", horizon=30, prompt=PROMPT, seed=seed, shown=6)) for seed in (0, 0, 1)]
    first, again, other = ({shown.tree.task.id for shown in run} for run in runs)
    assert first == again != other
    assert len(first) == 6


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_file_comes_back_with_the_tokens_of_a_rollout(tmp_path, context):
    prompt = Prompt(context, instructions="none")
    shown = demonstrations(6, prompt, slips=0.2)
    save(shown, tmp_path / "demos.jsonl", prompt)
    encoder = learnt_encoder(shown, prompt)
    read = load(tmp_path / "demos.jsonl")
    assert [one.slips for one in read] == [one.slips for one in shown]
    for original, again in zip(shown, read, strict=True):
        nodes = zip(tokenize(original.tree, prompt, encoder).nodes, tokenize(again.tree, prompt, encoder).nodes, strict=True)
        for before, after in nodes:
            assert before.prompt == after.prompt
            assert before.completion == after.completion
            assert encoder.tokenizer.decode(after.completion[:-1]) == after.text


def test_slips_are_shown_and_recovered_from_but_not_learnt():
    shown = demonstrations(30, slips=0.3)
    wrong = [one.tree.nodes[i] for one in shown for i in one.slips]
    assert 0.15 < len(wrong) / sum(len(one.tree.nodes) for one in shown) < 0.35
    assert any(not node.admissible for node in wrong)
    seen = [one.tree.nodes[i - 1].observation for one in shown for i in one.slips]
    takes = [(node.action, before) for node, before in zip(wrong, seen, strict=True) if "Here is one" in node.reasoning]
    assert any(action.split()[1] not in before for action, before in takes), "the expert's idea of a beginner's mistake"
    assert all(node.well_formed for node in wrong)
    assert all(node.admissible for one in shown for i, node in enumerate(one.tree.nodes) if i not in one.slips)
    encoder = learnt_encoder(shown, PROMPT)
    for one in shown:
        tree = tokenize(one.tree, PROMPT, encoder)
        (row,) = packed_sequences([tree], [one.slips])
        learnt = [token for i, node in enumerate(tree.nodes) if i not in one.slips for token in node.completion]
        assert row.tokens[row.sampled].tolist() == learnt


@pytest.mark.parametrize("prompt_weight", [0.0, 0.3])
def test_a_slip_has_no_weight_even_where_prompts_have_some(prompt_weight):
    shown = demonstrations(20, slips=0.3)
    encoder = learnt_encoder(shown, PROMPT)
    tokenized = [replace(one, tree=tokenize(one.tree, PROMPT, encoder)) for one in shown]
    for one, example in zip(tokenized, _examples(tokenized, prompt_weight), strict=True):
        nodes = one.tree.nodes
        wanted: list[float] = []
        for i, node in enumerate(nodes):
            read = len(node.prompt) - len(wanted)
            wanted += [prompt_weight] * read + [0.0 if i in one.slips else 1.0] * len(node.completion)
        assert example["weights"] == wanted
        assert [label != -100 for label in example["labels"]] == [weight > 0 for weight in wanted]
    assert any(one.slips for one in tokenized)


def test_a_line_holds_task_prompt_completion_and_outcome(tmp_path):
    prompt = Prompt(Window(5), instructions="full")
    shown = demonstrations(2, prompt)
    save(shown, tmp_path / "demos.jsonl", prompt)
    lines = [json.loads(line) for line in (tmp_path / "demos.jsonl").read_text().splitlines()]
    assert len(lines) == sum(len(one.tree.nodes) for one in shown)
    first = lines[0]
    assert first["task"] == shown[0].tree.task.id
    assert first["prompt"] == list(prompt.render(shown[0].tree, -1, None).messages)
    assert first["completion"] == shown[0].tree.nodes[0].text
    assert first["success"] is True


def test_asking_for_too_many_or_from_a_world_without_expert_is_refused():
    with pytest.raises(UsageError, match="fewer than the 4000 demonstrations that it should give"):
        demonstrations(4000)

    class Silent:
        name = "silent"

    with pytest.raises(UsageError, match="silent has no expert"):
        asyncio.run(collect(Silent(), 1, level="L0", horizon=3, prompt=Prompt()))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Choosy(Household):
    """A household whose expert is only asked for tasks of one type."""

    def demonstrable(self, tasks: list[Task], horizon: int) -> Iterator[Task]:
        return (task for task in tasks if task.kind == "light" and horizon == 20)


def test_a_world_may_choose_what_is_demonstrated():
    world = Choosy(kinds=("place", "light"), train_tasks=60)
    shown = asyncio.run(collect(world, 5, level="L0", horizon=20, prompt=Prompt()))
    assert {demonstration.tree.task.kind for demonstration in shown} == {"light"}
    with pytest.raises(UsageError, match="won 0 of"):
        asyncio.run(collect(world, 5, level="L0", horizon=21, prompt=Prompt()))


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "demos.jsonl").write_text('{"trajectory": 0\n')
    with pytest.raises(StorageError, match=r"demos.jsonl line 1 is not JSON"):
        load(tmp_path / "demos.jsonl")
