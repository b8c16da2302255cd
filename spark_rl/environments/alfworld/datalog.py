"""What can be reached in a game: the planner's translator finds it by rules, and this does so faster.

Invariant
---------
`reached` returns the atoms of the translator's `build_model.compute_model` in their order, without auxiliary ones, which the
translator does not read. So the translation is the same to the byte.

Mechanism
---------
The rules are the translator's own (`project`, `join`, `product`), applied to one new fact after the other. The stock code
copies arguments one by one, in Python, for each conclusion. Here a fact is a tuple, and the arguments of a conclusion are
picked from the facts by one `itemgetter` for each rule and condition.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import itemgetter
from typing import Any

__all__ = ["PLANNER", "reached"]

PLANNER = "20.6.4"
"""The version of fast-downward-textworld whose function this replaces."""

_Args = tuple[Any, ...]
_Fire = Callable[[_Args], Iterable[_Args]]
"""Takes the arguments of a new fact, and gives those of the conclusions."""
_Pick = Callable[[_Args], _Args]


def reached(program: Any, translator: Any) -> list[Any]:
    """All atoms that follow from a program of facts and rules.

    Args:
        program: the translator's program (`pddl_to_prolog`).
        translator: the module `fast_downward.translate.build_model`.
    """
    rules = translator.convert_rules(program)
    unifier = translator.Unifier(rules)
    fires = {(id(rule), index): fire for rule in rules for index, fire in enumerate(_fires(rule, translator))}
    queue = [(atom.predicate, tuple(atom.args)) for atom in sorted(fact.atom for fact in program.facts)]
    known = set(queue)
    for predicate, args in queue:  # grows meanwhile
        generator = unifier.predicate_to_rule_generator.get(predicate)
        if generator is None:
            continue
        matches: list[tuple[Any, int]] = []
        generator.generate(_Fact(args), matches)
        for rule, index in matches:
            concluded = rule.effect.predicate
            for conclusion in fires[id(rule), index](args):
                if (found := (concluded, conclusion)) not in known:
                    known.add(found)
                    queue.append(found)
    named = ((predicate, args) for predicate, args in queue if not (isinstance(predicate, str) and "$" in predicate))
    return [translator.pddl.Atom(predicate, args) for predicate, args in named]


class _Fact:
    """What the search for matching rules reads of a fact."""

    __slots__ = ("args",)

    def __init__(self, args: _Args) -> None:
        self.args = args


def _fires(rule: Any, translator: Any) -> list[_Fire]:
    """For each condition of a rule, the function that takes a fact for it."""
    if isinstance(rule, translator.JoinRule):
        return _joins(rule)
    if isinstance(rule, translator.ProductRule):
        return _products(rule)
    pick = _picking(rule.effect, [rule.conditions[0]])
    return [lambda args: (pick(args),)]


def _joins(rule: Any) -> list[_Fire]:
    indexes: tuple[dict[_Args, list[_Args]], dict[_Args, list[_Args]]] = ({}, {})

    def fire_for(index: int) -> _Fire:
        key = _getter(rule.common_var_positions[index])
        pick = _picking(rule.effect, [rule.conditions[index], rule.conditions[1 - index]])
        own, others = indexes[index], indexes[1 - index]

        def fire(args: _Args) -> list[_Args]:
            common = key(args)
            own.setdefault(common, []).append(args)
            return [pick(args + other) for other in others.get(common, ())]

        return fire

    return [fire_for(0), fire_for(1)]


def _products(rule: Any) -> list[_Fire]:
    lists: list[list[_Args]] = [[] for _ in rule.conditions]

    def fire_for(index: int) -> _Fire:
        others = [position for position in range(len(lists)) if position != index]
        pick = _picking(rule.effect, [rule.conditions[position] for position in (index, *others)])

        def fire(args: _Args) -> Iterator[_Args]:
            lists[index].append(args)
            for combined in itertools.product(*(lists[position] for position in others)):
                yield pick(args + tuple(itertools.chain.from_iterable(combined)))

        return fire

    return [fire_for(index) for index in range(len(lists))]


def _picking(effect: Any, conditions: Sequence[Any]) -> _Pick:
    """The function that picks a conclusion's arguments from the joined arguments of facts, one for each condition."""
    joined = itertools.chain.from_iterable(condition.args for condition in conditions)
    places = {variable: position for position, variable in enumerate(joined) if isinstance(variable, int)}
    constants = tuple(arg for place, arg in enumerate(effect.args) if place not in places)
    width = sum(len(condition.args) for condition in conditions)
    fixed = iter(range(width, width + len(constants)))
    pick = _getter([places[place] if place in places else next(fixed) for place in range(len(effect.args))])
    return (lambda args: pick(args + constants)) if constants else pick


def _getter(positions: Sequence[int]) -> _Pick:
    """The function that takes the values at some positions, as a tuple."""
    match positions:
        case []:
            return lambda args: ()
        case [position]:
            return lambda args: (args[position],)
        case _:
            return itemgetter(*positions)
