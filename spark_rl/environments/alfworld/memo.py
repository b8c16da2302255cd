"""Faster, and word for word the same: the pure parts of TextWorld's PDDL engine compute each result once.

Invariant
---------
Every text, list of actions and verdict equals the stock engine's. Only pure functions are replaced, and copies of values
that nobody writes to.

Mechanism
---------
The stock engine translates each game into the planner's language four times before the first step, parses the same
grammar templates at every step, writes every admissible command anew at every step, and deep-copies the names of all
entities for every symbol it expands. Instead

* a game is translated once (`translations`), and what can be reached in it is found faster (`datalog`). The engine also
  asks for a second kind of translation, which only serves planning. It gets the first kind: correct, but slow to plan with
  (`Engine.plan` therefore calls the stock translator);
* the grammars of two games differ in the sentence of the task. The rest is parsed once;
* a parsed template and a parsed query are cached by their text;
* a command is written once for each operator of the planner, and again where facts that its template reads have changed;
* a query sorts only the facts that agree with what is known, and not all facts of a kind;
* contexts of the grammar are copied one level deep, since the grammar never changes entities, placeholders and facts;
* expressions of the grammar are compiled once, and get their names as arguments. The stock code puts the names among the
  local variables of a function, which Python 3.13 no longer allows: there the engine works only with this module.

The functions are private to TextWorld, so `install` does nothing on a version other than `VERSION`.
"""

from __future__ import annotations

import copy
import functools
import importlib
import importlib.metadata
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import starmap
from types import CodeType
from typing import Any, NamedTuple, Protocol, TypedDict

from spark_rl.environments.alfworld.datalog import PLANNER, reached
from spark_rl.environments.alfworld.translations import translation

__all__ = ["VERSION", "install", "uninstall"]

VERSION = "1.7.0"
"""The version of textworld that these functions replace parts of."""
_SENTENCE = re.compile(r'"rhs": "(Your task is to: [^"\\\[\]{}<>#|;]+)"')
"""The rule of a grammar that differs from game to game."""
_LIST = ("empty", "separator", "last_separator")
"""Ends of the names of the rules that write a list."""

_stock: list[tuple[object, str, object]] = []
"""The replaced functions: (owner, name, original)."""


class _Context(TypedDict):
    """What the grammar knows while it expands a symbol; the stock engine has more keys than these two."""

    variables: dict[str, object]
    mapping: dict[object, object]


class _Symbol(Protocol):
    """A symbol of TextWorld's grammar."""

    expression: str
    context: _Context


def install() -> bool:
    """Replace the slow functions, once for the whole process; returns whether they are replaced now."""
    textworld = importlib.import_module("textworld")
    if textworld.__version__ != VERSION or _stock:
        return bool(_stock)
    engine = importlib.import_module("textworld.envs.pddl.pddl")
    pddl = importlib.import_module("textworld.envs.pddl.logic")
    text = importlib.import_module("textworld.envs.pddl.textgen")
    logic = importlib.import_module("textworld.logic")
    translator = importlib.import_module("fast_downward.translate.build_model")
    if importlib.metadata.version("fast_downward_textworld") == PLANNER:
        _replace(translator, "compute_model", functools.partial(reached, translator=translator))
    _replace(text, "_parse_and_convert", _parse_once(text._parse_and_convert))
    _replace(text, "deepcopy", _copy_symbols)
    _replace(text, "copy_context", _copy_context)
    _replace(text.Symbol, "copy", _copy_symbol)
    _replace(text.EvalSymbol, "derive", _derive_value(text.TerminalSymbol))
    _replace(logic.Rule, "parse_conjunctive_query", staticmethod(functools.cache(logic.Rule.parse_conjunctive_query)))
    _replace(logic.State, "_all_applicable_assignments", _assignments(logic.Signature))
    _replace(pddl, "_parse_and_convert", _grammar_once(pddl._parse_and_convert, text))
    _replace(pddl.PddlState, "__init__", _start(pddl, logic))
    _replace(engine.PddlEnv, "_gather_infos", _gather(pddl, text, logic, engine.PddlEnv._gather_infos))
    return True


