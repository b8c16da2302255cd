"""How something is played: the one component that evaluating, collecting, demonstrating and watching share."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

from spark_rl.branching.chains import Chains
from spark_rl.config.recipe import Recipe
from spark_rl.contracts import Branching, EngineSettings, Growth, World
from spark_rl.engines.local.settings import Local
from spark_rl.errors import UsageError, at_least
from spark_rl.prompting.prompt import Prompt
from spark_rl.types import Sampling, TreeShape

__all__ = ["Play"]

T = TypeVar("T", bound="Play")


@dataclass(frozen=True, kw_only=True)
class Play:
    """Who plays, in which world, with which prompts, how far, and how completions are drawn."""

    env: World
    """The world, with its options."""
    engine: EngineSettings = Local()
    """What samples from the model."""
    prompt: Prompt = Prompt()
    tree: TreeShape = TreeShape(budget=1, roots=1)
    """`tree.horizon` holds always, the rest where trajectories are chosen among."""
    branching: Branching = Chains()
    """Where the agent branches, where it does."""
    temperature: float = 0.4
    """0 means greedy."""
    max_tokens: int = 512
    """Most tokens of a completion."""
    seed: int = 0
    """Of the samples."""

    def __post_init__(self) -> None:
        at_least("", self, temperature=0, max_tokens=1)

    @classmethod
    def evaluating(cls: type[T], recipe: Recipe, **changes: object) -> T:
        """As a run of the recipe evaluates itself, but for what is changed."""
        settings: dict[str, object] = {
            "env": recipe.env,
            "engine": recipe.engine,
            "prompt": recipe.prompt,
            "tree": recipe.tree,
            "branching": recipe.branching,
            "temperature": recipe.evaluation.temperature,
            "max_tokens": recipe.sampling.max_tokens,
            "seed": recipe.seed,
        }
        return cls(**{**settings, **changes})  # type: ignore[arg-type]

    @classmethod
    def alone(cls: type[T], recipe: Recipe, **changes: object) -> T:
        """The same, with one trajectory a task."""
        shape = TreeShape(budget=1, roots=1, horizon=recipe.tree.horizon)
        return cls.evaluating(recipe, **{"tree": shape, "branching": Chains(), **changes})

    @property
    def growth(self) -> Growth:
        """How trees grow."""
        return Growth(self.tree, self.branching, self.prompt, Sampling(self.temperature, self.max_tokens))

    @property
    def single(self) -> Growth:
        """How one trajectory a task is played.

        Raises:
            UsageError: several trajectories, or forks, were asked for.
        """
        for name, value, only in (("tree.budget", self.tree.budget, 1), ("tree.roots", self.tree.roots, 1)):
            if value != only:
                raise UsageError(f"{name} is {value}: one trajectory a task is played here, so it must be {only}")
        if not isinstance(self.branching, Chains):
            raise UsageError("branching is set, but one trajectory a task is played here: leave it out")
        return self.growth

    def refuse(self, default: Play, reason: str, *names: str) -> None:
        """Refuse settings that a command cannot honour.

        Args:
            default: what they were before the command line.
            reason: why they mean nothing here.
            names: of the settings.

        Raises:
            UsageError: one was set; the sentence names it.
        """
        for field in fields(self):
            if field.name in names and getattr(self, field.name) != getattr(default, field.name):
                raise UsageError(f"--{field.name.replace('_', '-')} cannot be honoured: {reason}; leave it out")
