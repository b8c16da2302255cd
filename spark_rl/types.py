"""The nouns of spark-rl: values that every other module passes around, and nothing else.

Invariants
----------
* A step is stored once, as a `Node`; a trajectory is a *view* (a list of node ids), never a copy.
* A node's parent comes before it in `Tree.nodes`, so one pass over the list meets parents first and one
  reversed pass meets children first.
* What was sampled is kept exactly: token ids and log-probabilities, never text that is tokenised again.

This module imports `errors` alone and no torch, so rollouts, criteria, estimators and reports stay light.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from typing import Any, Literal

from spark_rl.errors import UsageError, at_least, unknown_name

Mode = Literal["explore", "think", "planning", "reflection", "monitor"]
"""How a step reasons: SPARK's modes are `explore` and `think`, RLVMR's `explore` and the other three (`prompting.MODES`)."""
Moment = Literal["after", "decision"]
Level = Literal["L0", "L1", "L2"]
Split = Literal["train", "dev", "test"]
Message = Mapping[str, str]
"""A chat message: `{"role": "user" | "assistant" | "system", "content": text}`."""


@dataclass(frozen=True, slots=True)
class Task:
    """What the agent is asked: a value that can be written to a file and rebuilt from its id."""

    environment: str
    """Name of the world that plays it (`household`, `alfworld`, `package.module:Class`)."""
    id: str
    """Unique within its world, stable across versions; what `env tasks` prints and `env replay` reads."""
    instruction: str
    """The goal in words, as the agent reads it."""
    kind: str = ""
    """Task type, for per-type tables; empty where a world has only one."""
    data: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    """What the world needs to build it: JSON values only."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What an environment says after `reset` or `step`."""

    text: str
    listing: Sequence[str] | Callable[[], Sequence[str]] = ()
    """The admissible actions, or a function of no argument that lists them when somebody asks."""
    reward: float = 0.0
    """Raw: 0/1 or a score. Scaling is the recipe's business (`Rewards.scale`)."""
    done: bool = False
    success: bool = False
    """Whether the task is solved: said by the environment, never inferred from the reward."""
    admissible: bool = True
    """Whether the action that led here was one the environment knows and could carry out."""
    brief: Sequence[str] | Callable[[], Sequence[str]] = ()
    """What a prompt shows instead of the list where that is too long for one (forms of actions, names); empty: the list."""
    progress: Mapping[str, float] = field(default_factory=dict[str, float], hash=False)
    """How far the task has come, by measure, each from 0 to 1: reported, never trained on. Not all worlds say."""

    @property
    def shown(self) -> tuple[str, ...]:
        """What a prompt says about admissible actions."""
        return tuple(self.brief() if callable(self.brief) else self.brief) or self.actions

    @property
    def actions(self) -> tuple[str, ...]:
        """The admissible actions (computed at each call when the listing is lazy)."""
        return tuple(self.listing() if callable(self.listing) else self.listing)


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt to continue `len(seeds)` times."""

    task: Task
    messages: tuple[Message, ...]
    observation: Observation
    """The latest observation, for policies that do not read prompts (experts, a person)."""
    seeds: tuple[int, ...]
    """One seed a sample, so that its randomness does not depend on its neighbours."""
    prompt: tuple[int, ...] | None = None
    """Token ids of the rendered messages; None when no tokenizer is at work."""
    parent: tuple[int, ...] | None = None
    """Address of the step this one follows: (tree, *path), (tree,) before the first step. What an engine has kept
    under it may be reused as far as the token ids agree."""
    children: tuple[tuple[int, ...], ...] = ()
    """Address of each sample, under which an engine may keep its keys and values for the steps that follow."""
    history: tuple[str, ...] = ()
    """Actions executed so far on this path, oldest first."""
    truncated: int = 0
    """History steps and listed actions that had to be left out of the prompt."""
    max_tokens: int = 512
    temperature: float = 1.0
    """0 means greedy."""

    @property
    def n(self) -> int:
        """How many completions are asked for."""
        return len(self.seeds)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a completion cost, in tokens. Costs add."""

    generated: int = 0
    """Tokens sampled, those of completions that were thrown away for it included."""
    prefilled: int = 0
    """Prompt tokens that went through the model."""
    reused: int = 0
    """Prompt tokens whose keys and values came from a cache, or from a sibling that has the same prompt."""
    misses: int = 0
    """Prompts whose parent's cache had been evicted."""
    discarded: int = 0
    """Tokens of `generated` whose completion was thrown away."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class Completion:
    """What a policy answers: text, and for policies that can be trained the exact ids and log-probabilities."""

    text: str
    ids: tuple[int, ...] | None = None
    """Sampled token ids, the end-of-turn token included when it was sampled."""
    logprobs: tuple[float, ...] | None = None
    """Natural log-probabilities of `ids` under the tempered distribution, same length."""
    entropies: tuple[float, ...] | None = None
    """Entropy in nats of the tempered distribution that each of `ids` was drawn from; None when the policy does not say."""
    version: int = 0
    """Version of the weights that it was sampled from."""
    refused: str = ""
    """Why there is no completion; the tree is then dropped and named, never continued with an empty action."""
    cost: Cost = field(default=Cost(), compare=False)
    """What it cost. Prompt tokens that several completions share are in the cost of the first."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A prompt: messages for policies that read text, ids for those that read tokens."""

    messages: tuple[Message, ...]
    ids: tuple[int, ...] | None
    truncated: int
    """History steps and listed actions that were left out."""


