"""A recipe: one frozen value that says everything about a run.

Invariants
----------
* A recipe holds the components themselves (`ExploreTag(width=2)`), not descriptions of them. An option of the command line
  sets a field of the recipe.
* A recipe that is written to JSON and read back is equal to the original, so that a run can be repeated from its directory.
* This module imports no torch.
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

__all__ = ["ColdStart", "Evaluation", "Keep", "Log", "Optimizer", "Recipe", "Scale"]


@dataclass(frozen=True)
class ColdStart:
    """Supervised fine-tuning on expert demonstrations, which teaches the tags before RL."""

    demonstrations: int = 300
    """Successful trajectories to learn from; 0 skips the cold start."""
    data: str = ""
    """File of demonstrations (`spark-rl demos`), of which the first successful ones are used; empty: the expert plays."""
    tasks: int = 0
    """Training tasks that the expert solves, some of them more than once; RL alone sees the other tasks. 0: all."""
    tags: Literal["sparse", "dense"] = "sparse"
    """Where the expert uses the tag `<explore>`: at true pivots only, or at every step of a search."""
    slips: float = 0.0
    """Chance that a demonstrated step is a mistake. The mistake has no loss: the model learns to recover from it."""
    epochs: int = 3
    batch: int = 32
    """Rows of one optimizer step."""
    learning_rate: float = 1e-5
    warmup: float = 0.1
    """Share of the steps with a rising learning rate; a cosine follows."""
    weight_decay: float = 0.01
    prompt_weight: float = 0.0
    """Weight of the prompt's tokens in the loss; above 0 helps a model from scratch, which must learn the language."""
    max_tokens: int = 0
    """Longest row in tokens, prompt and completion together; longer rows are left out and reported. 0: no limit."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon`: Muon updates the matrices and AdamW the rest, which is faster for a model from scratch."""
    muon_learning_rate: float = 0.005

    def __post_init__(self) -> None:
        at_least("cold_start", self, demonstrations=0, tasks=0, epochs=1, batch=1, prompt_weight=0, max_tokens=0)
        if not 0 <= self.slips < 1:
            raise UsageError(f"cold_start.slips is {self.slips}: it must be at least 0 and below 1")


@dataclass(frozen=True)
class Optimizer:
    """Settings of AdamW, and how the batch of an iteration is divided into optimizer steps."""

    learning_rate: float = 1e-6
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    minibatches: int = 1
    """Optimizer steps of an epoch; a tree is never divided between two mini-batches."""
    epochs: int = 1
    """Passes over the forest."""
    token_budget: int = 16384
    """Largest number of tokens in one forward pass, padding included."""
    packing: Literal["tree", "rows"] = "tree"
    """`tree`: what several rows start with goes through the model once. `rows`: each row goes through the model on its own,
    padded; also taken for a model that cannot read trees. Both give the same gradient, up to rounding."""
    without_signal: Literal["drop", "keep"] = "drop"
    """Groups whose advantages are all zero: `drop` leaves them out, `keep` trains on their penalties and divergence."""
    resample: int = 0
    """Most rounds of an iteration that replace groups without signal by trees of further tasks, until `tasks_per_iteration`
    groups have a signal (DAPO's dynamic sampling, arXiv 2503.14476). Their cost is counted. 0: never."""
    measure_noise: bool = False
    """Log the signal-to-noise ratio of the gradient before each update (`gradient_snr`); one more pass over the batch."""
    max_kl: float = 1.0
    """Stop when the mean divergence from the reference model (or the sampling policy) is higher; the checkpoints stay."""

    def __post_init__(self) -> None:
        at_least("optimizer", self, minibatches=1, epochs=1, token_budget=1, max_grad_norm=0, resample=0, max_kl=0)
        if self.packing not in ("tree", "rows"):
            raise UsageError(f'optimizer.packing is "{self.packing}": choose tree or rows')
        if self.resample and self.without_signal == "keep":
            raise UsageError("optimizer.resample replaces groups without signal, so without_signal must be drop, not keep")


