"""Which algorithm learns most from equal steps? A log-linear policy in the household's irreversible preset, in minutes.

The trees are grown by `grow_forest` and credited by the estimators that a language model is trained with; only policy and
optimizer are small (numpy). Each arm gets the same cold start, tasks and seeds, and the same number of generated steps.
Success on held-out tasks is read every few thousand steps; differences are paired by seed.

    python benchmarks/simulation.py --arms grpo strategic strategic_chains --seeds 8
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from loglinear import LogLinear, Options, Weights, gradient, stack
from numpy.typing import NDArray

from spark_rl.branching.chains import Chains
from spark_rl.config.recipe import Recipe
from spark_rl.contracts import Growth, Policy
from spark_rl.environments.household import Household
from spark_rl.environments.household.catalogue import CONDITIONS, LAMP, TOOLS, likelihood
from spark_rl.environments.household.houses import Goal
from spark_rl.experiments.compare.curves import paired
from spark_rl.prompting.parsing import parse
from spark_rl.prompting.prompt import Prompt
from spark_rl.prompting.window import Window
from spark_rl.recipes.algorithms import with_algorithm
from spark_rl.rollout.grow import grow_forest
from spark_rl.types import Completion, Forest, Request, Sampling, TreeShape

Floats = NDArray[np.float64]

WORLD = Household(preset="hard", receptacles=(9, 12), objects=10, train_tasks=2000, test_tasks=200)
BASE = Recipe(
    "simulation",
    WORLD,
    tree=TreeShape(budget=8, roots=4, horizon=20),
    prompt=Prompt(Window(history=0), instructions="none", list_actions=False),
    tasks_per_iteration=8,
)
RATE, CLIP, ROWS = 0.035, 0.2, 256
"""Adam's learning rate, PPO's clip, rows of an update."""

# -- what the policy sees -------------------------------------------------------------------------------------------

ADJECTIVES = [condition.adjective for condition in CONDITIONS]
SEEN = re.compile(rf"\ban? (?:({'|'.join(ADJECTIVES)}) )?([a-z]+ \d+)")
PHASES = ("search", "fetch", "treat", "bring", "wrong")
SORTS = (
    "go new", "go seen", "go there", "go tool", "go target", "open", "close", "take it", "take other", "put in target",
    "put away", "treat right", "treat wrong", "use", "inventory", "look",
)  # fmt: skip
LIKELY = len(PHASES) * len(SORTS)
"""The feature after phase and sort: how likely the place is to hold what is needed."""
HANDLING = LIKELY + 1
"""Then: kind of handling (take, move, treat) x condition x manner."""
FEATURES = HANDLING + 27


@dataclass
class Memory:
    """What a path has told: folded from its observations, one at a time."""

    places: tuple[str, ...]
    at: str = ""
    held: str = ""
    treated: bool = False
    delivered: str = ""
    inside: dict[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Place looked into -> what it held then."""
    condition: dict[str, int] = field(default_factory=dict[str, int])

    def after(self, action: str, text: str, goal: Goal) -> Memory:
        """The memory after one more step."""
        verb, words = action.split(" ")[0], action.split(" ")
        if not text.startswith("You "):
            return self
        if verb in ("go", "open"):
            at = " ".join(words[-2:])
            if text.endswith("It is closed."):
                return replace(self, at=at)
            found = SEEN.findall(text.partition(". ")[2])
            known = {name: ADJECTIVES.index(adjective) for adjective, name in found if adjective}
            inside = self.inside | {at: tuple(name for _, name in found)}
            return replace(self, at=at, inside=inside, condition=self.condition | known)
        name = " ".join(words[1:3])
        if verb == "take":
            rest = tuple(thing for thing in self.inside.get(self.at, ()) if thing != name)
            left = "" if self.delivered == self.at and name.startswith(f"{goal.object} ") else self.delivered
            return replace(self, held=name, treated=False, delivered=left, inside=self.inside | {self.at: rest})
        if verb == "move":
            here = (*self.inside.get(self.at, ()), name)
            there = name.startswith(f"{goal.object} ") and self.at.startswith(f"{goal.target} ")
            return replace(
                self, held="", inside=self.inside | {self.at: here}, delivered=self.at if there else self.delivered
            )
        return replace(self, treated=True) if verb == goal.kind else self