def uninstall() -> None:
    """Put the stock functions back."""
    while _stock:
        owner, name, original = _stock.pop()
        setattr(owner, name, original)


def _store(owner: object, name: str) -> dict[Any, Any]:
    """A dictionary that lives as long as an object of the engine."""
    return vars(owner).setdefault(name, {})


def _replace(owner: object, name: str, value: object) -> None:
    _stock.append((owner, name, vars(owner)[name]))
    setattr(owner, name, value)


# -- the start of a game ------------------------------------------------------------------------------------------------


def _grammar_once(parse: Callable[..., Any], text: Any) -> Callable[..., Any]:
    """Parse a game's grammar: (its actions by name, its rules). Nobody writes to either."""

    @functools.lru_cache(maxsize=16)
    def parsed(grammar: str, rule_name: str | None) -> Any:
        return parse(grammar, rule_name=rule_name)

    def parse_and_convert(grammar: str, rule_name: str | None = None) -> Any:
        sentences = _SENTENCE.findall(grammar)
        if len(sentences) != 1:
            return parsed(grammar, rule_name)
        actions, rules = parsed(grammar.replace(f'"{sentences[0]}"', '"Your task is to: ..."'), rule_name)
        own = text.ContextSensitiveGrammar()
        own.update(rules)
        own._rules["task"] = [copy.copy(rule) for rule in rules._rules["task"]]
        own._rules["task"][0].rhs = text._parse_and_convert(sentences[0], rule_name="symbols")
        return actions, own

    return parse_and_convert


def _start(pddl: Any, logic: Any) -> Callable[[Any, Any, str, Any], None]:
    """The state at the start of a game, as the stock function makes it from two translations."""

    def start(state: Any, library: Any, problem: str, rules: Any) -> None:
        found = translation(rules.domain, problem)
        state._facts, state._vars_by_type = defaultdict(set), defaultdict(set)
        state._vars_by_name, state._var_counts = {}, Counter()
        state._logic, state.downward_lib, state.pddl_problem = rules, library, problem
        state._actions = {name: _Operator(name, list(starmap(_Parameter, has))) for name, has in found.actions}
        for name, above in found.types:
            with suppress(ValueError):  # the type is there already
                rules.types.add(logic.Type(name, above))
        for load in (library.load_sas, library.load_sas_replan):
            load(found.sas.encode())
        state.name2type = kinds = dict(found.objects)
        stated = (logic.Proposition(name, [logic.Variable(arg, kinds[arg]) for arg in args]) for name, args in found.facts)
        state.add_facts(stated)
        atoms = (pddl.Atom * library.get_state_size())()
        library.get_state(atoms)
        state.add_facts(atom.get_fact(kinds) for atom in atoms if not atom._name.startswith(b"NegatedAtom "))

    return start


class _Parameter(NamedTuple):
    name: str
    type_name: str


class _Operator(NamedTuple):
    """What the engine reads of an action of a translated game."""

    name: str
    parameters: Sequence[_Parameter]


# -- commands -----------------------------------------------------------------------------------------------------------


class _Reads(NamedTuple):
    """What the expansion of a template may read."""

    predicates: frozenset[str]
    """Names of facts."""
    places: frozenset[object]
    """Placeholders of queries."""
    variables: frozenset[str]
    """Names in expressions."""

    def of(self, mapping: Mapping[Any, object]) -> tuple[object, ...]:
        """What is read of an action's things: all, where a query looks for further things, which must be others."""
        if not self.places <= mapping.keys():
            return tuple(mapping.items())
        return tuple(each for each in mapping.items() if each[0] in self.places or each[0].name in self.variables)


class _Known(NamedTuple):
    """An operator of the planner, read once in a game."""

    name: str
    action: Any
    read: tuple[object, ...]
    """The things of the action that its template reads."""


