"""A context is a component: one class that writes prompts, named on the command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from trees import TASK, node

from spark_rl.config.codec import decode, encode
from spark_rl.config.components import COMPONENTS, component
from spark_rl.config.options import parse
from spark_rl.config.recipe import Recipe
from spark_rl.contracts import Context, Encoder
from spark_rl.environments.household import Household
from spark_rl.errors import PromptTooLong, UsageError
from spark_rl.policies.scripted import RandomActions
from spark_rl.prompting.answers import ANSWERS
from spark_rl.prompting.encoder import ChatEncoder
from spark_rl.prompting.prompt import Prompt
from spark_rl.rollout.grow import grow_tree
from spark_rl.types import Message, Rendered, Request, Situation, Tree, TreeShape


@dataclass(frozen=True)
class Deeds:
    """What was done, newest first, and nothing of what was seen before now."""

    most: int = 3
    """Deeds that are shown."""

    def steps(self, taken: int) -> int:
        return min(self.most, taken)

    def write(self, situation: Situation, *, history: int, listed: int | None, encoder: Encoder | None) -> Rendered:
        taken, actions = len(situation.path), situation.actions()
        deeds = [f"Did: {situation.tree.nodes[step].action}" for step in situation.path[taken - history :][::-1]]
        lines = [situation.head, *deeds, f"Now: {situation.observation(taken)}", *actions[:listed]]
        messages: tuple[Message, ...] = ({"role": "user", "content": "\n".join(lines)},)
        cut = self.steps(taken) - history + len(actions) - len(actions[:listed])
        return Rendered(messages, encoder.conversation(messages) if encoder else None, cut)


class Letters:
    """A tokenizer of which each letter is a token."""

    eos_token_id = ord("$")

    def apply_chat_template(self, conversation, /, *, tokenize, add_generation_prompt):
        return "".join(message["content"] + "$" for message in conversation)

    def __call__(self, text, /, **_):
        return {"input_ids": [ord(letter) for letter in text]}

    def decode(self, ids, /):
        return "".join(map(chr, ids))


@dataclass
class Listening(RandomActions):
    """Chance, that remembers what it was asked."""

    heard: list[Request] = field(default_factory=list)

    async def sample(self, requests: Sequence[Request]):
        self.heard += requests
        return await super().sample(requests)


PLACE = f"{__name__}:Deeds"
WORLD = Household(train_tasks=2)


@pytest.mark.parametrize("name", [*COMPONENTS["prompt.context"], PLACE])
def test_every_context_keeps_the_contract(name):
    assert isinstance(component("prompt.context", name), Context)


def test_what_cannot_write_a_prompt_is_no_context():
    assert not isinstance(TreeShape(), Context)


def test_a_context_of_ones_own_is_chosen_on_the_command_line_and_writes_a_trees_prompts():
    recipe = parse(Recipe("r", WORLD), ["--prompt.context.most", "2", "--prompt.context", PLACE], "spark-rl train")
    assert type(recipe.prompt) is Prompt
    assert recipe.prompt == Prompt(Deeds(2))
    assert recipe == Recipe("r", WORLD, prompt=Prompt(Deeds(2))), "nothing else has changed"

    growth = replace(recipe, tree=TreeShape(budget=2, roots=2, horizon=4), prompt=replace(recipe.prompt, limit=10**6)).growth
    policy, task = Listening(), WORLD.tasks("L0", "train")[0]
    tree = asyncio.run(grow_tree(task, WORLD, policy, growth, seed=3, encoder=ChatEncoder(Letters())))

    assert len(tree.nodes) == 8
    assert {len(request.history) for request in policy.heard} == {0, 1, 2, 3}
    for request in policy.heard:
        lines = request.messages[0]["content"].split("\n")
        assert [line for line in lines if line.startswith("Did: ")] == [f"Did: {a}" for a in request.history[::-1][:2]]
        assert f"Now: {request.observation.text}" in request.messages[0]["content"]
        assert lines[-1] == request.observation.shown[-1]
    for step in tree.nodes:
        assert "".join(map(chr, step.prompt)).startswith("You are an expert agent")
        assert f"Task: {task.instruction}" in "".join(map(chr, step.prompt))


def test_a_context_of_ones_own_is_saved_with_the_recipe_and_its_fields_are_in_the_help(capsys):
    saved = json.loads(json.dumps(encode(Recipe("r", WORLD, prompt=Prompt(Deeds(7))))))
    assert saved["prompt"]["context"] == {"type": PLACE, "most": 7}
    assert decode(saved, foreign=lambda place: place == PLACE).prompt.context == Deeds(7)
    with pytest.raises(SystemExit):
        parse(Recipe("r", WORLD), ["--prompt.context", PLACE, "--help"], "spark-rl train")
    assert "Deeds that are shown" in " ".join(capsys.readouterr().out.split())


def test_a_mistake_in_a_contexts_field_names_the_option():
    with pytest.raises(UsageError, match=r'--prompt.context.most is "few": it must be a whole number'):
        parse(Recipe("r", WORLD), ["--prompt.context", PLACE, "--prompt.context.most", "few"], "spark-rl train")
    with pytest.raises(UsageError, match=r'unknown option "--prompt.context.history"'):
        parse(Recipe("r", WORLD), ["--prompt.context", PLACE, "--prompt.context.history", "1"], "spark-rl train")


@dataclass
class Attempts:
    """A context that only notes how it is asked; its prompt has 100 tokens, 10 a step and 1 an action."""

    asked: list[tuple[int, int | None]] = field(default_factory=list)

    def steps(self, taken: int) -> int:
        return taken

    def write(self, situation: Situation, *, history: int, listed: int | None, encoder: Encoder | None) -> Rendered:
        self.asked.append((history, listed))
        return Rendered((), (0,) * (100 + 10 * history + len(situation.actions()[:listed])), 0)


def attempts(limit: int) -> list[tuple[int, int | None]]:
    tree = Tree(TASK, "start", ("a", "b"))
    tree.nodes += [node(i - 1, (0,) * (i + 1), actions=tuple("abcdefg"), observation=f"saw {i}") for i in range(5)]
    context = Attempts()
    Prompt(context, limit=limit).render(tree, 4, None)
    return context.asked


def test_a_prompt_that_is_too_long_is_asked_for_with_less_history_and_then_with_fewer_actions():
    assert attempts(157) == [(5, None)]
    assert attempts(156) == [(5, None), (2, None)]
    assert attempts(107) == [(5, None), (2, None), (1, None), (0, None)]
    assert attempts(100) == [(5, None), (2, None), (1, None), (0, None), (0, 3), (0, 1), (0, 0)]
    with pytest.raises(PromptTooLong, match=r"prompt.limit is 99 tokens.*need 100"):
        attempts(99)


def test_a_situation_says_what_was_seen_and_could_be_done_before_each_step():
    tree = Tree(TASK, "start", ("a",))
    tree.nodes += [
        node(-1, (0,), observation="left", actions=("b",)),
        node(-1, (1,), observation="right", actions=("c", "d")),
        node(1, (1, 0), observation="door", actions=()),
    ]
    situation = Situation(tree, (1, 2), "head", list_actions=True)
    assert [situation.observation(step) for step in range(3)] == ["start", "right", "door"]
    assert [situation.actions(step) for step in range(3)] == [("a",), ("c", "d"), ()]
    assert situation.actions() == ()
    assert Situation(tree, (1,), "head", list_actions=True).actions() == ("c", "d")
    assert Situation(tree, (1,), "head", list_actions=False).actions() == ()


def test_every_form_of_answer_is_an_entry_of_one_table():
    with pytest.raises(UsageError, match=r'unknown prompt.instructions "raect"; did you mean "react"'):
        Prompt(instructions="raect")  # type: ignore[arg-type]
    for style, form in ANSWERS.items():
        head = Prompt(instructions=style).render(Tree(TASK, "start"), -1, None).messages[0]["content"]
        assert head.startswith(form.instructions("spark") or "Task: ")
