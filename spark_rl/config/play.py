"""How an agent plays tasks: the settings that evaluation, collection, demonstrations and `spark-rl play` share."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

from spark_rl.branching.chains import Chains
from spark_rl.config.recipe import Recipe
from spark_rl.contracts import Branching, EngineSettings, Growth, World
from spark_rl.engines.local.settings import Local
from spark_rl.errors import UsageError, at_least
from spark_rl.prompting.prompt import Prompt
from spark_rl.types import Sampling, TreeShape

__all__ = ["Play"]


@dataclass(frozen=True, kw_only=True)
class Play:
    """The world, the engine, the prompts, the shape of a tree, and how completions are sampled."""

    env: World
    """The world, with its options."""
    engine: EngineSettings = Local()
    """The engine that samples from the model."""
    prompt: Prompt = Prompt()
    tree: TreeShape = TreeShape(budget=1, roots=1)
    """`tree.horizon` always counts; the other fields count where one of several trajectories of a tree is chosen."""
    branching: Branching = Chains()
    """The rule that says where a tree forks, where there are trees."""
    temperature: float = 0.4
    """0 means greedy."""
    max_tokens: int = 512
    """Most tokens of a completion."""
    seed: int = 0
    """Seed of the samples."""

    def __post_init__(self) -> None:
        at_least("", self, temperature=0, max_tokens=1)

    @classmethod
    def evaluating(cls, recipe: Recipe, **changes: object) -> Self:
        """The settings with which a run of the recipe evaluates itself.

        Args:
            recipe: the recipe of the run.
            changes: fields with other values.
        """
        play = cls(
            env=recipe.env,
            engine=recipe.engine,
            prompt=recipe.prompt,
            tree=recipe.tree,
            branching=recipe.branching,
            temperature=recipe.evaluation.temperature,
            max_tokens=recipe.sampling.max_tokens,
            seed=recipe.seed,
        )
        return replace(play, **changes)

    @classmethod
    def alone(cls, recipe: Recipe, **changes: object) -> Self:
        """The settings of `evaluating`, with one trajectory for each task."""
        shape = TreeShape(budget=1, roots=1, horizon=recipe.tree.horizon)
        return cls.evaluating(recipe, **{"tree": shape, "branching": Chains(), **changes})

    @property
    def growth(self) -> Growth:
        """How trees of several trajectories grow."""
        return Growth(self.tree, self.branching, self.prompt, Sampling(self.temperature, self.max_tokens))

    @property
    def single(self) -> Growth:
        """How a single trajectory for each task grows.

        Raises:
            UsageError: the settings are for several trajectories or for forks.
        """
        for name, value, only in (("tree.budget", self.tree.budget, 1), ("tree.roots", self.tree.roots, 1)):
            if value != only:
                raise UsageError(f"{name} is {value}: one trajectory a task is played here, so it must be {only}")
        if not isinstance(self.branching, Chains):
            raise UsageError("branching is set, but one trajectory a task is played here: leave it out")
        return self.growth

    def refuse(self, default: Play, reason: str, *names: str) -> None:
        """Refuse options that have no effect in a command.

        Args:
            default: the settings before the command line was read.
            reason: why the options have no effect.
            names: the fields that must equal those of `default`.

        Raises:
            UsageError: one of the fields differs.
        """
        for field in fields(self):
            if field.name in names and getattr(self, field.name) != getattr(default, field.name):
                raise UsageError(f"--{field.name.replace('_', '-')} has no effect: {reason}; leave it out")
