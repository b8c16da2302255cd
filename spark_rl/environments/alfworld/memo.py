# pyright: standard
"""Faster, and word for word the same: pure work of TextWorld's PDDL engine is done once instead of again and again.

Invariant
---------
Every text, list of actions and verdict equals the stock engine's. What is replaced is a pure function, or a copy of
values that nobody writes to.

Mechanism
---------
The stock engine translates each game into the planner's language four times before the first step, parses the same
grammar templates at every step, and deep-copies the names of all entities for every symbol it expands. Here

* a translation is kept for the `GAMES` games seen last, packed: the planner's text, and of the translator's objects the
  few that are read again; the second kind of translation, which only serves planning, is the first one again (correct,
  but slow to plan with: `Engine.plan` loads the other one itself);
* a parsed template and a parsed query are kept by their text;
* contexts of the grammar are copied one level deep: entities, placeholders and facts are never changed by it;
* expressions of the grammar are compiled once, and given their names outright: the stock code puts them among the local
  variables of a function, which Python 3.13 no longer allows, so that there the engine works only with this module.

The functions are private to TextWorld, so `install` does nothing on a version other than `VERSION`.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import importlib
import pickle
import zlib
from collections import OrderedDict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

__all__ = ["GAMES", "VERSION", "install", "uninstall"]

VERSION = "1.7.0"
"""The version of textworld whose private functions are known."""
GAMES = 256
"""Translations kept, the least recently used dropped first: 20 to 65 kB each."""

_stock: list[tuple[Any, str, Any]] = []
"""What was replaced: (owner, name, original)."""


def install() -> bool:
    """Replace the slow functions, once for the whole process; returns whether they are replaced now."""
    textworld = importlib.import_module("textworld")
    if textworld.__version__ != VERSION or _stock:
        return bool(_stock)
    planner = importlib.import_module("fast_downward")
    text = importlib.import_module("textworld.envs.pddl.textgen")
    rule = importlib.import_module("textworld.logic").Rule
    _replace(planner, "pddl2sas", _translate_once(planner.pddl2sas))
    _replace(text, "_parse_and_convert", _parse_once(text._parse_and_convert))
    _replace(text, "copy_context", _copy_context)
    _replace(text.Symbol, "copy", _copy_symbol)
    _replace(text.EvalSymbol, "derive", _derive_value(text.TerminalSymbol))
    _replace(rule, "parse_conjunctive_query", staticmethod(functools.cache(rule.parse_conjunctive_query)))
    return True


def uninstall() -> None:
    """Put the stock functions back."""
    while _stock:
        owner, name, original = _stock.pop()
        setattr(owner, name, original)


def _replace(owner: Any, name: str, value: Any) -> None:
    _stock.append((owner, name, vars(owner)[name]))
    setattr(owner, name, value)


def _translate_once(translate: Callable[..., Any]) -> Callable[..., Any]:
    packed: OrderedDict[bytes, bytes] = OrderedDict()

    @functools.lru_cache(maxsize=1)  # loading a game asks four times
    def kept(domain: str, problem: str) -> tuple[Any, str]:
        key = hashlib.sha256(f"{len(domain)} {domain}{problem}".encode()).digest()
        if key not in packed:
            task, text = translate(domain, problem)
            packed[key] = zlib.compress(pickle.dumps((_read_again(task), text)))
            if len(packed) > GAMES:
                packed.popitem(last=False)
        packed.move_to_end(key)
        return pickle.loads(zlib.decompress(packed[key]))

    def pddl2sas(domain: str, problem: str, verbose: bool = False, optimize: bool = False) -> tuple[Any, str]:
        return kept(domain, problem)

    return pddl2sas


def _read_again(task: Any) -> SimpleNamespace:
    """What TextWorld's `PddlState` reads of a translated task."""
    actions = [SimpleNamespace(name=action.name, parameters=action.parameters) for action in task.actions]
    return SimpleNamespace(actions=actions, types=task.types, objects=task.objects, init=task.init)


def _parse_once(parse: Callable[..., Any]) -> Callable[..., Any]:
    kept = functools.lru_cache(maxsize=4096)(lambda text, rule_name: parse(text, rule_name=rule_name))

    def parse_and_convert(text: str, rule_name: str | None = None, **_: Any) -> list[Any]:
        # Copies, since an expansion writes its context on the symbols it was given.
        return [copy.copy(symbol) for symbol in kept(text, rule_name)]

    return parse_and_convert


def _copy_context(context: dict[str, Any]) -> dict[str, Any]:
    return context | {"variables": dict(context["variables"]), "mapping": dict(context["mapping"])}


def _copy_symbol(symbol: Any, context: dict[str, Any]) -> Any:
    copied = copy.copy(symbol)
    copied.context = _copy_context(context)
    return copied


def _derive_value(terminal: type) -> Callable[..., Any]:
    compiled = functools.cache(lambda expression: compile(expression, "<grammar>", "eval"))

    def derive(symbol: Any, context: dict[str, Any] | None = None) -> list[Any]:
        return [terminal(eval(compiled(symbol.expression), {}, (context or symbol.context)["variables"]))]

    return derive
