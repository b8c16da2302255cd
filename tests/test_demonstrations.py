"""Demonstrations: won, written, read back, and rendered exactly as reinforcement learning renders."""

from __future__ import annotations

import asyncio
import json

import pytest

from spark_rl.data.demonstrations import collect, load, save, texts, tokenize
from spark_rl.environments.household import Household
from spark_rl.environments.replay import replay
from spark_rl.errors import StorageError, UsageError
from spark_rl.model import learn_tokenizer
from spark_rl.prompting import Encoder, Prompt, Transcript, Window
from spark_rl.types import Tree

WORLD = Household(train_tasks=40)
CONTEXTS = [Window(3), Transcript(), Transcript(repeat_actions=True)]


def demonstrations(count: int = 12, prompt: Prompt = Prompt(Transcript(), instructions="none")) -> list[Tree]:  # noqa: B008
    return asyncio.run(collect(WORLD, count, level="L2", horizon=30, prompt=prompt))


def test_every_demonstration_was_won_within_the_horizon_on_a_training_task():
    tasks = {task.id for task in WORLD.tasks("L2", "train")}
    for tree in demonstrations():
        assert tree.nodes[-1].success
        assert len(tree.nodes) <= 30
        assert tree.task.id in tasks
        assert all(node.well_formed and node.admissible for node in tree.nodes)
        seen = [tree.observation, *(node.observation for node in tree.nodes)]
        assert replay(WORLD.make(), tree.task, [node.action for node in tree.nodes], seen).success


def test_no_held_out_type_is_shown():
    assert {tree.task.kind for tree in demonstrations(40)} <= {"place", "clean", "heat", "light"}


def test_more_demonstrations_than_tasks_are_other_episodes():
    trees = demonstrations(80)
    assert len({(tree.task.id, tuple(node.action for node in tree.nodes)) for tree in trees}) > len(WORLD.tasks("L2", "train"))


@pytest.mark.parametrize("context", CONTEXTS)
def test_a_file_comes_back_with_the_tokens_of_a_rollout(tmp_path, context):
    prompt = Prompt(context, instructions="none")
    trees = demonstrations(6, prompt)
    save(trees, tmp_path / "demos.jsonl", prompt)
    encoder = Encoder(learn_tokenizer(texts(trees, prompt)))
    for original, read in zip(trees, load(tmp_path / "demos.jsonl"), strict=True):
        for before, after in zip(
            tokenize(original, prompt, encoder).nodes, tokenize(read, prompt, encoder).nodes, strict=True
        ):
            assert before.prompt == after.prompt
            assert before.completion == after.completion
            assert encoder.tokenizer.decode(after.completion[:-1]) == after.text


def test_a_line_holds_task_prompt_completion_and_outcome(tmp_path):
    prompt = Prompt(Window(5), instructions="full")
    trees = demonstrations(2, prompt)
    save(trees, tmp_path / "demos.jsonl", prompt)
    lines = [json.loads(line) for line in (tmp_path / "demos.jsonl").read_text().splitlines()]
    assert len(lines) == sum(len(tree.nodes) for tree in trees)
    first = lines[0]
    assert first["task"] == trees[0].task.id
    assert first["prompt"] == list(prompt.render(trees[0], -1, None).messages)
    assert first["completion"] == trees[0].nodes[0].text
    assert first["success"] is True


def test_asking_for_too_many_or_from_a_world_without_expert_is_refused():
    with pytest.raises(UsageError, match="fewer than the 4000 demonstrations asked for"):
        demonstrations(4000)

    class Silent:
        name = "silent"

    with pytest.raises(UsageError, match="silent has no expert"):
        asyncio.run(collect(Silent(), 1, level="L0", horizon=3, prompt=Prompt()))  # type: ignore[arg-type]


def test_a_broken_line_is_named(tmp_path):
    (tmp_path / "demos.jsonl").write_text('{"trajectory": 0\n')
    with pytest.raises(StorageError, match=r"demos.jsonl line 1 is not JSON"):
        load(tmp_path / "demos.jsonl")