def _gather(pddl: Any, text: Any, logic: Any, stock: Callable[[Any], None]) -> Callable[[Any], None]:
    """Describe the environment's state, commands included."""

    def gather(env: Any) -> None:
        asked, facts, state = env.request_infos, env._pddl_state, env.state
        if asked.facts or asked.moves or asked.policy_commands:
            stock(env)
            return
        state["command_templates"] = sorted({action.template for action in env._logic.actions.values()})
        state["won"], state["lost"] = facts.check_goal(), False
        state["_entity_infos"], state["_facts"] = dict(env._entity_infos), list(facts.facts)
        state["last_action"], state["_last_action"] = None, env._last_action
        found = applicable(facts)
        read: dict[str, object] = {each.action.command_template: None for each in found}
        for template in read:
            names = _reads(template, facts._logic.grammar, text, logic).predicates
            read[template] = frozenset((kind, frozenset(some)) for kind, some in facts._facts.items() if kind.name in names)
        state["_valid_actions"] = [each.action for each in found]
        state["_valid_commands"] = [command(env, each, read[each.action.command_template]) for each in found]
        state["admissible_commands"] = sorted(set(state["_valid_commands"]))

    def applicable(facts: Any) -> list[_Known]:
        """The operators that the planner allows; of several with one name, the first."""
        library = facts.downward_lib
        operators = (pddl.fast_downward.Operator * library.get_applicable_operators_count())()
        library.get_applicable_operators(operators)
        facts._operators = {operator.id: operator for operator in operators}
        known: dict[int, _Known] = _store(facts, "_known")
        found: dict[str, _Known] = {}
        for number, operator in facts._operators.items():
            if number not in known:
                action = _action(facts, operator, logic)
                reads = _reads(action.command_template, facts._logic.grammar, text, logic)
                known[number] = _Known(operator.name, action, reads.of(action.mapping))
            found.setdefault(known[number].name, known[number])
        return list(found.values())

    def command(env: Any, each: _Known, facts: object) -> str:
        written: dict[object, str] = _store(env._pddl_state, "_commands")
        action, key = each.action, (each.action.command_template, each.read, facts)
        if key not in written:
            context = {
                "state": env._pddl_state,
                "facts": env.state["_facts"],
                "variables": {place.name: env._entity_infos[var.name] for place, var in action.mapping.items()},
                "mapping": action.mapping,
                "entity_infos": env._entity_infos,
            }
            names = {key: entity.name for key, entity in env._entity_infos.items()}
            written[key] = env._logic.grammar.derive(action.command_template, context).format(**names)
        return written[key]

    return gather


def _action(facts: Any, operator: Any, logic: Any) -> Any:
    """The action of an operator; its template stays as the grammar has it."""
    name, *arguments = operator.name.split()
    action = logic.Action(name=name, preconditions=[], postconditions=[])
    action.id = operator.id
    action.mapping = {
        logic.Placeholder(each.name.strip("?"), each.type_name): logic.Variable(argument, each.type_name)
        for each, argument in zip(facts._actions[name].parameters, arguments, strict=False)
    }
    action.command_template = facts._logic.actions[name].template
    action.feedback_rule = facts._logic.actions[name].feedback_rule
    return action


