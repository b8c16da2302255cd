"""A recipe: one frozen value that says everything about a run.

Invariants
----------
* A recipe is a nest of the components themselves (`ExploreTag(width=2)`), not of descriptions of them: no twin, no
  builder. What the command line overrides is a field of it.
* Written to JSON and read back it is equal, so that a run can be repeated from its directory.
* Nothing here imports torch.
"""

from __future__ import annotations

import importlib
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, cast

from spark_rl.advantage.base import AdvantageEstimator, Rewards
from spark_rl.advantage.group import GroupMean
from spark_rl.branching.base import Branching
from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.environments.base import WORLDS, World
from spark_rl.errors import UsageError, at_least, unknown_name
from spark_rl.fresh import FreshModel
from spark_rl.growth import Growth, Sampling, TreeShape
from spark_rl.loss import Loss
from spark_rl.prompting import Prompt
from spark_rl.types import Level
from spark_rl.weights import Weights

__all__ = [
    "COMPONENTS",
    "ColdStart",
    "Evaluation",
    "Keep",
    "Log",
    "Optimizer",
    "Recipe",
    "component",
    "decode",
    "encode",
]


@dataclass(frozen=True)
class ColdStart:
    """Supervised fine-tuning on expert demonstrations, which teaches the tags before RL."""

    demonstrations: int = 300
    """Successful trajectories to learn from; 0 skips the cold start."""
    data: str = ""
    """File of demonstrations (`spark-rl demos`), of which the first won are taken; empty: the world's expert makes them."""
    tasks: int = 0
    """Training tasks the expert shows, some of them more than once; RL meets the others unseen. 0: all."""
    tags: Literal["sparse", "dense"] = "sparse"
    """How often the expert says explore: at true pivots only, or at every search step."""
    slips: float = 0.0
    """Chance that a demonstrated step is a wrong one, shown but not learnt, so that recovering from it is."""
    epochs: int = 3
    batch: int = 32
    """Rows of one optimizer step."""
    learning_rate: float = 1e-5
    warmup: float = 0.1
    """Share of the steps with a rising learning rate; a cosine follows."""
    weight_decay: float = 0.01
    prompt_weight: float = 0.0
    """Weight of the prompt's tokens in the loss; above 0 helps a model that learns the language from nothing."""
    max_tokens: int = 0
    """Rows of more tokens, prompt and answer together, are left out whole and told; 0 takes all."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """Muon takes the matrices, AdamW the rest; a model from nothing learns faster so."""
    muon_learning_rate: float = 0.005

    def __post_init__(self) -> None:
        at_least("cold_start", self, demonstrations=0, tasks=0, epochs=1, batch=1, prompt_weight=0, max_tokens=0)
        if not 0 <= self.slips < 1:
            raise UsageError(f"cold_start.slips is {self.slips}: it must be at least 0 and below 1")


@dataclass(frozen=True)
class Optimizer:
    """AdamW, and how an iteration's batch is divided."""

    learning_rate: float = 1e-6
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    minibatches: int = 1
    """Optimizer steps of an epoch; a mini-batch is whole trees."""
    epochs: int = 1
    """Passes over the forest."""
    token_budget: int = 16384
    """Most tokens, padding included, of one forward pass."""
    without_signal: Literal["drop", "keep"] = "drop"
    """Groups whose advantages are all zero: left out, or kept for their penalties and divergence."""
    resample: int = 0
    """Times at most that further tasks are grown in place of groups without signal, until `tasks_per_iteration` groups have
    one (DAPO's dynamic sampling, arXiv 2503.14476); what they cost is counted. 0 never."""
    measure_noise: bool = False
    """Log the gradient's signal-to-noise ratio before each update (`gradient_snr`): one more pass over the batch."""
    max_kl: float = 1.0
    """Stop when the mean divergence from the reference (or the sampler) exceeds this; the last checkpoint is kept."""

    def __post_init__(self) -> None:
        at_least("optimizer", self, minibatches=1, epochs=1, token_budget=1, max_grad_norm=0, resample=0, max_kl=0)
        if self.resample and self.without_signal == "keep":
            raise UsageError("optimizer.resample replaces groups without signal, so without_signal must be drop, not keep")


