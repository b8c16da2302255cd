"""Faster, and word for word the same: the pure parts of TextWorld's PDDL engine compute each result once.

Invariant
---------
Every text, list of actions and verdict equals the stock engine's. Only pure functions are replaced, and copies of values
that nobody writes to.

Mechanism
---------
The stock engine translates each game into the planner's language four times before the first step, parses the same
grammar templates at every step, and deep-copies the names of all entities for every symbol it expands. Instead

* the translations of the last `GAMES` games stay in memory, packed: the planner's text, and of the translator's objects
  those that the engine reads later. The engine also asks for a second kind of translation, which only serves planning. It
  gets the first kind: correct, but slow to plan with (`Engine.plan` therefore calls the stock translator);
* a parsed template and a parsed query are cached by their text;
* contexts of the grammar are copied one level deep, since the grammar never changes entities, placeholders and facts;
* expressions of the grammar are compiled once, and get their names as arguments. The stock code puts the names among the
  local variables of a function, which Python 3.13 no longer allows: there the engine works only with this module.

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
from collections.abc import Callable, Iterable, Sequence
from types import CodeType, SimpleNamespace
from typing import Protocol, TypedDict

__all__ = ["GAMES", "VERSION", "install", "uninstall"]

VERSION = "1.7.0"
"""The version of textworld that these functions replace parts of."""
GAMES = 256
"""Most translations in memory, 20 to 65 kB each; the least recently used goes first."""

_stock: list[tuple[object, str, object]] = []
"""The replaced functions: (owner, name, original)."""


class _Operator(Protocol):
    """What the engine reads of an action of a translated game."""

    name: object
    parameters: object


class _Translated(Protocol):
    """What the engine reads of a translated game."""

    actions: Iterable[_Operator]
    types: object
    objects: object
    init: object


class _Context(TypedDict):
    """What the grammar knows while it expands a symbol; the stock engine has more keys than these two."""

    variables: dict[str, object]
    mapping: dict[object, object]


class _Symbol(Protocol):
    """A symbol of TextWorld's grammar."""

    expression: str
    context: _Context


_Translate = Callable[[str, str], tuple[_Translated, str]]


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


def _replace(owner: object, name: str, value: object) -> None:
    _stock.append((owner, name, vars(owner)[name]))
    setattr(owner, name, value)


def _translate_once(translate: _Translate) -> Callable[[str, str, bool, bool], tuple[object, str]]:
    packed: OrderedDict[bytes, bytes] = OrderedDict()

    @functools.lru_cache(maxsize=1)  # the engine asks four times while it loads a game
    def translation(domain: str, problem: str) -> tuple[object, str]:
        key = hashlib.sha256(f"{len(domain)} {domain}{problem}".encode()).digest()
        if key not in packed:
            task, text = translate(domain, problem)
            packed[key] = zlib.compress(pickle.dumps((_reduced(task), text)))
            if len(packed) > GAMES:
                packed.popitem(last=False)
        packed.move_to_end(key)
        return pickle.loads(zlib.decompress(packed[key]))

    def pddl2sas(domain: str, problem: str, verbose: bool = False, optimize: bool = False) -> tuple[object, str]:
        return translation(domain, problem)

    return pddl2sas


def _reduced(task: _Translated) -> SimpleNamespace:
    """The parts of a translated game that TextWorld's `PddlState` reads."""
    actions = [SimpleNamespace(name=action.name, parameters=action.parameters) for action in task.actions]
    return SimpleNamespace(actions=actions, types=task.types, objects=task.objects, init=task.init)


def _parse_once(parse: Callable[..., Sequence[_Symbol]]) -> Callable[..., list[_Symbol]]:
    @functools.lru_cache(maxsize=4096)
    def symbols(text: str, rule_name: str | None) -> Sequence[_Symbol]:
        return parse(text, rule_name=rule_name)

    def parse_and_convert(text: str, rule_name: str | None = None, **_: object) -> list[_Symbol]:
        # Copies, since an expansion writes its context into the symbols.
        return [copy.copy(symbol) for symbol in symbols(text, rule_name)]

    return parse_and_convert


def _copy_context(context: _Context) -> _Context:
    return context | {"variables": dict(context["variables"]), "mapping": dict(context["mapping"])}


def _copy_symbol(symbol: _Symbol, context: _Context) -> _Symbol:
    copied = copy.copy(symbol)
    copied.context = _copy_context(context)
    return copied


@functools.cache
def _compiled(expression: str) -> CodeType:
    return compile(expression, "<grammar>", "eval")


def _derive_value(terminal: Callable[[object], object]) -> Callable[..., list[object]]:
    def derive(symbol: _Symbol, context: _Context | None = None) -> list[object]:
        return [terminal(eval(_compiled(symbol.expression), {}, (context or symbol.context)["variables"]))]

    return derive
