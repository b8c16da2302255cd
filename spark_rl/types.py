"""The nouns of spark-rl: the values that all other modules pass around.

Invariants
----------
* A step is stored once, as a `Node`; a trajectory is a *view* (a list of node ids), never a copy.
* In `Tree.nodes` a parent comes before its children: a pass over the list meets parents first, a reversed pass children.
* Sampled tokens are stored exactly, as ids and log-probabilities. Text is never tokenised a second time.

This module imports `errors` alone and no torch, so rollouts, rules, estimators and reports stay light.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from typing import Any, Literal

from spark_rl.errors import UsageError, at_least, unknown_name

Mode = Literal["explore", "think", "planning", "reflection", "monitor"]
"""How a step reasons. SPARK has `explore` and `think`; RLVMR has `explore` and the last three (`prompting.MODES`)."""
Moment = Literal["after", "decision"]
Level = Literal["L0", "L1", "L2"]
Split = Literal["train", "dev", "test"]
Message = Mapping[str, str]
"""A chat message: `{"role": "user" | "assistant" | "system", "content": text}`."""


@dataclass(frozen=True, slots=True)
class Task:
    """What the agent has to do: a value that can be written to a file and rebuilt from its id."""

    environment: str
    """Name of the world that plays it (`household`, `alfworld`, `package.module:Class`)."""
    id: str
    """Unique within its world and stable across versions; `env tasks` prints it, `env replay` reads it."""
    instruction: str
    """The goal in words, as the agent reads it."""
    kind: str = ""
    """Task type, for per-type tables; empty where a world has only one."""
    data: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)
    """What the world needs to build the task: JSON values only."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What an environment answers to `reset` or `step`."""

    text: str
    listing: Sequence[str] | Callable[[], Sequence[str]] = ()
    """The admissible actions, or a function without arguments that lists the actions on demand."""
    reward: float = 0.0
    """Raw reward, 0/1 or a score. The recipe scales rewards (`Rewards.scale`)."""
    done: bool = False
    success: bool = False
    """Whether the task is solved, as the environment reports; never inferred from the reward."""
    admissible: bool = True
    """Whether the environment knew the last action and could carry it out."""
    brief: Sequence[str] | Callable[[], Sequence[str]] = ()
    """What a prompt shows where the list of actions is too long (forms of actions, names); empty: the list."""
    progress: Mapping[str, float] = field(default_factory=dict[str, float], hash=False)
    """Progress on the task by measure, from 0 to 1. Progress is reported and never trained on; not all worlds have it."""

    @property
    def shown(self) -> tuple[str, ...]:
        """What a prompt shows of the admissible actions."""
        return tuple(self.brief() if callable(self.brief) else self.brief) or self.actions

    @property
    def actions(self) -> tuple[str, ...]:
        """The admissible actions (computed at each call when the listing is lazy)."""
        return tuple(self.listing() if callable(self.listing) else self.listing)


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt that is to be continued `len(seeds)` times."""

    task: Task
    messages: tuple[Message, ...]
    observation: Observation
    """The latest observation, for policies that do not read prompts (experts, a person)."""
    seeds: tuple[int, ...]
    """One seed for each sample, so that a sample does not depend on the samples beside it."""
    prompt: tuple[int, ...] | None = None
    """Token ids of the rendered messages; None when no tokenizer is at work."""
    parent: tuple[int, ...] | None = None
    """Address of the previous step: (tree, *path), and (tree,) before the first step. An engine may reuse keys and
    values that it stored under this address, as far as the token ids agree."""
    children: tuple[tuple[int, ...], ...] = ()
    """Address of each sample. An engine may store keys and values under it for the next step."""
    history: tuple[str, ...] = ()
    """Actions executed so far on this path, oldest first."""
    truncated: int = 0
    """Number of history steps and listed actions that the prompt had to leave out."""
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
    """Tokens sampled, including those of completions that this one replaced."""
    prefilled: int = 0
    """Prompt tokens that went through the model."""
    reused: int = 0
    """Prompt tokens whose keys and values came from a cache, or from a sibling that has the same prompt."""
    misses: int = 0
    """Prompts whose parent was no longer in the cache."""
    discarded: int = 0
    """Tokens of `generated` that belong to replaced completions."""
    preempted: int = 0
    """How often its keys and values were given up for want of memory, and computed again."""
    restarts: int = 0
    queued: int = 0
    """Milliseconds that it waited in the engine until it ran."""

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer of a policy: text and, for policies that can be trained, exact token ids and log-probabilities."""

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
    """Why the policy gives no completion. The tree is then dropped and named; it never goes on with an empty action."""
    cost: Cost = field(default=Cost(), compare=False)
    """What the completion cost. Prompt tokens that several completions share are in the cost of the first."""


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
    """What a completion means, as `Prompt.parse` reads it."""

    mode: Mode | None
    """None unless the completion has exactly one non-empty reasoning block."""
    reasoning: str
    action: str
    """The action that goes to the environment: the content of the only action block, or the empty string."""
    well_formed: bool
    """Whether it is one non-empty reasoning block, then one non-empty action block, and nothing else."""


