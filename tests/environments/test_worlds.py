"""Each shipped world offers the contract, and exactly the powers beyond it that it is listed with here.

The tables are typed, so pyright compares types; `isinstance` looks at names alone, so the arguments are compared here.
"""

from __future__ import annotations

import inspect
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from spark_rl.contracts import (
    Demonstrates,
    Describes,
    Environment,
    Fetches,
    FindsTasks,
    OutOfProcess,
    Policy,
    Restarts,
    SelectsTasks,
    SeveralExperts,
    Slipping,
    Unlimited,
    WithPlan,
    World,
)
from spark_rl.environments.alfworld import Alfworld
from spark_rl.environments.cards import Blackjack, EZPoints, NumberLine
from spark_rl.environments.household import Household
from spark_rl.environments.registry import WORLDS, find_task, load_world
from spark_rl.environments.scienceworld import ScienceWorld
from spark_rl.environments.sokoban import Sokoban
from spark_rl.environments.webshop import Webshop
from spark_rl.errors import UsageError
from spark_rl.types import Task

SHIPPED: tuple[World, ...] = (
    Household(), Alfworld(), ScienceWorld(), Sokoban(), EZPoints(), NumberLine(), Blackjack(), Webshop(),
)  # fmt: skip
DEMONSTRATE: tuple[Demonstrates, ...] = (
    Household(), Alfworld(), ScienceWorld(), Sokoban(), EZPoints(), NumberLine(), Blackjack(), Webshop(),
)  # fmt: skip
FIND_TASKS: tuple[FindsTasks, ...] = (
    Household(), Alfworld(), ScienceWorld(), Sokoban(), EZPoints(), NumberLine(), Blackjack(), Webshop(),
)  # fmt: skip
SEVERAL_EXPERTS: tuple[SeveralExperts, ...] = (Alfworld(),)
WITH_PLAN: tuple[WithPlan, ...] = (Household(), Alfworld())
SELECT_TASKS: tuple[SelectsTasks, ...] = (ScienceWorld(), Blackjack())
RESTART: tuple[Restarts, ...] = (ScienceWorld(),)
UNLIMITED: tuple[Unlimited, ...] = (ScienceWorld(), Webshop())
DESCRIBE: tuple[Describes, ...] = (Alfworld(), ScienceWorld(), Blackjack(), Webshop())
FETCH: tuple[Fetches, ...] = (Alfworld(), Webshop())

POWERS: dict[Any, tuple[Any, ...]] = {
    World: SHIPPED,
    Demonstrates: DEMONSTRATE,
    FindsTasks: FIND_TASKS,
    SeveralExperts: SEVERAL_EXPERTS,
    WithPlan: WITH_PLAN,
    SelectsTasks: SELECT_TASKS,
    Restarts: RESTART,
    Unlimited: UNLIMITED,
    Describes: DESCRIBE,
    Fetches: FETCH,
}
AT_HAND = ("household", "sokoban", "ezpoints", "numberline", "blackjack", "webshop")
"""Worlds that need neither data nor another program."""


def arguments(method: Any) -> list[tuple[str, Any, Any]]:
    return [(one.name, one.kind, one.default) for one in inspect.signature(method).parameters.values()]


def methods(contract: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(contract).items() if inspect.isfunction(value) and name[0] != "_"}


def test_every_world_of_the_command_line_is_shipped():
    assert [world.name for world in SHIPPED] == list(WORLDS)
    assert [load_world(name) for name in WORLDS] == list(SHIPPED)


@pytest.mark.parametrize("power", POWERS, ids=lambda power: power.__name__)
def test_isinstance_finds_a_power_where_it_is_listed_and_nowhere_else(power):
    assert [type(world).__name__ for world in SHIPPED if isinstance(world, power)] == [
        type(world).__name__ for world in POWERS[power]
    ]


@pytest.mark.parametrize("world", SHIPPED, ids=lambda world: world.name)
def test_the_methods_of_a_power_take_the_arguments_of_its_contract(world):
    for power, worlds in POWERS.items():
        if world in worlds:
            for name, declared in methods(power).items():
                assert arguments(getattr(type(world), name)) == arguments(declared), f"{power.__name__}.{name}"


@pytest.mark.parametrize("world", SHIPPED, ids=lambda world: world.name)
def test_a_worlds_fields_are_its_settings(world):
    assert is_dataclass(world)
    assert world == type(world)(**{field.name: getattr(world, field.name) for field in fields(world) if field.init})
    assert hash(world) == hash(type(world)()), "frozen, so that it can be a key"


@pytest.mark.parametrize("name", AT_HAND)
def test_environments_and_experts_keep_their_contracts(name):
    world = load_world(name)
    environment = world.make()
    assert isinstance(environment, Environment)
    assert not isinstance(environment, OutOfProcess)
    for method, declared in methods(Environment).items():
        assert arguments(getattr(type(environment), method)) == arguments(declared), method
    assert isinstance(world, Demonstrates)
    for tags in ("sparse", "dense"):
        expert = world.expert(tags)
        assert isinstance(expert, Policy)
        assert isinstance(expert, Slipping)
        assert arguments(type(expert).mistake) == arguments(Slipping.mistake)


class Plain:
    """Nothing beyond the contract."""

    name = "plain"

    def tasks(self, level: str, split: str) -> tuple[Task, ...]:
        if (level, split) != ("L1", "dev"):
            raise UsageError("not here")
        return (Task("plain", "a", "do a"), Task("plain", "b", "do b"))

    def make(self) -> Environment:
        return Household().make()


class Quick(Plain):
    """Finds tasks that are in no split."""

    def task(self, task_id: str) -> Task:
        return Task("plain", task_id, "any")


def test_a_task_is_looked_up_where_the_world_can_and_searched_for_where_it_cannot():
    assert find_task(Plain(), "b") == Task("plain", "b", "do b")
    with pytest.raises(UsageError, match='plain has no task "c"'):
        find_task(Plain(), "c")
    assert find_task(Quick(), "c") == Task("plain", "c", "any")
