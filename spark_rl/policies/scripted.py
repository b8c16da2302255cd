"""Policies that need no model: a script, random actions, an expert with slips, and a person.

Invariant: their completions are well-formed (`prompting.respond`), unless a script is malformed on purpose.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from spark_rl.contracts import Policy, Slipping
from spark_rl.prompting.parsing import parse, respond
from spark_rl.types import Completion, Request

__all__ = ["Person", "RandomActions", "Script", "Slips"]


@dataclass
class Script:
    """Gives the n-th line at the n-th step of every episode; after its end it repeats its last line."""

    lines: Sequence[str]
    """Whole completions, or bare actions, to which a reasoning block is added."""

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The line for each request's step, once for each seed."""
        lines = [self.lines[min(len(request.history), len(self.lines) - 1)] for request in requests]
        texts = [line if "<" in line else respond("think", "As written.", line) for line in lines]
        return [[Completion(text)] * request.n for text, request in zip(texts, requests, strict=True)]


@dataclass
class RandomActions:
    """Takes random admissible actions by the sample's own seed, and explores with a fixed probability."""

    explore: float = 0.2
    """Probability that a step is in explore mode."""

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """A random action for each seed."""
        return [self._draw(request) for request in requests]

    def _draw(self, request: Request) -> list[Completion]:
        actions = request.observation.actions or ("look",)
        completions: list[Completion] = []
        for seed in request.seeds:
            rng = random.Random(seed)
            mode = "explore" if rng.random() < self.explore else "think"
            completions.append(Completion(respond(mode, "Any of these.", rng.choice(actions))))
        return completions


@dataclass
class Slips:
    """Another policy, some of whose actions are replaced by mistakes, as a beginner makes them.

    Where the policy knows a beginner's mistake (`contracts.Slipping`), half of the slips are this mistake. All other slips
    have the policy's reasoning and a wrong action: a random admissible action, the policy's action with another number, or
    the previous action again, a third each. The steps after a slip show how to recover, which flawless demonstrations never
    do: an agent that has never seen a recovery repeats its mistake to the end.
    """

    policy: Policy
    probability: float
    """Probability that a step is a slip."""
    slipped: set[tuple[str, tuple[int, ...]]] = field(default_factory=set[tuple[str, tuple[int, ...]]])
    """Task id and `Node.path` of the slips; not the tree's index in its forest, which shifts when another tree fails."""

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The other policy's completions, where some have another action."""
        answers = await self.policy.sample(requests)
        for request, completions in zip(requests, answers, strict=True):
            for number, (seed, address) in enumerate(zip(request.seeds, request.children, strict=True)):
                rng = random.Random(f"slip {seed}")
                if rng.random() < self.probability and (wrong := self._wrong(request, completions[number], rng)):
                    completions[number] = wrong
                    self.slipped.add((request.task.id, address[1:]))
        return answers

    def _wrong(self, request: Request, completion: Completion, rng: random.Random) -> Completion | None:
        if isinstance(self.policy, Slipping) and rng.random() < 0.5 and (wrong := self.policy.mistake(request)):
            return wrong
        parsed = parse(completion.text)
        kind = rng.randrange(3)
        if kind == 0:
            action = rng.choice(request.observation.actions or (parsed.action,))
        elif kind == 1:
            numbers = list(re.finditer(r"\d+", parsed.action))
            spot = rng.choice(numbers) if numbers else None
            action = (
                f"{parsed.action[: spot.start()]}{rng.randint(1, 4)}{parsed.action[spot.end() :]}" if spot else parsed.action
            )
        else:
            action = request.history[-1] if request.history else parsed.action
        if action == parsed.action or parsed.mode is None:
            return None
        return Completion(respond(parsed.mode, parsed.reasoning, action))


@dataclass
class Person:
    """A person at the terminal: prints the observation and reads an action, by its text or its number.

    `quit`, or the end of input, raises KeyboardInterrupt.
    """

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """One question for each seed."""
        return [[self._ask(request) for _ in request.seeds] for request in requests]

    def _ask(self, request: Request) -> Completion:
        from rich.columns import Columns
        from rich.console import Console
        from rich.text import Text

        console, seen = Console(highlight=False), request.observation
        # Where the list is too long to print, a number is not an index into the list.
        actions = () if seen.brief else seen.actions
        if not request.history:
            console.print(Text(f"Task: {request.task.instruction}", style="bold"))
        console.print(Text(request.observation.text))
        lines = [f"{i} {action}" for i, action in enumerate(actions, start=1)] or seen.shown
        console.print(Columns([Text(line, style="dim") for line in lines]))
        while True:
            try:
                answer = console.input("> ").strip()
            except EOFError as error:
                raise KeyboardInterrupt from error
            if answer == "quit":
                raise KeyboardInterrupt
            if actions and answer.isdecimal() and not 1 <= int(answer) <= len(actions):
                console.print(f"Give a number from 1 to {len(actions)}, an action, or quit.")
            elif answer:
                action = actions[int(answer) - 1] if actions and answer.isdecimal() else answer
                return Completion(respond("think", "A person chose this.", action))