@dataclass(slots=True)
class Node:
    """One step: the prompt, the sampled completion, the environment's answer. A node is written once and never changed."""

    parent: int
    """Index of the previous step in `Tree.nodes`, or -1 for a first step."""
    path: tuple[int, ...]
    """Child numbers from the root down. The path is unique in its tree, and the step's seed is derived from it."""
    prompt: Sequence[int]
    """Token ids that the policy read; empty for policies that read text. Rollouts pack the numbers of nodes (`Packed`)."""
    completion: Sequence[int]
    """Token ids that the policy sampled; empty for policies that give text alone."""
    logprobs: Sequence[float]
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
    """What the next prompt shows of the admissible actions (`Observation.shown`); empty where it lists none."""
    reward: float
    done: bool
    success: bool
    truncated: int = 0
    """Number of history steps and listed actions that the prompt had to leave out to fit its limit."""
    entropies: Sequence[float] = ()
    """Entropy in nats of the tempered distribution that each token was drawn from; empty when the policy does not say."""
    progress: Mapping[str, float] = field(default_factory=dict[str, float])
    """Progress on the task after the step (`Observation.progress`)."""
    version: int = 0
    """Version of the weights that sampled the step (`Learner.version`); 0 before any update and without weights."""

    @property
    def depth(self) -> int:
        """Number of steps from the start of the task: 1 for a first step."""
        return len(self.path)


@dataclass(frozen=True, slots=True)
class Fork:
    """A rule's wish for more continuations. The rollout grants as many as the budget allows."""

    tree: int
    """Index of the tree in its forest."""
    node: int | None
    """The step to fork at; None opens new roots."""
    at: Moment
    """`after` continues from the state that the step led to (Eq. 6). `decision` samples the step itself again (Eq. 8)."""
    extra: int
    """Number of continuations beyond the existing ones."""
    exclude: bool = False
    """Whether a continuation is drawn again when its action was already taken in that state (`rollout.resampling`)."""


