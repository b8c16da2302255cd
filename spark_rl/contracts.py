"""Every contract of spark-rl on one page: what each part must offer, and who calls it when. Read this file first.

One training iteration, with the contract of each part in brackets:

    tasks          World.tasks gives the tasks to train on                                         [World]
    forest         Executor.grow lets trees grow: per step of a tree
                       the prompt is written                                                       [Context]
                       the model answers                                                           [Policy, Engine]
                       the action is carried out in a copy of the state                            [Environment]
                       the rule says where to fork                                                 [Branching]
    credit         each step gets the advantage that it is trained with                            [AdvantageEstimator]
    update         the weights change, and the executor receives them with their version           [Learner, Executor]
    record         the numbers go to the log and to other places                                   [Tracker]

Invariants
----------
* A contract is a `Protocol`: a class fulfils it by having its methods, without inheriting from anything here.
* Components (worlds, rules, estimators, contexts, engine settings) are frozen dataclasses. Their fields are their settings,
  on the command line and in saved recipes, so there is no second description of them.
* What a part may offer beyond its contract is a small protocol of its own (`Demonstrates`, `Fetches`, ...), asked for by
  `isinstance` where it is used.
* This module imports `types` and `errors` alone. Nothing here needs torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeVar, runtime_checkable

from spark_rl.types import (
    Completion,
    Credit,
    Forest,
    Fork,
    Message,
    Observation,
    Parsed,
    Rendered,
    Request,
    Sampling,
    Situation,
    Task,
    Tree,
    TreeShape,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

__all__ = [
    "Accounts",
    "AdvantageEstimator",
    "Branching",
    "Context",
    "Demonstrates",
    "Describes",
    "Encoder",
    "Engine",
    "EngineSettings",
    "Environment",
    "Executor",
    "Fetched",
    "Fetches",
    "FindsTasks",
    "Grows",
    "Growth",
    "InRounds",
    "LanguageModel",
    "Learner",
    "ModelOutput",
    "ModelSource",
    "ModelState",
    "OutOfProcess",
    "PlansOnly",
    "Policy",
    "Preloads",
    "PromptFormat",
    "Ranks",
    "Restarts",
    "SelectsTasks",
    "SeveralExperts",
    "Slipping",
    "Tokenizer",
    "Tracker",
    "Unlimited",
    "Watch",
    "Watcher",
    "WithPlan",
    "WithWidth",
    "World",
]

T = TypeVar("T")
ModelState = Mapping[str, "Tensor"]
"""A model's weights by name, as `state_dict` of torch returns them."""
Watch = Callable[[Forest, int], None]
"""Called after each round of a tree, with the forest so far and the number of open continuations."""


# -- environments -------------------------------------------------------------------------------------------------------


@runtime_checkable
class Environment(Protocol):
    """One episode in progress. Authors write text; tokens are another part's matter.

    Called by the rollout. `environments/check.py` is this contract as a test (`spark-rl env check`).

    * An environment has no step limit of its own and returns raw rewards: the rollout alone enforces the horizon.
    * `step` accepts any string. An action that the world does not know, or cannot carry out, changes nothing and is answered
      with `Observation.admissible` false.
    * `fork` is exact: given the same actions, parent and child answer byte for byte the same, whatever a sibling does.
    """

    fork_cost: Literal["cheap", "replay"]
    """`cheap`: states may be kept by the hundred. `replay`: repeating the actions is better than keeping states."""

    def reset(self, task: Task) -> Observation:
        """Start the task; may be called again on the same object.

        Raises:
            EnvironmentFailure: the task cannot be started.
        """
        ...

    def step(self, action: str) -> Observation:
        """Carry out one action, or change nothing when it is not admissible.

        Raises:
            EnvironmentFailure: the engine died or hung; the rollout drops this tree and names it.
        """
        ...

    def fork(self) -> Environment:
        """An independent continuation of this very state."""
        ...

    def state_key(self) -> str:
        """Kind of the last action, current observation, inventory: equal for states that look and hold the same.

        No history and no step number: anchors and repeated actions are counted by it.
        """
        ...

    def close(self) -> None:
        """Release what the episode holds; calling it twice is harmless."""
        ...


@runtime_checkable
class OutOfProcess(Protocol):
    """An environment whose calls wait for another process, so that calls of different states may overlap in threads."""

    out_of_process: bool
    """Whether they do wait for another process."""