@dataclass(frozen=True)
class Evaluation:
    """What is measured, on which tasks, and when."""

    levels: tuple[Level, ...] = ("L0", "L1", "L2")
    """Levels evaluated before and after training, each test task exactly once."""
    temperature: float = 0.4
    """0 means greedy."""
    every: int = 5
    """Iterations between evaluations on the development slice; 0 never."""
    dev_level: Level = "L0"
    """Level whose development slice is watched."""
    dev_tasks: int = 60
    """Tasks of the development slice (no test split); 0 takes all."""
    batch: int = 64
    """Tasks played at once."""

    def __post_init__(self) -> None:
        at_least("evaluation", self, temperature=0, every=0, dev_tasks=0, batch=1)


@dataclass(frozen=True)
class Keep:
    """What stays on disk."""

    forests: int = 10
    """Newest forests kept; 0 keeps all."""
    checkpoints: int = 2
    """Newest checkpoints kept, beside the best on the development slice."""
    every: int = 5
    """Iterations between checkpoints."""

    def __post_init__(self) -> None:
        at_least("keep", self, forests=0, checkpoints=1, every=1)


@dataclass(frozen=True)
class Log:
    """Where the rows of metrics.jsonl go besides, under the same names."""

    tensorboard: bool = False
    """Into the run's folder `tensorboard` (extra `tensorboard`)."""
    wandb: str = ""
    """Project of Weights & Biases (extra `wandb`); empty: none. Its own settings are read from its environment variables."""


@dataclass(frozen=True)
class Recipe:
    """Everything about a run. Functions in `spark_rl.recipes` return one; the command line overrides any field."""

    name: str
    env: World
    """The world, with its options."""
    model: str | FreshModel = field(default_factory=FreshModel)
    """A model directory or hub name; a `FreshModel` starts from nothing."""
    weights: Weights = Weights()
    level: Level = "L0"
    """Level whose training split is trained on."""
    seed: int = 0
    iterations: int = 120
    tasks_per_iteration: int = 16
    """Trees of a forest."""
    tree: TreeShape = TreeShape()
    branching: Branching = ExploreTag()
    prompt: Prompt = Prompt()
    sampling: Sampling = Sampling()
    rewards: Rewards = Rewards()
    advantage: AdvantageEstimator = GroupMean()
    loss: Loss = Loss()
    optimizer: Optimizer = Optimizer()
    cold_start: ColdStart = ColdStart()
    evaluation: Evaluation = Evaluation()
    keep: Keep = Keep()
    log: Log = Log()
    threads: int = 0
    """Threads of a matrix product; 0 measures at the start and takes the faster. The choice is saved with the run."""
    cache_gb: float = 2.0
    """Most memory of the keys and values kept between steps."""

    def __post_init__(self) -> None:
        at_least("", self, iterations=0, tasks_per_iteration=1, threads=0, cache_gb=0)
        if self.prompt.instructions in ("react", "plain"):
            raise UsageError(
                f"prompt.instructions is {self.prompt.instructions}, which is for models that are prompted and not trained: "
                "a recipe takes full or none (`spark-rl eval --prompt.instructions` takes all)"
            )

    @property
    def growth(self) -> Growth:
        """How training trees grow."""
        return Growth(self.tree, self.branching, self.prompt, self.sampling)


