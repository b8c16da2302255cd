"""RLVMR's modes said by rule: which mode a step is in, in whose words, and that nothing else changes."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest
from shown import WORLD
from trees import TASK

from spark_rl.data.demonstrations import collect
from spark_rl.data.format import Demonstration
from spark_rl.environments.alfworld.search import Goal
from spark_rl.environments.registry import find_task
from spark_rl.policies.four_modes import FourModes, in_modes
from spark_rl.policies.scripted import Script
from spark_rl.prompting.instructions import MODES
from spark_rl.prompting.parsing import respond
from spark_rl.prompting.prompt import Prompt
from spark_rl.types import Observation, Request

RLVMR = Prompt(modes="rlvmr")


def said(line: str, *, first: bool = False, admissible: bool = True, plan=None) -> str:
    """What a line is said as after an observation."""
    request = Request(TASK, (), Observation("seen", admissible=admissible), (7,), history=() if first else ("look",))
    ((completion,),) = asyncio.run(FourModes(Script([line]), plan).sample([request]))
    return completion.text


def demonstrations(prompt: Prompt, slips: float = 0.3) -> list[Demonstration]:
    return asyncio.run(collect(WORLD, 12, level="L2", horizon=30, prompt=prompt, tags="dense", slips=slips))


def test_the_first_rule_that_applies_names_the_mode():
    explore, think = respond("explore", "Where?", "go"), respond("think", "On.", "go")
    assert said(explore) == "<explore>Where?</explore><action>go</action>"
    assert said(think) == "<monitor>On.</monitor><action>go</action>"
    assert said(explore, first=True) == "<planning>Where?</planning><action>go</action>"
    plan = said(explore, first=True, plan=lambda task: f"Step 1: {task.instruction}.")
    assert plan == "<planning>Step 1: find the key.</planning><action>go</action>"
    for line, reason in ((explore, "Where?"), (think, "On.")):
        assert said(line, admissible=False) == f"<reflection>That did not work. {reason}</reflection><action>go</action>"
    assert said("<think>nothing done") == "<think>nothing done", "what is malformed stays so"


def test_the_steps_of_a_plan_are_those_of_its_kind():
    plans = {task.kind: WORLD.plan(task) for task in WORLD.tasks("L0", "train")}
    assert plans["light"].startswith("Step 1: find a")
    assert plans["light"].endswith("Step 2: look at it under a desklamp.")
    assert replace(WORLD, kinds=("two",)).plan(replace(TASK, instruction="put a mug and another mug in a cabinet")) == (
        "Step 1: find a mug. Step 2: put it in a cabinet. Step 3: do the same with another one."
    )
    assert WORLD.plan(replace(TASK, instruction="clean an egg and put it on a desk")) == (
        "Step 1: find an egg. Step 2: clean it. Step 3: put it on a desk."
    )
    assert Goal.read("put a hot mug in cabinet").plan == "Step 1: find a mug. Step 2: heat it. Step 3: put it in a cabinet."


def test_demonstrations_are_those_of_the_expert_in_other_words():
    ours, theirs = demonstrations(Prompt()), demonstrations(RLVMR)
    seen: Counter[str | None] = Counter()
    for spark, rlvmr in zip(ours, theirs, strict=True):
        assert rlvmr.slips == spark.slips
        assert [node.action for node in rlvmr.tree.nodes] == [node.action for node in spark.tree.nodes]
        assert find_task(WORLD, rlvmr.tree.task.id) == rlvmr.tree.task
        refused = False
        for step, (node, before) in enumerate(zip(rlvmr.tree.nodes, spark.tree.nodes, strict=True)):
            other = "explore" if before.mode == "explore" else "monitor"
            assert node.mode == ("reflection" if refused else "planning" if step == 0 else other)
            assert node.well_formed
            refused = not node.admissible
            seen[node.mode] += 1
    assert set(seen) == set(MODES["rlvmr"]), "each of them occurs"


@pytest.mark.parametrize("prompt", [Prompt(), Prompt(instructions="react")])
def test_other_prompts_leave_the_policy_as_it_is(prompt):
    policy = Script(["go"])
    assert in_modes(policy, prompt, WORLD) is policy
    assert in_modes(policy, RLVMR, WORLD) is not policy