@dataclass(frozen=True, slots=True)
class Situation:
    """What a prompt is written from: a path of a tree, and what stands before it."""

    tree: Tree
    path: tuple[int, ...]
    """Node ids from the first step to the last one taken; empty before the first step."""
    head: str
    """Instructions, if any, and the task."""
    list_actions: bool
    """Whether the prompt shows the admissible actions."""

    def observation(self, step: int) -> str:
        """What the agent saw before it took step `step` of the path (from 0); `len(path)` is the current observation."""
        return self.tree.nodes[self.path[step - 1]].observation if step else self.tree.observation

    def actions(self, step: int | None = None) -> tuple[str, ...]:
        """What could be done at step `step` of the path (None: now), where the prompt shows it."""
        if not self.list_actions:
            return ()
        taken = len(self.path) if step is None else step
        return self.tree.nodes[self.path[taken - 1]].actions if taken else self.tree.actions


@dataclass(frozen=True, slots=True)
class Parsed:
    """A completion as it is read (`Prompt.parse`)."""

    mode: Mode | None
    """None when there is not exactly one non-empty reasoning block."""
    reasoning: str
    action: str
    """What is sent to the environment: the only action block's content, or the empty string."""
    well_formed: bool
    """One non-empty reasoning block, then one non-empty action block, and nothing else."""


@dataclass(slots=True)
class Node:
    """One step: the prompt, what was sampled, and what the environment answered. Written once, never changed."""

    parent: int
    """Index of the previous step in `Tree.nodes`, or -1 for a first step."""
    path: tuple[int, ...]
    """Child numbers from the root initialisation down: unique in the tree, and the source of the step's seed."""
    prompt: tuple[int, ...]
    """Token ids the policy read; empty when it read none."""
    completion: tuple[int, ...]
    """Token ids the policy sampled; empty when it gave none."""
    logprobs: tuple[float, ...]
    text: str
    mode: Mode | None
    reasoning: str
    action: str
    well_formed: bool
    admissible: bool
    state_key: str
    """Key of the state *before* the action, for anchors and repeated actions."""
    observation: str
    """What the environment answered (the next observation)."""
    actions: tuple[str, ...]
    """What the next prompt says about admissible actions (`Observation.shown`); empty when it does not."""
    reward: float
    done: bool
    success: bool
    truncated: int = 0
    """History steps and listed actions that had to be left out of the prompt to make it fit."""
    entropies: tuple[float, ...] = ()
    """Entropy in nats of the tempered distribution that each token was drawn from; empty when the policy does not say."""
    progress: Mapping[str, float] = field(default_factory=dict[str, float])
    """How far the task had come after the step (`Observation.progress`)."""
    version: int = 0
    """Version of the weights that sampled it (`Learner.version`); 0 before any update, and for policies without weights."""

    @property
    def depth(self) -> int:
        """Steps from the start of the task: 1 for a first step."""
        return len(self.path)