class Features:
    """Options of a request. Memories are kept by the address of the step they follow, parents before children."""

    def __init__(self) -> None:
        self.memories: dict[tuple[int, ...], Memory] = {}

    def __call__(self, request: Request) -> Options:
        """What can be done after the request's path; the path's earlier steps must have been asked about."""
        assert request.parent is not None
        goal = Goal.read(request.task.instruction)
        text = request.observation.text
        if len(request.parent) == 1:
            memory = Memory(tuple(name for _, name in SEEN.findall(text)))
        else:
            memory = self.memories[request.parent[:-1]].after(request.history[-1], text, goal)
        self.memories[request.parent] = memory
        actions = request.observation.actions
        needed, phase, wanted = situation(memory, goal)
        nouns = [name.split(" ")[0] for name in memory.places]
        share = dict(zip(memory.places, likelihood(needed, nouns), strict=True))
        rows = [feature_row(action, memory, goal, phase, wanted, share) for action in actions]
        index = np.array([[sort, LIKELY, HANDLING + max(manner, 0)] for sort, _, manner in rows])
        value = np.array([[1.0, likely, float(manner >= 0)] for _, likely, manner in rows])
        unseen = min(len(memory.places) - len(memory.inside), 12)
        return Options(actions, index, value, np.array([phase, len(PHASES) + unseen]))


def situation(memory: Memory, goal: Goal) -> tuple[str, int, set[str]]:
    """The noun that is needed now, the phase, and where what is needed is known to be."""
    if memory.held and not memory.held.startswith(f"{goal.object} "):
        return goal.object, PHASES.index("wrong"), set()
    needed = LAMP if memory.held else goal.object
    wanted = {place for place, names in memory.inside.items() if any(name.startswith(f"{needed} ") for name in names)}
    wanted -= {memory.delivered} - {""}
    if not memory.held or goal.kind == "light":
        return needed, PHASES.index("fetch" if wanted else "search"), wanted
    treat = goal.kind in TOOLS and not memory.treated
    return needed, PHASES.index("treat" if treat else "bring"), wanted


def feature_row(
    action: str, memory: Memory, goal: Goal, phase: int, wanted: set[str], share: dict[str, float]
) -> tuple[int, float, int]:
    """Phase and sort of the action, the likelihood of the place it searches, and how it handles what (-1: nothing)."""
    words = action.split(" ")
    verb, likely, kind, manner = words[0], 0.0, -1, -1
    if verb == "go":
        place = " ".join(words[2:4])
        noun = words[2]
        if place in wanted:
            sort = "go there"
        elif PHASES[phase] == "treat" and noun == TOOLS[goal.kind]:
            sort = "go tool"
        elif PHASES[phase] == "bring" and (place == memory.delivered or (not memory.delivered and noun == goal.target)):
            sort = "go target"
        else:
            sort = "go seen" if place in memory.inside else "go new"
            likely = share[place] if sort == "go new" and PHASES[phase] == "search" else 0.0
    elif verb in ("open", "close", "inventory", "look"):
        sort = verb
    else:
        sort, kind = handled_sort(verb, words, memory, goal)
        thing = memory.held if verb == "use" else " ".join(words[1:3])
        if thing in memory.condition:
            ends = [condition.handling(verb) for condition in CONDITIONS]
            manner = 9 * kind + 3 * memory.condition[thing] + ends.index(" ".join(words[-2:]))
    return phase * len(SORTS) + SORTS.index(sort), likely, manner