def _reads(template: str, grammar: Any, text: Any, logic: Any) -> _Reads:
    """What the expansion of a template may read, whichever of the grammar's rules apply."""
    known: dict[str, _Reads] = _store(grammar, "_reads")
    if template in known:
        return known[template]
    predicates, places, variables, visited = set[str](), set[object](), set[str](), set[str]()
    waiting = list(text._parse_and_convert(template, rule_name="symbols"))
    while waiting:
        symbol = waiting.pop()
        queries = [symbol.given] if isinstance(symbol, text.ConditionalSymbol) else []
        if isinstance(symbol, text.ListSymbol):
            waiting += [symbol.symbol, *(text.NonterminalSymbol(f"list_{end}") for end in _LIST)]
        elif isinstance(symbol, text.ConditionalSymbol):
            waiting.append(symbol.expression)
        elif isinstance(symbol, text.EvalSymbol):
            variables |= set(_compiled(symbol.expression).co_names)
        elif isinstance(symbol, text.NonterminalSymbol) and symbol.symbol not in visited:
            visited.add(symbol.symbol)
            for rule in grammar._rules.get(symbol.symbol, ()):
                queries.append(rule.condition)
                waiting += rule.rhs
        for query in filter(None, queries):
            for predicate in logic.Rule.parse_conjunctive_query(query).preconditions:
                predicates.add(predicate.name)
                places |= set(predicate.parameters)
    return known.setdefault(template, _Reads(frozenset(predicates), frozenset(places), frozenset(variables)))


# -- texts --------------------------------------------------------------------------------------------------------------


def _parse_once(parse: Callable[..., Sequence[_Symbol]]) -> Callable[..., list[_Symbol]]:
    @functools.lru_cache(maxsize=4096)
    def symbols(text: str, rule_name: str | None) -> Sequence[_Symbol]:
        return parse(text, rule_name=rule_name)

    def parse_and_convert(text: str, rule_name: str | None = None, **_: object) -> list[_Symbol]:
        return _copy_symbols(symbols(text, rule_name))

    return parse_and_convert


def _copy_context(context: _Context) -> _Context:
    return context | {"variables": dict(context["variables"]), "mapping": dict(context["mapping"])}


def _copied(symbol: _Symbol) -> _Symbol:
    copied = object.__new__(type(symbol))
    vars(copied).update(vars(symbol))
    return copied


def _copy_symbols(symbols: Sequence[_Symbol]) -> list[_Symbol]:
    """Symbols of a rule, for an expansion, which writes its context into them."""
    return [_copied(symbol) for symbol in symbols]


def _copy_symbol(symbol: _Symbol, context: _Context) -> _Symbol:
    copied = _copied(symbol)
    copied.context = _copy_context(context)
    return copied


@functools.cache
def _compiled(expression: str) -> CodeType:
    return compile(expression, "<grammar>", "eval")


def _derive_value(terminal: Callable[[object], object]) -> Callable[..., list[object]]:
    def derive(symbol: _Symbol, context: _Context | None = None) -> list[object]:
        return [terminal(eval(_compiled(symbol.expression), {}, (context or symbol.context)["variables"]))]

    return derive


def _assignments(signature: Callable[[str, list[str]], object]) -> Callable[..., Iterator[dict[object, object]]]:
    """The assignments that make a query true, in the stock function's order."""

    def assignments(
        state: Any, rule: Any, mapping: dict[object, object], used: set[object], new: list[list[object]], depth: int
    ) -> Iterator[dict[object, object]]:
        if depth >= len(rule.preconditions):
            yield from state._all_assignments(new[depth], mapping, used, False)
            return
        predicate, types = rule.preconditions[depth], state._logic.types
        for kinds in types.multi_subtypes([types.get(kind) for kind in predicate.signature.types]):
            kind = signature(predicate.signature.name, [each.name for each in kinds])
            bound = [(i, var) for i, place in enumerate(predicate.parameters) if (var := mapping.get(place)) is not None]
            facts = [fact for fact in state.facts_with_signature(kind) if all(fact.arguments[i] == var for i, var in bound)]
            for fact in sorted(facts):
                for place, var in zip(predicate.parameters, fact.arguments, strict=False):
                    if mapping.get(place) is None:
                        if var in used:
                            break
                        mapping[place] = var
                        used.add(var)
                    elif mapping[place] != var:
                        break
                else:
                    yield from state._all_applicable_assignments(rule, mapping, used, new, depth + 1)
                for place in new[depth]:
                    used.discard(mapping.pop(place, None))

    return assignments