@runtime_checkable
class World(Protocol):
    """A family of tasks and the environments that play them: a frozen dataclass whose fields are the options `--env.NAME`.

    `tasks` is called once a command, `make` once a tree. What else a world may offer stands below.
    """

    @property
    def name(self) -> str:
        """Short name, also `Task.environment`."""
        ...

    def tasks(self, level: str, split: str) -> Sequence[Task]:
        """Tasks of a generalisation level (`L0`, `L1`, `L2`) and a split (`train`, `dev`, `test`), in a fixed order.

        Raises:
            UsageError: the world has no such level.
        """
        ...

    def make(self) -> Environment:
        """A fresh environment, not yet reset."""
        ...


@runtime_checkable
class Demonstrates(Protocol):
    """A world with an expert, for `spark-rl demos` and the cold start."""

    def expert(self, tags: Literal["sparse", "dense"] = "sparse") -> Policy:
        """A policy that solves tasks from observations.

        Args:
            tags: `sparse` says explore at true pivots only, `dense` at every step of a search.
        """
        ...


@runtime_checkable
class SeveralExperts(Protocol):
    """A world with several experts; its setting `solver` names the one that `expert` returns."""

    @property
    def solver(self) -> str:
        """Name of the expert, saved with its demonstrations."""
        ...


@runtime_checkable
class WithPlan(Protocol):
    """A world that can say a task's steps in words, for demonstrations in RLVMR's modes (`prompt.modes`)."""

    def plan(self, task: Task) -> str:
        """The steps of the task."""
        ...


@runtime_checkable
class FindsTasks(Protocol):
    """A world that finds a task by its id faster than by searching its splits."""

    def task(self, task_id: str) -> Task:
        """The task with this id.

        Raises:
            UsageError: no task has this id.
        """
        ...


@runtime_checkable
class SelectsTasks(Protocol):
    """A world that knows which tasks are worth its expert's time."""

    def demonstrable(self, tasks: Sequence[Task], horizon: int) -> Iterable[Task]:
        """Those of the tasks that the expert can solve within `horizon` steps, in the order to play them."""
        ...


@runtime_checkable
class Preloads(Protocol):
    """A world whose tasks take long to start, and that can get them ready while something else goes on.

    Called with the tasks of the next iteration before an update, with those of the next batch during an evaluation.
    """

    def preload(self, tasks: Sequence[Task]) -> None:
        """Begin to get tasks ready that will soon be played, and return at once; no result depends on it."""
        ...


@runtime_checkable
class Restarts(Protocol):
    """A world in processes of its own, which may die or hang and are then replaced."""

    def lost(self) -> int:
        """How many processes were replaced so far (`Spent.restarts` is the difference over a forest)."""
        ...


@runtime_checkable
class Unlimited(Protocol):
    """A world whose agent's episodes have limits that recordings of the original do not have (`spark-rl env replay`)."""

    def unlimited(self) -> World:
        """The same world without these limits."""
        ...


@runtime_checkable
class Describes(Protocol):
    """A world with something to say about its engine before it is checked (`spark-rl env check`)."""

    def about(self) -> str:
        """A few lines of text."""
        ...


class Fetched(Protocol):
    """The result of fetching a world's data."""

    @property
    def root(self) -> Path:
        """Folder of the data."""
        ...

    @property
    def broken(self) -> Any:
        """What is missing or damaged, or whether anything is; false when the data are complete."""
        ...

    @property
    def setting(self) -> tuple[str, str]:
        """Environment variable that says where the data are, and its value."""
        ...

    def table(self) -> Sequence[Sequence[str]]:
        """Heading and rows."""
        ...

    def remarks(self) -> Iterable[str]:
        """A sentence for each thing to know."""
        ...


@runtime_checkable
class Fetches(Protocol):
    """A world whose data are fetched and verified by `spark-rl env fetch`."""

    def fetch(self, source: Path | None, to: Path | None, *, link: bool, tell: Watcher) -> Fetched:
        """Get the data and verify every file.

        Args:
            source: an archive or a folder; None downloads.
            to: where to put them; None where the world looks for them.
            link: link to a folder instead of copying it.
            tell: receives the progress.
        """
        ...


# -- policies and engines -----------------------------------------------------------------------------------------------