def handled_sort(verb: str, words: Sequence[str], memory: Memory, goal: Goal) -> tuple[str, int]:
    """What sort of handling it is, and which of take (0), move (1), treat or use (2)."""
    if verb == "take":
        return ("take it" if words[1] == goal.object and memory.at != memory.delivered else "take other"), 0
    if verb == "move":
        fits = words[1] == goal.object and (memory.at == memory.delivered if memory.delivered else words[4] == goal.target)
        return ("put in target" if fits else "put away"), 1
    if verb == "use":
        return "use", 2
    return ("treat right" if verb == goal.kind and words[1] == goal.object else "treat wrong"), 2


# -- learning -------------------------------------------------------------------------------------------------------


class Adam:
    """Adam, ascending."""

    def __init__(self, weights: Weights, rate: float) -> None:
        self.weights, self.rate, self.count = weights, rate, 0
        self.first = [np.zeros_like(w) for w in weights]
        self.second = [np.zeros_like(w) for w in weights]

    def step(self, slope: Weights) -> None:
        """Go up the slope; the weights are changed in place."""
        self.count += 1
        for w, g, m, v in zip(self.weights, slope, self.first, self.second, strict=True):
            m += 0.1 * (g - m)
            v += 0.001 * (g * g - v)
            w += self.rate * m / (1 - 0.9**self.count) / (np.sqrt(v / (1 - 0.999**self.count)) + 1e-8)


def push(up: Floats, down: Floats, old: Floats, total: float, own: Floats) -> Floats:
    """Coefficients of the gradient of sum (A+ min(r, 1 + clip) + A- max(r, 1 - clip)) / total."""
    ratio = np.exp(own - old)
    return (up * (ratio < 1 + CLIP) + down * (ratio > 1 - CLIP)) * ratio / total


def update(policy: LogLinear, adam: Adam, forest: Forest, recipe: Recipe, rng: random.Random) -> None:
    """One pass over the forest's nodes in mini-batches."""
    rows: list[tuple[tuple[int, ...], float, float, float, float]] = []
    for number, tree in enumerate(forest):
        credit = recipe.rewards.credit(tree, recipe.advantage)
        for node, up, down, weight in zip(tree.nodes, credit.positive, credit.negative, credit.weight, strict=True):
            rows.append(((number, *node.path), up, down, weight, sum(node.logprobs)))
    rng.shuffle(rows)
    for part in np.array_split(np.arange(len(rows)), max(1, round(len(rows) / ROWS))):
        chosen = [rows[i] for i in part]
        up, down, weight, old = (np.array([row[column] for row in chosen]) for column in (1, 2, 3, 4))
        decisions = stack([policy.shown[row[0]] for row in chosen])
        adam.step(gradient(policy.weights, decisions, partial(push, up, down, old, float(weight.sum()))))


@dataclass
class Watched:
    """The expert, with a note of what it chose from what."""

    expert: Policy
    features: Features
    shown: dict[tuple[int, ...], tuple[Options, int, bool]] = field(
        default_factory=dict[tuple[int, ...], tuple[Options, int, bool]]
    )

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The expert's answers."""
        answers = await self.expert.sample(requests)
        for request, completions in zip(requests, answers, strict=True):
            options = self.features(request)
            for address, completion in zip(request.children, completions, strict=True):
                said = parse(completion.text)
                self.shown[address] = options, options.actions.index(said.action), said.mode == "explore"
        return answers


def cold_start(seed: int, demonstrations: int = 40, steps: int = 10) -> Weights:
    """Weights after a few steps of supervised learning from the expert: about one success in eight."""
    weights = Weights(np.zeros(FEATURES), np.zeros(len(PHASES) + 13))
    features, growth = Features(), Growth(TreeShape(1, 1, BASE.tree.horizon), Chains(), BASE.prompt, Sampling())
    tasks = WORLD.tasks("L0", "train")[-demonstrations:]
    watched = Watched(WORLD.expert("sparse"), features)
    forest = asyncio.run(grow_forest(tasks, WORLD, watched, growth, seed=seed))
    good = {index for index, tree in enumerate(forest) if tree.nodes[-1].success}
    decisions = stack([shown for address, shown in watched.shown.items() if address[0] in good])
    adam = Adam(weights, 0.1)
    for _ in range(steps):
        adam.step(gradient(weights, decisions, lambda own: np.full(len(own), 1 / len(own))))
    return weights


