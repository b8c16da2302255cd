"""A recipe: one frozen value that says everything about a run.

Invariants
----------
* A recipe is a nest of the components themselves (`ExploreTag(width=2)`), not of descriptions of them: no twin, no
  builder. What the command line overrides is a field of it.
* Written to JSON and read back it is equal, so that a run can be repeated from its directory.
* Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from spark_rl.advantage.group import GroupMean
from spark_rl.branching.explore_tag import ExploreTag
from spark_rl.contracts import AdvantageEstimator, Branching, EngineSettings, Growth, World
from spark_rl.engines.local.settings import Local
from spark_rl.errors import UsageError, at_least
from spark_rl.models.scratch import ScratchModel
from spark_rl.models.weights import Weights
from spark_rl.objective.loss import Loss
from spark_rl.objective.rewards import Rewards
from spark_rl.prompting.prompt import Prompt
from spark_rl.types import Level, Sampling, TreeShape

__all__ = ["ColdStart", "Evaluation", "Keep", "Log", "Optimizer", "Recipe"]


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
    model: str | ScratchModel = field(default_factory=ScratchModel)
    """A model directory or hub name; a `ScratchModel` starts from nothing."""
    weights: Weights = Weights()
    engine: EngineSettings = Local()
    """What samples from the model."""
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

    def __post_init__(self) -> None:
        at_least("", self, iterations=0, tasks_per_iteration=1, threads=0)
        if self.prompt.instructions in ("react", "plain"):
            raise UsageError(
                f"prompt.instructions is {self.prompt.instructions}, which is for models that are prompted and not trained: "
                "a recipe takes full or none (`spark-rl eval --prompt.instructions` takes all)"
            )

    @property
    def growth(self) -> Growth:
        """How training trees grow."""
        return Growth(self.tree, self.branching, self.prompt, self.sampling)