@runtime_checkable
class Policy(Protocol):
    """Whatever proposes the next step: a model, a server, an expert, a person.

    Called by the rollout for all open continuations of a tree at once. A policy that gives no token ids can act and
    demonstrate, but cannot be trained.
    """

    async def sample(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """`len(requests)` lists, the i-th with `requests[i].n` completions in the order of its seeds.

        Each completion says what it cost (`Completion.cost`).

        Raises:
            PolicyFailure: the policy cannot answer at all. A single refused completion has `Completion.refused` set instead.
        """
        ...


@runtime_checkable
class InRounds(Protocol):
    """A policy for which large batches are worth waiting for. Without this, each tree asks by itself, at its own pace."""

    @property
    def in_rounds(self) -> bool:
        """Whether the requests of all trees are collected into one call a round."""
        ...


@runtime_checkable
class Slipping(Protocol):
    """An expert that knows what a beginner would do wrong (`policies.scripted.Slips`)."""

    def mistake(self, request: Request) -> Completion | None:
        """A beginner's step in this situation; None where the expert knows of none."""
        ...


@runtime_checkable
class Engine(Policy, Protocol):
    """A policy that is a language model. Made by `EngineSettings.open`; lives as long as its executor."""

    @property
    def encoder(self) -> Encoder | None:
        """Turns messages into token ids; None for a server, which reads text and cannot be trained."""
        ...

    @property
    def version(self) -> int:
        """Version of the weights that the engine samples from (`Learner.version`)."""
        ...

    async def load_weights(self, version: int, weights: ModelState) -> None:
        """Sample from these weights from now on, and forget all results of earlier weights.

        Called between forests, never while one grows.

        Raises:
            PolicyFailure: the weights are of another model, or the engine cannot change its weights.
        """
        ...

    async def clear(self) -> None:
        """Free the memory that the engine holds for the forest that has just grown, so that the learner can use it."""
        ...


@runtime_checkable
class Accounts(Protocol):
    """An engine whose requests and cost a command reports at its end."""

    def account(self) -> str:
        """Requests, tokens and cost so far, in words."""
        ...


class ModelOutput(Protocol):
    """The result of a forward pass."""

    @property
    def logits(self) -> Tensor:
        """[rows, length, vocabulary]."""
        ...


class LanguageModel(Protocol):
    """The methods of a causal language model of `transformers` that this package calls. Such a model is a torch module."""

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        ...

    @property
    def config(self) -> object:
        """The configuration of the architecture."""
        ...

    @property
    def generation_config(self) -> object:
        """Settings of generation; its `eos_token_id` ends a turn."""
        ...

    @property
    def name_or_path(self) -> str | None:
        """The folder or hub name that the model was loaded from."""
        ...

    def __call__(self, *, input_ids: Tensor, use_cache: bool, **options: object) -> ModelOutput:
        """The forward pass over ids, [rows, length]."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """All weights; a shared weight appears once."""
        ...

    def modules(self) -> Iterator[nn.Module]:
        """The model and all its layers."""
        ...

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """The same with their dotted names."""
        ...

    def get_submodule(self, target: str) -> nn.Module:
        """The layer with a dotted name."""
        ...

    def get_input_embeddings(self) -> nn.Module:
        """The layer that embeds token ids."""
        ...

    def get_output_embeddings(self) -> nn.Module | None:
        """The layer that computes logits."""
        ...

    def state_dict(self) -> ModelState:
        """The weights by name, not copied."""
        ...

    def load_state_dict(self, state_dict: ModelState) -> object:
        """Copy weights into the model."""
        ...

    def eval(self) -> Self:
        """Switch to evaluation mode: no dropout."""
        ...

    def set_attn_implementation(self, attn_implementation: str) -> None:
        """Let all layers take another implementation of attention, by its name in the library."""
        ...

    def float(self) -> Self:
        """Turn the weights into 32-bit numbers."""
        ...

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Choose whether the weights get gradients."""
        ...

    def save_pretrained(self, save_directory: str | Path) -> object:
        """Write weights and configuration into a folder."""
        ...


class Tokenizer(Protocol):
    """The methods of a tokenizer of `transformers` that this package calls."""

    @property
    def chat_template(self) -> object:
        """The template that turns messages into text."""
        ...

    @property
    def eos_token_id(self) -> int:
        """Id of the token that ends a turn."""
        ...

    @property
    def pad_token_id(self) -> int:
        """Id that fills rows up to a common length."""
        ...

    def __len__(self) -> int:
        """Number of token ids."""
        ...

    def __call__(self, text: str, /, *, add_special_tokens: bool, verbose: bool) -> Mapping[str, Sequence[int]]:
        """The ids of a text, under `input_ids`."""
        ...

    def apply_chat_template(self, conversation: Sequence[Message], /, *, tokenize: bool, add_generation_prompt: bool) -> str:
        """The messages as one text; `add_generation_prompt` adds the start of the assistant's answer."""
        ...

    def decode(self, ids: Sequence[int], /, *, clean_up_tokenization_spaces: bool = ...) -> str:
        """The text of ids; it is exact where spaces are not cleaned up."""
        ...

    def save_pretrained(self, save_directory: str | Path) -> object:
        """Write the tokenizer into a folder."""
        ...


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Which model an engine runs: one that is in memory, or one that it loads by its name."""

    name: str | Path = ""
    """A model directory or a hub name; for a server, the name that it knows the model by."""
    device: str = "auto"
    dtype: str = "auto"
    threads: int = 0
    """Threads of a matrix product; 0 measures. Not used where the model is in memory."""
    loaded: tuple[LanguageModel, Tokenizer] | None = None
    """A model in memory and its tokenizer, such as the learner's own."""
    version: int = 0
    """Version of its weights."""


@runtime_checkable
class EngineSettings(Protocol):
    """The component `recipe.engine`: a frozen dataclass whose fields are the options `--engine.NAME`."""

    def open(self, source: ModelSource) -> AbstractAsyncContextManager[Engine]:
        """An engine that runs the model until the block ends.

        Called by `rollout.executors.open_executor`, inside the command's one event loop.

        Raises:
            MissingExtra: the engine's library is not installed.
            UsageError: the engine cannot run this model.
        """
        ...

    def memory(self) -> int:
        """Bytes, beside weights and the running batch, that the engine may take on the learner's device."""
        ...


# -- prompts ------------------------------------------------------------------------------------------------------------


class Encoder(Protocol):
    """A tokenizer with a chat template, reduced to what prompts need."""

    def conversation(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Ids of the messages, up to where the assistant starts to answer."""
        ...

    def completion(self, text: str) -> tuple[int, ...]:
        """Ids of a whole answer, the end of the turn included."""
        ...

    def extend(self, ids: Sequence[int], content: str) -> tuple[int, ...]:
        """Ids of a conversation (prompt and completion) continued by a user's turn `content`."""
        ...


@runtime_checkable
class Context(Protocol):
    """The component `prompt.context`: how much of the path so far a prompt shows, and in which form.

    Called by `Prompt.render` for each step, with less and less history, then with fewer and fewer actions, until the prompt
    fits its limit.

    * The task and the current observation are in every prompt, whole.
    * The same situation and the same arguments give the same text and the same token ids.
    """

    def steps(self, taken: int) -> int:
        """How many of the `taken` steps a prompt shows when there is room."""
        ...

    def write(self, situation: Situation, *, history: int, listed: int | None, encoder: Encoder | None) -> Rendered:
        """The prompt, whatever its length.

        Args:
            situation: the path, and what stands before it.
            history: how many of the last steps to show, from `steps(len(path))` down to 0.
            listed: how many of the admissible actions to list at the end; None lists all.
            encoder: turns the messages into `Rendered.ids`; None leaves them out.

        Returns:
            The prompt; its `truncated` counts the steps and actions that were left out for want of room.
        """
        ...


class PromptFormat(Protocol):
    """What the rollout needs of a prompt; `prompting.Prompt` is the one implementation."""

    @property
    def instructions(self) -> str:
        """Form of the answer that prompts ask for. Only `full` and `none` ask for the tags that are trained."""
        ...

    @property
    def list_actions(self) -> bool:
        """Whether prompts show the admissible actions."""
        ...

    def render(self, tree: Tree, node: int, encoder: Encoder | None) -> Rendered:
        """The prompt of the step that follows `node` (-1: the first step).

        Raises:
            PromptTooLong: task and current observation alone exceed the limit.
        """
        ...

    def parse(self, text: str) -> Parsed:
        """Read a completion in the form that the instructions ask for."""
        ...


# -- rules and credit ---------------------------------------------------------------------------------------------------


@runtime_checkable
class Branching(Protocol):
    """The component `branching`: a frozen value that decides where trees fork. Each call gets a seeded random generator.

    A rule only *wishes*: the rollout clips wishes to the budget, and refuses forks of finished trajectories and at the last
    step.
    """

    def after_step(self, tree: Tree, index: int, node: int, rng: random.Random) -> Fork | None:
        """Called once for each step that may still be continued; `index` is the tree's place in its forest."""
        ...

    def when_idle(self, forest: Forest, rng: random.Random) -> list[Fork]:
        """Called when no leaf is open, and again after its forks have run, until none of its wishes is granted.

        `forest.left` and each tree's `cap - opened` say how many leaves may still be opened. A tree whose environment failed
        appears empty, with a cap of 0.
        """
        ...


@runtime_checkable
class PlansOnly(Protocol):
    """A rule that forks in `when_idle` alone. Its trees need not wait for one another while they grow."""

    @property
    def plans_only(self) -> bool:
        """Whether `after_step` never forks."""
        ...


@runtime_checkable
class WithWidth(Protocol):
    """A rule with a branching factor, which `--choose` with `--among steps` uses too."""

    @property
    def width(self) -> int:
        """B: continuations of a forked step, the first included."""
        ...


@runtime_checkable
class AdvantageEstimator(Protocol):
    """The component `advantage`: a frozen value, called once a tree after the forest has grown.

    Estimators see the tree with rewards already scaled (`Rewards.shape`) and know nothing of penalties, tokens or losses.
    """

    def __call__(self, tree: Tree) -> Credit:
        """Credit of every node, in the order of `tree.nodes`."""
        ...


# -- growing and learning -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Growth:
    """Everything that decides how a tree grows, the policy and the world aside."""

    shape: TreeShape
    branching: Branching
    prompt: PromptFormat
    sampling: Sampling


class Ranks(Protocol):
    """The processes that run one command together, each of them all of it (SPMD). `common.ranks.ALONE` is one process.

    All ranks take the same decisions, since each gathers what the others found out and decides by the same rules.
    """

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        ...

    @property
    def count(self) -> int:
        """How many processes there are."""
        ...

    def gather(self, value: T) -> list[T]:
        """The values of all ranks, in their order. Every rank must call it, and waits for the others."""
        ...

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over the ranks. Every rank must call it, with tensors of the same shapes."""
        ...


class Grows(Protocol):
    """The part of an executor that evaluations and collections use."""

    async def grow(self, tasks: Sequence[Task], growth: Growth, *, seed: int, iteration: int) -> Forest:
        """One tree for each task, each node with the version of the weights that sampled it.

        Raises:
            EnvironmentFailure: the environment failed in every tree.
        """
        ...


@runtime_checkable
class Executor(Grows, Protocol):
    """Where trees grow. Whole trees cross this contract, never single steps, so that forks stay beside their engine.

    Called by the trainer once an iteration, by evaluations and collections once a batch.
    """

    async def load_weights(self, version: int, weights: ModelState) -> None:
        """Let trees grow under these weights from now on.

        Args:
            version: version of the weights (`Learner.version`).
            weights: the weights by name; the executor copies those that it does not share with the learner.
        """
        ...


@runtime_checkable
class Learner(Protocol):
    """Holds the weights that are trained and everything that training needs: optimiser, reference, precision."""

    @property
    def version(self) -> int:
        """Version of the weights: the number of iterations that they were trained for."""
        ...

    def has_signal(self, tree: Tree) -> bool:
        """Whether a group teaches anything: whether its trajectories were credited differently."""
        ...

    def weights(self) -> ModelState:
        """The weights by name, not copied; valid until the next update."""
        ...

    def update(self, trees: Sequence[Tree], iteration: int) -> dict[str, float]:
        """Learn from the trees; returns the figures of the log.

        Raises:
            TrainingDiverged: the loss is not finite, or the policy moved too far; nothing is saved.
        """
        ...

    def save(self, folder: Path, iteration: int, *, success: float | None = None) -> Path:
        """Write the checkpoint after `iteration` finished iterations; `success` is the success rate on development tasks.

        Raises:
            StorageError: the checkpoint cannot be written; no part of it is left.
        """
        ...

    def load(self, path: Path | None) -> int:
        """Resume from a checkpoint, or start without one (None). Returns the number of finished iterations.

        Raises:
            StorageError: the checkpoint cannot be read.
        """
        ...


# -- being told ---------------------------------------------------------------------------------------------------------


class Watcher(Protocol):
    """Receives the progress of a job. Results never depend on the watcher."""

    def phase(self, name: str, total: int | None = None, done: int = 0) -> None:
        """A phase begins; `done` of its `total` parts (None: not known) were finished earlier."""
        ...

    def advance(self, done: int, *, total: int | None = None, **figures: float) -> None:
        """`done` parts of the phase are finished; `total` may have become known."""
        ...

    def note(self, text: str) -> None:
        """Something worth a line of its own."""
        ...

    def iteration(self, row: Mapping[str, float]) -> None:
        """A training iteration has ended with these numbers, `iteration` (from 1) among them."""
        ...

    def expect(self, seconds: Mapping[str, float]) -> None:
        """Expected seconds of the phases to come, by name and in order; a phase may turn out to be done already."""
        ...


class Tracker(Protocol):
    """Another place for the rows of metrics.jsonl (TensorBoard, Weights & Biases), under the same names.

    Called by the trainer after the row is on disk.
    """

    def log(self, row: Mapping[str, float]) -> None:
        """Record a row; its `iteration` is the step."""
        ...

    def close(self) -> None:
        """Write the rows that are still buffered."""
        ...