# -- measuring ------------------------------------------------------------------------------------------------------


def held_out(weights: Weights, seed: int) -> float:
    """Success on held-out tasks, one trajectory each at the temperature of training."""
    growth = Growth(TreeShape(1, 1, BASE.tree.horizon), Chains(), BASE.prompt, Sampling())
    policy = LogLinear(Features(), weights)
    forest = asyncio.run(grow_forest(WORLD.tasks("L0", "test"), WORLD, policy, growth, seed=seed))
    return statistics.fmean(tree.nodes[-1].success for tree in forest)


@dataclass(frozen=True)
class Curve:
    """One run: held-out success over generated steps."""

    steps: tuple[int, ...]
    success: tuple[float, ...]

    def area(self, budget: int) -> float:
        """Mean success from 0 to `budget` steps (trapezes; the last value holds on)."""
        steps, success = np.array(self.steps, float), np.array(self.success)
        grid = np.linspace(0, budget, 201)
        return float(np.interp(grid, steps, success).mean())


def run(arm: str, seed: int, budget: int, every: int, start: Weights) -> Curve:
    """Train one arm until `budget` steps have been generated."""
    recipe = with_algorithm(BASE, arm)
    policy = LogLinear(Features(), Weights(start.action.copy(), start.explore.copy()))
    adam, rng = Adam(policy.weights, RATE), random.Random(seed)
    tasks = WORLD.tasks("L0", "train")
    steps, due, iteration = 0, every, 0
    marks, success = [0], [held_out(policy.weights, seed)]
    while steps < budget:
        chosen = random.Random(f"{seed} {iteration}").sample(tasks, recipe.tasks_per_iteration)
        policy.forget()
        policy.features = Features()
        forest = asyncio.run(grow_forest(chosen, WORLD, policy, recipe.growth, seed=seed, iteration=iteration))
        update(policy, adam, forest, recipe, rng)
        steps, iteration = steps + forest.spent.env_steps, iteration + 1
        if steps >= due:
            marks.append(steps)
            success.append(held_out(policy.weights, seed))
            due += every
    return Curve(tuple(marks), tuple(success))


def compare(arms: Sequence[str], seeds: Sequence[int], budget: int, every: int) -> dict[str, list[Curve]]:
    """Curves of each arm, one a seed, from the same start."""
    curves: dict[str, list[Curve]] = {arm: [] for arm in arms}
    for seed in seeds:
        start = cold_start(seed)
        for arm in arms:
            began = time.perf_counter()
            curves[arm].append(run(arm, seed, budget, every, start))
            success = " ".join(f"{value:.3f}" for value in curves[arm][-1].success)
            print(f"seed {seed} {arm:18} {success}  ({time.perf_counter() - began:.0f} s)", flush=True)
    return curves


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the arms, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arms", nargs="+", default=["grpo", "strategic"], help="the first is the baseline")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=30000, help="generated steps of a run")
    parser.add_argument("--every", type=int, default=5000, help="steps between evaluations")
    options = parser.parse_args(arguments)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    table(compare(options.arms, seeds, options.steps, options.every), options.steps)


def table(curves: dict[str, list[Curve]], budget: int) -> None:
    """Area under the curve and final success of each arm, and how far each is from the first arm's."""
    numbers = {
        arm: ([curve.area(budget) for curve in some], [curve.success[-1] for curve in some]) for arm, some in curves.items()
    }
    baseline = next(iter(numbers.values()))
    print("| arm | AUC | final success | AUC difference (95 %) | final difference (95 %) |\n|---|---|---|---|---|")
    for arm, both in numbers.items():
        cells = [f"{statistics.fmean(values):.3f}" for values in both]
        for mine, theirs in zip(both, baseline, strict=True):
            cells.append("-" if both is baseline else f"{paired(mine, theirs):+.3f}")
        print(f"| {arm} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