@dataclass(frozen=True, slots=True)
class Fork:
    """A wish for more continuations; the rollout grants what the budget allows."""

    tree: int
    """Index of the tree in its forest."""
    node: int | None
    """The step to fork at; None opens new roots."""
    at: Moment
    """`after`: continue from the state the step led to (Eq. 6). `decision`: sample the step itself again (Eq. 8)."""
    extra: int
    """How many continuations beyond those that exist."""
    exclude: bool = False
    """Whether an action already taken from that state is drawn again (`resampling.resample` says what that costs)."""


@dataclass(slots=True)
class Tree:
    """All steps grown for one task. Its leaves form one group."""

    task: Task
    observation: str
    """The first observation, before any step."""
    actions: tuple[str, ...] = ()
    nodes: list[Node] = field(default_factory=list[Node])
    forks: list[Fork] = field(default_factory=list[Fork])
    """Every fork granted, in order, with `extra` as granted."""
    opened: int = 0
    """Leaves ever created: the roots and every granted continuation (what Eq. 7 is charged with)."""
    cap: int = 0
    """Most leaves it was allowed; 0 when it is not known (or, while it grows, because its environment failed)."""
    horizon: int = 0
    """Most steps a trajectory was allowed; 0 when it is not known."""

    def children(self) -> list[list[int]]:
        """Children of every node, in order of creation; the last entry (index -1) holds the roots."""
        below: list[list[int]] = [[] for _ in range(len(self.nodes) + 1)]
        for index, node in enumerate(self.nodes):
            below[node.parent].append(index)
        return below

    def leaves(self) -> list[int]:
        """Nodes without a child, in order of creation: one a trajectory."""
        inner = {node.parent for node in self.nodes}
        return [index for index in range(len(self.nodes)) if index not in inner]

    def trajectory(self, node: int) -> list[int]:
        """Node ids from the first step down to `node`, both included."""
        path: list[int] = []
        while node >= 0:
            path.append(node)
            node = self.nodes[node].parent
        return path[::-1]

    def leaves_below(self) -> list[int]:
        """How many trajectories pass through each node."""
        count = [0] * len(self.nodes)
        for leaf in self.leaves():
            count[leaf] = 1
        for index in range(len(self.nodes) - 1, -1, -1):
            if (parent := self.nodes[index].parent) >= 0:
                count[parent] += count[index]
        return count

    def returns(self) -> list[float]:
        """Sum of rewards along each trajectory, in the order of `leaves()`."""
        total: list[float] = []
        for node in self.nodes:
            total.append(node.reward + (total[node.parent] if node.parent >= 0 else 0.0))
        return [total[leaf] for leaf in self.leaves()]


@dataclass(slots=True)
class Spent:
    """What growing a forest (or an update, or an evaluation) cost. Counters add, nothing is estimated."""

    generated: int = 0
    """Tokens sampled."""
    prefilled: int = 0
    """Prompt tokens that went through the model."""
    reused: int = 0
    """Prompt tokens whose keys and values came from the cache."""
    misses: int = 0
    """Requests whose parent's cache had been evicted."""
    trained: int = 0
    """Tokens that went through the model with gradients."""
    env_steps: int = 0
    """Environment steps that made a node."""
    replayed: int = 0
    """Environment steps taken again to reach an earlier state."""
    env_forks: int = 0
    discarded: int = 0
    """Tokens of `generated` whose completion was thrown away, because its action had already been taken (`Fork.exclude`)."""
    states_kept: int = 0
    """Most environment states held at once for later forks; of two records the larger, not the sum."""
    failed: int = 0
    """Trees dropped because their environment failed."""
    restarts: int = 0
    """Processes of the environment that died or hung and were replaced; their states were reached again."""
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    """Wall-clock seconds by phase (`generate`, `environment`, `update`, ...)."""

    def __iadd__(self, other: Spent) -> Spent:
        for name in SPENT_COUNTERS:
            mine, theirs = getattr(self, name), getattr(other, name)
            setattr(self, name, max(mine, theirs) if name == "states_kept" else mine + theirs)
        for phase, seconds in other.seconds.items():
            self.seconds[phase] = self.seconds.get(phase, 0.0) + seconds
        return self

    def charge(self, cost: Cost) -> None:
        """Add what a completion cost."""
        self.generated += cost.generated
        self.prefilled += cost.prefilled
        self.reused += cost.reused
        self.misses += cost.misses
        self.discarded += cost.discarded

    def counts(self) -> dict[str, int]:
        """The counters without the clock."""
        return {name: getattr(self, name) for name in SPENT_COUNTERS}


