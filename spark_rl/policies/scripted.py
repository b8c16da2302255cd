"""Policies that need no model: a script, chance, an expert who slips, and a person.

Invariant: what they say is well-formed (`prompting.respond`), unless a script says otherwise on purpose.
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
    """Says the same at the same depth, whatever happens; past its end it repeats its last line."""

    lines: Sequence[str]
    """Whole completions, or bare actions, which get a thought."""

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The line of each request's depth, once for each seed."""
        lines = [self.lines[min(len(request.history), len(self.lines) - 1)] for request in requests]
        texts = [line if "<" in line else respond("think", "As written.", line) for line in lines]
        return [[Completion(text)] * request.n for text, request in zip(texts, requests, strict=True)]


@dataclass
class RandomActions:
    """An admissible action at random, from the sample's own seed; explores with a fixed probability."""

    explore: float = 0.2
    """Probability that a step is in explore mode."""

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """One draw for each seed."""
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
    """Another policy that now and then does something wrong, as a beginner does.

    Where the policy knows what a beginner would do here (`contracts.Slipping`; it may have no answer), every other
    slip is that. Else it keeps its words and, a third each, takes some other admissible action, its own with another
    number, or the one it took last. What follows shows how to go on, which demonstrations without a flaw never do: what
    a learner does wrong and never saw mended, it repeats to the end.
    """

    policy: Policy
    probability: float
    slipped: set[tuple[str, tuple[int, ...]]] = field(default_factory=set[tuple[str, tuple[int, ...]]])
    """Task id and `Node.path` of the steps that were slips: a tree's place in its forest shifts when another one fails."""

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The other policy's answers, some with another action."""
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
        meant = parse(completion.text)
        kind = rng.randrange(3)
        if kind == 0:
            action = rng.choice(request.observation.actions or (meant.action,))
        elif kind == 1:
            numbers = list(re.finditer(r"\d+", meant.action))
            spot = rng.choice(numbers) if numbers else None
            action = (
                f"{meant.action[: spot.start()]}{rng.randint(1, 4)}{meant.action[spot.end() :]}" if spot else meant.action
            )
        else:
            action = request.history[-1] if request.history else meant.action
        if action == meant.action or meant.mode is None:
            return None
        return Completion(respond(meant.mode, meant.reasoning, action))


@dataclass
class Person:
    """Shows what there is to see and asks for an action on standard input, by its text or its number.

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
        # Where the list is too long to be shown, a number is itself an action or nothing.
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
