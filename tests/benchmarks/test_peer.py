"""Both sides of `benchmarks/peer.py` do the same work: equal words, tokens, meaning and gradients, and equal counts."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import warnings
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from tiny import finished

pytest.importorskip("trl", reason="the peer is TRL, of the extra sft")
pytest.importorskip("datasets", reason="TRL takes its tasks from datasets, of the extra sft")

from peer import Ours, settings  # pyright: ignore[reportMissingImports]
from peer_trl import Counting, Episode, Turns, chosen, trainer_of  # pyright: ignore[reportMissingImports]

from spark_rl.learning.batch import pack
from spark_rl.learning.packing import Passes
from spark_rl.learning.update import accumulate
from spark_rl.recipes.algorithms import with_algorithm
from spark_rl.types import Forest, Tree

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # TRL sets options that transformers will drop
]

TASKS, SAMPLES, HORIZON = 2, 4, 5
LEAVES = TASKS * SAMPLES
SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "peer.py"


def model() -> Path:
    return finished()[0].checkpoints / "cold-start"


def recipe():
    small = settings(finished()[0].recipe, tasks=TASKS, samples=SAMPLES, horizon=HORIZON)
    return with_algorithm(small, "grpo")


@pytest.fixture(scope="module")
def played(tmp_path_factory) -> tuple[Forest, Counting]:
    """A forest of ours, and a trainer of TRL's that has played the same tasks; no weights have changed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        ours = Ours(recipe(), model(), tmp_path_factory.mktemp("ours"))
        growing = ours.executor.grow(chosen(recipe(), 1), recipe().growth, seed=0, iteration=1)
        trainer = trainer_of(recipe(), model(), 1, LEAVES, Turns(lambda *_: None), tmp_path_factory.mktemp("trl"))
        trainer._generate_and_score_completions([trainer.train_dataset[i // SAMPLES] for i in range(LEAVES)])
        return asyncio.run(growing), trainer


def paths(tree: Tree):
    return [[tree.nodes[node] for node in tree.trajectory(leaf)] for leaf in tree.leaves()]


def test_an_iteration_of_each_side(tmp_path):
    sizes = {"--tasks": TASKS, "--samples": SAMPLES, "--horizon": HORIZON, "--iterations": 1, "--rows": 4}
    judged = {"--evaluate": 1, "--judged": 2, "--json": tmp_path / "figures.json"}
    options = {"--run": finished()[0].directory, **sizes, **judged}
    command = [sys.executable, str(SCRIPT), *(str(word) for option in options.items() for word in option)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert set(figures["laps"]) == {"TRL", "grpo", "paper"}
    for side, laps in figures["laps"].items():
        assert len(laps) == 2  # with the warm-up
        for lap in laps:
            assert lap["trajectories"] == LEAVES if side != "paper" else lap["trajectories"] <= LEAVES
            assert lap["wins"] <= lap["trajectories"] <= lap["steps"] <= lap["trajectories"] * HORIZON
            assert lap["generated"] <= lap["steps"] * recipe().sampling.max_tokens
            assert lap["trained"] > lap["generated"] > 0
            assert (lap["reused"] == 0) == (side == "TRL")
            assert min(lap["rollout"], lap["update"], lap["prefilled"]) > 0
        assert set(figures["success"][side]) == {"0", "1", "2"}
    assert len({curve["0"] for curve in figures["success"].values()}) == 1
    rows = [line for line in done.stdout.splitlines() if line.startswith("|")]
    assert len(rows) == 5
    assert len({row.count("|") for row in rows}) == 1


def test_both_play_the_same_tasks_to_the_end(played):
    forest, trainer = played
    ids = [episode._tree.task.id for episode in trainer.environments]
    assert ids == [tree.task.id for tree in forest for _ in tree.leaves()]
    assert all(nodes[-1].done or len(nodes) == HORIZON for tree in forest for nodes in paths(tree))
    for episode in trainer.environments:
        nodes = episode._tree.nodes
        assert nodes[-1].done or len(nodes) == HORIZON
        assert not any(node.done for node in nodes[:-1])
    assert trainer.lap.steps == sum(len(episode._tree.nodes) for episode in trainer.environments)


def test_equal_answers_give_equal_words_tokens_and_success(played):
    forest, trainer = played
    trainer._batch_environments = [None]  # the one environment
    episode = Episode(recipe(), {tree.task.id: tree.task for tree in forest}, "over")
    compared = 0
    for tree in forest:
        for nodes in paths(tree):
            first = [{"role": "user", "content": episode.reset(task=tree.task.id)}]
            assert trainer._tokenize_prompts([first])[0] == [list(nodes[0].prompt)]
            for node, following in pairwise(nodes):
                message = {"role": "tool", "name": "act", "content": said(trainer, episode, node)}
                if node.completion[-1] == trainer.processing_class.eos_token_id:  # not cut
                    compared += 1
                    tail = trainer._get_tool_suffix_ids([message])
                    assert [*node.prompt, *node.completion, *tail] == list(following.prompt)
            assert said(trainer, episode, nodes[-1]) == "over"
            mine = episode._tree.nodes[-1]
            assert (mine.success, mine.reward, mine.observation) == (
                nodes[-1].success,
                nodes[-1].reward,
                nodes[-1].observation,
            )
            assert episode.get_reward() == sum(node.reward for node in nodes)
    assert compared > LEAVES


def said(trainer: Counting, episode: Episode, node) -> str:
    """What the environment answers to our node's tokens, which TRL decodes."""
    message = trainer.processing_class.parse_response(list(node.completion))
    arguments = message["tool_calls"][0]["function"]["arguments"]
    assert arguments == {"answer": node.text}
    return episode.act(**arguments)


def test_equal_trajectories_give_equal_gradients(played):
    forest, trainer = played
    trees = [won_by_turns(tree) for tree in forest]
    model = trainer.model
    model.zero_grad()
    trainer.current_gradient_accumulation_steps = 1
    trainer._compute_loss(model, rows_of(trees)).backward()
    theirs = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    model.zero_grad()
    batch = pack(trees, [recipe().rewards.credit(tree, recipe().advantage) for tree in trees])
    accumulate(model, None, batch, recipe().loss, Passes(recipe().sampling.temperature, 4096))
    ours = torch.cat([parameter.grad.flatten() for parameter in model.parameters()])
    assert ours.norm() > 0
    assert (ours - theirs).norm() < 1e-3 * ours.norm()  # TRL adds 1e-4 to the deviation


def won_by_turns(tree: Tree) -> Tree:
    """The tree with every third leaf won and the others lost, so that there is something to learn."""
    leaves = tree.leaves()
    nodes = [replace(node, reward=float(index in leaves[::3])) for index, node in enumerate(tree.nodes)]
    return replace(tree, nodes=nodes)


def rows_of(trees: list[Tree]) -> dict[str, torch.Tensor]:
    """The trajectories as TRL trains them: prompts padded on the left, what follows on the right."""
    prompts, rests, marks, advantages = [], [], [], []
    for tree in trees:
        returns = torch.tensor(tree.returns())
        advantages += ((returns - returns.mean()) / (returns.std() + 1e-4)).tolist()
        for nodes in paths(tree):
            row, sampled = [*nodes[-1].prompt, *nodes[-1].completion], []
            for node in nodes:
                sampled += [0] * (len(node.prompt) - len(sampled)) + [1] * len(node.completion)
            start = len(nodes[0].prompt)
            prompts.append(row[:start])
            rests.append(row[start:])
            marks.append(sampled[start:])
    width, length = max(map(len, prompts)), max(map(len, rests))

    def left(fill):
        return torch.tensor([[0] * (width - len(row)) + fill(row) for row in prompts])

    def right(rows):
        return torch.tensor([row + [0] * (length - len(row)) for row in rows])

    return {
        "prompt_ids": left(list),
        "prompt_mask": left(lambda row: [1] * len(row)),
        "completion_ids": right(rests),
        "completion_mask": right([[1] * len(row) for row in rests]),
        "tool_mask": right(marks),
        "advantages": torch.tensor(advantages),
        "num_items_in_batch": torch.tensor(float(sum(map(sum, marks)))),
    }