@dataclass(slots=True)
class Tree:
    """All steps grown for one task. Its leaves form one group."""

    task: Task
    observation: str
    """The first observation, before any step."""
    actions: tuple[str, ...] = ()
    nodes: list[Node] = field(default_factory=list[Node])
    forks: list[Fork] = field(default_factory=list[Fork])
    """The granted forks in order; `extra` is the granted number."""
    opened: int = 0
    """Number of leaves ever created: the roots and every granted continuation (Eq. 7 charges these)."""
    cap: int = 0
    """Most leaves that the tree was allowed; 0 where that is unknown. A growing tree that failed is shown with 0."""
    horizon: int = 0
    """Most steps that a trajectory was allowed; 0 where that is unknown."""

    def children(self) -> list[list[int]]:
        """Children of every node, in order of creation; the last entry (index -1) holds the roots."""
        below: list[list[int]] = [[] for _ in range(len(self.nodes) + 1)]
        for index, node in enumerate(self.nodes):
            below[node.parent].append(index)
        return below

    def leaves(self) -> list[int]:
        """Nodes without a child, in order of creation. Each leaf ends one trajectory."""
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
    """The cost of a forest, an update or an evaluation. All numbers are counted; none is estimated."""

    generated: int = 0
    """Tokens sampled."""
    prefilled: int = 0
    """Prompt tokens that went through the model."""
    reused: int = 0
    """Prompt tokens whose keys and values came from the cache."""
    misses: int = 0
    """Prompts whose parent was no longer in the cache."""
    trained: int = 0
    """Tokens that went through the model with gradients."""
    env_steps: int = 0
    """Environment steps that became a node."""
    replayed: int = 0
    """Environment steps that were repeated to reach an earlier state."""
    env_forks: int = 0
    discarded: int = 0
    """Tokens of `generated` that belong to replaced completions (`Fork.exclude`, votes)."""
    states_kept: int = 0
    """Most environment states held at once for later forks. The sum of two records has the larger of both numbers."""
    failed: int = 0
    """Trees dropped because their environment failed."""
    restarts: int = 0
    """Processes of environments or the engine that died or hung and were replaced."""
    preempted: int = 0
    """How often an engine gave up keys and values of a running request for want of memory, and computed them again."""
    queued: int = 0
    """Milliseconds that requests waited in an engine until they ran, summed over requests."""
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
        for part in fields(cost):
            setattr(self, part.name, getattr(self, part.name) + getattr(cost, part.name))

    def counts(self) -> dict[str, int]:
        """The counters without the clock."""
        return {name: getattr(self, name) for name in SPENT_COUNTERS}


SPENT_COUNTERS = tuple(field.name for field in fields(Spent) if field.name != "seconds")


@dataclass(slots=True)
class Forest:
    """The trees of one iteration and their cost. Two forests are equal when their trees and counters are equal."""

    trees: list[Tree]
    iteration: int = 0
    seed: int = 0
    spent: Spent = field(default_factory=Spent)
    failures: list[str] = field(default_factory=list[str])
    """One sentence for each tree that was dropped."""
    version: int = 0
    """Version of the weights when growth began. Each node records the version that sampled it."""
    left: int = 0
    """While the forest grows: leaves of its budget that are not opened yet, for `Branching.when_idle`."""

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
    """The credit of each node of a tree, in the order of `Tree.nodes`.

    With the probability ratio r, a node's policy term is `positive * min(r, 1 + high) + negative * max(r, 1 - low)`. Its
    divergence, entropy and token count are multiplied by `weight`. Credit per leaf sums the positive and the negative
    advantages of the leaves below a node, with `weight` = number of leaves below; the gradient then equals that of one
    training row for each leaf. Credit per node has weight 1.
    """

    positive: tuple[float, ...]
    negative: tuple[float, ...]
    weight: tuple[float, ...]


@dataclass(frozen=True)
class TreeShape:
    """How large a tree may grow."""

    budget: int = 8
    """N: leaves of a tree on average; a forest of T tasks has at most T * budget."""
    roots: int = 4
    """M: independent first steps."""
    horizon: int = 30
    """K: most steps of a trajectory."""
    cap: int = 0
    """Most leaves of one tree; 0 means `budget`. A larger cap lets a rule move leaves between tasks."""
    pool: int = 0
    """How many tasks, one after another, share a pool of leaves, which then move between these alone; 0: all tasks do."""
    counted: Literal["created", "active"] = "created"
    """Which leaves are charged to the budget. `created`: all leaves. `active`: unfinished leaves alone (Eq. 7 to the
    letter), so that groups may outgrow N; rules that wait for outcomes then have no budget left."""

    def __post_init__(self) -> None:
        at_least("tree", self, budget=1, roots=1, horizon=1, cap=0, pool=0)
        if self.counted not in ("created", "active"):
            raise unknown_name("tree.counted", self.counted, ("created", "active"))
        if self.roots > self.budget:
            raise UsageError(f"tree.roots is {self.roots}, more than tree.budget {self.budget}: lower roots or raise budget")
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