@dataclass(frozen=True)
class Evaluation:
    """When a run is evaluated, on which tasks and how."""

    levels: tuple[Level, ...] = ("L0", "L1", "L2")
    """Levels whose test tasks are played before and after training, each task exactly once."""
    temperature: float = 0.4
    """0 means greedy."""
    every: int = 5
    """Iterations between evaluations on the development slice; 0: never."""
    dev_level: Level = "L0"
    """Level of the development slice."""
    dev_tasks: int = 60
    """Tasks of the development slice, which are never test tasks; 0: all."""
    batch: int = 64
    """Tasks played at once."""

    def __post_init__(self) -> None:
        at_least("evaluation", self, temperature=0, every=0, dev_tasks=0, batch=1)


@dataclass(frozen=True)
class Keep:
    """How many forests and checkpoints of a run stay on disk."""

    forests: int = 10
    """Number of the newest forests that stay; 0: all."""
    checkpoints: int = 2
    """Number of the newest checkpoints that stay, beside the best one on the development slice."""
    every: int = 5
    """Iterations between checkpoints."""

    def __post_init__(self) -> None:
        at_least("keep", self, forests=0, checkpoints=1, every=1)


@dataclass(frozen=True)
class Log:
    """Other places that receive the rows of metrics.jsonl, with the same names."""

    tensorboard: bool = False
    """Write them to the folder `tensorboard` of the run (extra `tensorboard`)."""
    wandb: str = ""
    """Project of Weights & Biases (extra `wandb`); empty: none. Its own settings come from its environment variables."""


@dataclass(frozen=True)
class Scale:
    """How many processes a run has. It changes how fast a run is, and no result beyond rounding."""

    ranks: int = 1
    """Processes of this machine that grow and learn together, each with a share of the trees, of the weights' copies, of the
    gradients and of the optimiser: on GPUs one for each. `torchrun -m spark_rl train ...` starts as many as it is told."""
    executor: Literal["process", "ray"] = "process"
    """Where trees grow: `process`: in the process that learns. `ray`: on workers, each an actor of Ray with an engine and
    worlds of its own (extra `ray`)."""
    workers: int = 2
    """Workers of the executor `ray`."""
    slots: int = 0
    """Most trees that a worker grows at once. What waits may go to an idle worker. 0: all that it is dealt."""
    address: str = ""
    """A Ray cluster to join (`auto`: the one of this machine); empty: one that starts and ends with the run."""
    timeout: float = 0.0
    """Seconds after which a worker that has not grown a tree to its end is started anew; 0: never."""

    def __post_init__(self) -> None:
        at_least("scale", self, ranks=1, workers=1, slots=0, timeout=0)
        if self.executor not in ("process", "ray"):
            raise UsageError(f'scale.executor is "{self.executor}": choose process or ray')
        if self.executor == "ray" and self.ranks > 1:
            raise UsageError(
                f"scale.ranks is {self.ranks} and scale.executor ray: ranks grow their own trees; leave one of the two out"
            )


@dataclass(frozen=True)
class Recipe:
    """Everything about a run. Functions in `spark_rl.recipes` return one; the command line overrides any field."""

    name: str
    env: World
    """The world, with its options."""
    model: str | ScratchModel = field(default_factory=ScratchModel)
    """A model directory or hub name; a `ScratchModel` is trained from scratch."""
    weights: Weights = Weights()
    engine: EngineSettings = Local()
    """The engine that samples from the model."""
    level: Level = "L0"
    """Level whose training split is used."""
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
    scale: Scale = Scale()
    threads: int = 0
    """Threads of a matrix product; 0 measures at the start and takes the fastest. The choice is saved with the run."""
    processes: int = 0
    """Most processes that play the demonstrations of the cold start, which do not depend on it; 0: one for each core."""

    def __post_init__(self) -> None:
        at_least("", self, iterations=0, tasks_per_iteration=1, threads=0, processes=0)
        if self.prompt.instructions in ("react", "plain"):
            raise UsageError(
                f"prompt.instructions is {self.prompt.instructions}, which is for models that are prompted and not trained: "
                "a recipe takes full or none (`spark-rl eval --prompt.instructions` takes all)"
            )

    @property
    def growth(self) -> Growth:
        """How training trees grow."""
        return Growth(self.tree, self.branching, self.prompt, self.sampling)