COMPONENTS: dict[str, dict[str, str]] = {
    "env": WORLDS,
    "branching": {
        "explore-tag": "spark_rl.branching.explore_tag:ExploreTag",
        "probability": "spark_rl.branching.probability:Probability",
        "chains": "spark_rl.branching.chains:Chains",
        "entropy": "spark_rl.branching.entropy:Entropy",
        "every-step": "spark_rl.branching.every_step:EveryStep",
        "paced": "spark_rl.branching.paced:Paced",
        "revisits": "spark_rl.branching.revisits:Revisits",
        "new-roots": "spark_rl.branching.new_roots:NewRoots",
        "hybrid": "spark_rl.branching.hybrid:Hybrid",
    },
    "branching.rule": {
        "explore-tag": "spark_rl.branching.explore_tag:ExploreTag",
        "probability": "spark_rl.branching.probability:Probability",
        "entropy": "spark_rl.branching.entropy:Entropy",
        "every-step": "spark_rl.branching.every_step:EveryStep",
    },
    "advantage": {
        "group-mean": "spark_rl.advantage.group:GroupMean",
        "rows": "spark_rl.advantage.rows:Rows",
        "leave-one-out": "spark_rl.advantage.leave_one_out:LeaveOneOut",
        "discounted": "spark_rl.advantage.discounted:Discounted",
        "node-value": "spark_rl.advantage.node_value:NodeValue",
        "siblings": "spark_rl.advantage.siblings:Siblings",
        "anchors": "spark_rl.advantage.anchors:Anchors",
        "tags": "spark_rl.advantage.tags:Tags",
        "sum": "spark_rl.advantage.sum:Sum",
    },
    "prompt.context": {
        "window": "spark_rl.prompting:Window",
        "transcript": "spark_rl.prompting:Transcript",
    },
}
"""Fields that hold a component, and the names it goes by on the command line; `package.module:Class` is taken too."""


def component(slot: str, name: str) -> Any:
    """The component `name` of a slot of `COMPONENTS`, with its default settings.

    Raises:
        UsageError: no such name, module or class, or it cannot be made without arguments.
    """
    known = COMPONENTS[slot]
    lowered = {key.replace("-", ""): path for key, path in known.items()}
    path = name if ":" in name else lowered.get(name.lower().replace("-", "").replace("_", ""))
    if path is None:
        raise unknown_name(slot, name, known)
    return _load(path, slot)()


def _load(path: str, slot: str) -> type[Any]:
    module, _, attribute = path.partition(":")
    try:
        return cast("type[Any]", getattr(importlib.import_module(module), attribute))
    except (ModuleNotFoundError, AttributeError) as error:
        raise UsageError(f'{slot} "{path}" cannot be imported ({error}); give package.module:Class') from error


def encode(value: Any) -> Any:
    """A recipe (or any nest of dataclasses) as JSON values; each dataclass carries its `type`."""
    if is_dataclass(value) and not isinstance(value, type):
        kind = type(value)
        settings = {f.name: encode(getattr(value, f.name)) for f in fields(value) if f.init}
        return {"type": f"{kind.__module__}:{kind.__qualname__}", **settings}
    if isinstance(value, list | tuple):
        return [encode(item) for item in cast("list[Any]", value)]
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in cast("Mapping[str, Any]", value).items()}
    return value


def decode(data: Any, *, foreign: typing.Callable[[str], bool] = lambda _: False) -> Any:
    """The inverse of `encode`.

    Args:
        data: JSON values.
        foreign: asked before a class from outside this package is imported; False refuses.

    Raises:
        UsageError: a class is refused, unknown, or does not take these settings.
    """
    if isinstance(data, list):
        return tuple(decode(item, foreign=foreign) for item in cast("list[Any]", data))
    if not isinstance(data, dict):
        return data
    entries = cast("dict[str, Any]", data)
    if "type" not in entries:
        return {key: decode(item, foreign=foreign) for key, item in entries.items()}
    path = str(entries["type"])
    if not path.startswith("spark_rl.") and not foreign(path):
        raise UsageError(f"the saved recipe uses {path}, which is not part of spark-rl: allow its import or edit the recipe")
    settings = {key: decode(item, foreign=foreign) for key, item in entries.items() if key != "type"}
    kind = _load(path, "type")
    if not is_dataclass(kind):
        raise UsageError(f"the saved recipe's type {path} is no dataclass; it may come from another version")
    try:
        return kind(**settings)
    except TypeError as error:
        raise UsageError(f"the saved recipe's {path} refuses its settings ({error}); is it from another version?") from error