SPENT_COUNTERS = tuple(field.name for field in fields(Spent) if field.name != "seconds")


@dataclass(slots=True)
class Forest:
    """The trees of one iteration and what they cost. Two forests are equal when their trees and counters are."""

    trees: list[Tree]
    iteration: int = 0
    seed: int = 0
    spent: Spent = field(default_factory=Spent)
    failures: list[str] = field(default_factory=list[str])
    """One sentence for each tree that was dropped."""
    version: int = 0
    """Version of the weights that began it; a node says which sampled it."""
    left: int = 0
    """While it grows: leaves of the forest's budget that are not opened yet, for `Branching.when_idle`."""

    def __iter__(self) -> Iterator[Tree]:
        return iter(self.trees)

    def __len__(self) -> int:
        return len(self.trees)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Forest) and self._identity() == other._identity()

    def _identity(self) -> tuple[Any, ...]:
        return self.trees, self.iteration, self.seed, self.version, self.spent.counts(), self.failures


@dataclass(frozen=True, slots=True)
class Credit:
    """What each node of a tree learns from, in the order of `Tree.nodes` (design rule 2).

    A node's policy term is `positive * min(r, 1 + high) + negative * max(r, 1 - low)`; its divergence, entropy and
    token count are multiplied by `weight`. Credit given per leaf sums the positive and the negative advantages of
    the leaves below and has `weight` = leaves below, which equals training one row a leaf. Credit given per node
    has weight 1.
    """

    positive: tuple[float, ...]
    negative: tuple[float, ...]
    weight: tuple[float, ...]


@dataclass(frozen=True)
class TreeShape:
    """How large a tree may grow."""

    budget: int = 8
    """N: leaves a tree on average; a forest of T tasks has at most T * budget."""
    roots: int = 4
    """M: independent first steps."""
    horizon: int = 30
    """K: most steps of a trajectory."""
    cap: int = 0
    """Most leaves of one tree; 0 means `budget`. Larger lets a strategy move leaves between tasks."""
    counted: Literal["created", "active"] = "created"
    """Which leaves are charged to the budget: all that were ever created, or those that are not finished (Eq. 7 to the
    letter), so that groups may outgrow N. Rules that wait for outcomes spend what is left: of `active` leaves nothing is."""

    def __post_init__(self) -> None:
        at_least("tree", self, budget=1, roots=1, horizon=1, cap=0)
        if self.counted not in ("created", "active"):
            raise unknown_name("tree.counted", self.counted, ("created", "active"))
        if self.roots > self.budget:
            raise UsageError(
                f"tree.roots is {self.roots}, more than tree.budget {self.budget}: lower roots or raise the budget"
            )
        if self.cap and self.cap < self.roots:
            raise UsageError(f"tree.cap is {self.cap}, less than tree.roots {self.roots}: raise it, or 0 for the budget")


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn."""

    temperature: float = 1.0
    """0 means greedy."""
    max_tokens: int = 512
    """Most tokens of a completion."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise UsageError(f"sampling.temperature is {self.temperature}: it must be 0 (greedy) or more")
        if self.max_tokens < 1:
            raise UsageError(f"sampling.max_tokens is {self.max_tokens}: it must be at least 1")
