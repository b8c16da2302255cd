"""Scripts, chance and a person, all in the policy contract."""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from dataclasses import replace

import pytest

from spark_rl.contracts import Policy
from spark_rl.policies.scripted import Person, RandomActions, Script
from spark_rl.prompting.parsing import parse
from spark_rl.types import Observation, Request, Task

TASK = Task("none", "0", "find the door")


def request(
    n: int = 1, history: tuple[str, ...] = (), actions: tuple[str, ...] = ("north", "south"), start: int = 0
) -> Request:
    return Request(TASK, (), Observation("You see [nothing].", actions), tuple(range(start, start + n)), history=history)


def ask(policy: Policy, *requests: Request) -> list[list[str]]:
    assert isinstance(policy, Policy)
    answers = asyncio.run(policy.sample(requests))
    assert [len(answer) for answer in answers] == [each.n for each in requests]
    return [[completion.text for completion in answer] for answer in answers]


def test_a_script_goes_by_depth():
    script = Script(["north", "<explore>Which way?</explore><action>south</action>"])
    [[first], [second, also], [third]] = ask(script, request(), request(2, ("north",)), request(1, ("north", "south")))
    assert (parse(first).mode, parse(first).action) == ("think", "north")
    assert second == also == third == script.lines[1]


def test_chance_draws_from_the_list_by_seed_alone():
    policy = RandomActions(explore=0.25)
    [texts] = ask(policy, request(2000))
    [alone], [again] = ask(policy, request(start=7), request(start=7, actions=("north", "south")))
    assert alone == again == texts[7]
    parsed = [parse(text) for text in texts]
    assert all(each.well_formed for each in parsed)
    assert 900 < Counter(each.action for each in parsed)["north"] < 1100
    assert 430 < Counter(each.mode for each in parsed)["explore"] < 570
    assert {parse(text).mode for text in ask(RandomActions(explore=0.0), request(50))[0]} == {"think"}


def test_chance_without_a_list_still_answers():
    assert parse(ask(RandomActions(), request(actions=()))[0][0]).well_formed


def typed(monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))


def test_a_person_answers_by_text_or_number(monkeypatch, capsys):
    typed(monkeypatch, "2\n")
    assert parse(ask(Person(), request())[0][0]).action == "south"
    shown = capsys.readouterr().out
    assert "Task: find the door" in shown
    assert "You see [nothing]." in shown, "brackets are text, not markup"
    assert "1 north" in shown
    typed(monkeypatch, "\n 9\n dance on the table \n")
    assert parse(ask(Person(), request(history=("north",)))[0][0]).action == "dance on the table"
    shown = capsys.readouterr().out
    assert "a number from 1 to 2" in shown
    assert "Task" not in shown


def test_a_person_sees_the_short_form_of_a_long_list_and_numbers_stay_numbers(monkeypatch, capsys):
    asked = request()
    asked = replace(asked, observation=replace(asked.observation, brief=("OBJ is one of: door, key", "open OBJ")))
    typed(monkeypatch, "1\n")
    assert parse(ask(Person(), asked)[0][0]).action == "1"
    shown = capsys.readouterr().out
    assert "open OBJ" in shown
    assert "north" not in shown


@pytest.mark.parametrize("lines", ["quit\n", ""])
def test_a_person_may_leave(monkeypatch, lines):
    typed(monkeypatch, lines)
    with pytest.raises(KeyboardInterrupt):
        ask(Person(), request())
