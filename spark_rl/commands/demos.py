"""`spark-rl demos`: write an expert's won trajectories, one step per line, with the prompts of RL."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args, get_type_hints

from spark_rl.commands.base import Call, recipe_of
from spark_rl.common.running import run
from spark_rl.config.options import INLINE, take
from spark_rl.config.play import Play
from spark_rl.contracts import World
from spark_rl.environments.registry import WORLDS, load_world
from spark_rl.errors import UsageError, at_least, unknown_name
from spark_rl.types import Level

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["demos"]

ONLY_MODELS = ("engine", "temperature", "max_tokens", "branching")
"""Settings of `Play` that do not affect an expert."""


@dataclass(frozen=True, kw_only=True)
class _Demos:
    """Let the world's expert play training tasks, and save the won trajectories.

    `--recipe NAME` takes prompt, level, horizon, tags, slips and the world's options from a recipe. Options that
    only affect a model (`--engine`, `--temperature`, `--max-tokens`, `--branching`) are refused.
    """

    play: Play = field(metadata=INLINE)
    out: Path = Path("demonstrations.jsonl")
    """File to write, one step per line."""
    count: int = 400
    """Number of won trajectories to write."""
    tasks: int = 0
    """Training tasks to play, some more than once; 0 takes all."""
    level: Level = "L0"
    """Level whose training split is played."""
    expert: str = ""
    """Which expert: alfworld has search, walkthrough and planner; other worlds have one. Empty: the one of `env.solver`."""
    tags: Literal["sparse", "dense"] = "sparse"
    """How often the expert says explore: at true pivots only, or at every search step."""
    slips: float = 0.0
    """Probability of a wrong step. Wrong steps are not trained on; the policy learns to recover from them."""
    processes: int = 0
    """Most processes that play, if it takes longer than a few seconds; 0: one for each core. The result is the same."""


def demos(call: Call) -> int:
    """Collect the demonstrations, write the file, and print one line about it."""
    from spark_rl.data.demonstrations import collect
    from spark_rl.data.format import save

    recipe_name, argv = take(call.argv, "--recipe")
    name, call = replace(call, argv=argv).positional("an environment", WORLDS)
    default = _Demos(play=Play(env=load_world(name))) if recipe_name is None else _of_recipe(recipe_name, name)
    options = call.options(default)
    options.play.refuse(default.play, "an expert demonstrates, not a model", *ONLY_MODELS)
    how, growth = options.play, options.play.single
    at_least("", options, tasks=0, processes=0)
    if options.count < 1:
        raise UsageError(f"--count is {options.count}: it must be at least 1")
    if options.expert:
        how = replace(how, env=_with_expert(how.env, options.expert))
    with call.watching() as watcher:
        watcher.phase("demonstrations", options.count)
        demonstrations = run(
            collect(
                how.env,
                options.count,
                level=options.level,
                horizon=growth.shape.horizon,
                prompt=how.prompt,
                seed=how.seed,
                shown=options.tasks,
                tags=options.tags,
                slips=options.slips,
                processes=options.processes,
                advance=watcher.advance,
            )
        )
    save(demonstrations, options.out, how.prompt)
    nodes = [node for demonstration in demonstrations for node in demonstration.tree.nodes]
    explored = sum(node.mode == "explore" for node in nodes) / len(nodes)
    print(f"{len(demonstrations)} demonstrations, {len(nodes)} steps, {explored:.0%} of them explore: {options.out}")
    return 0


def _with_expert(world: World, name: str) -> World:
    """The world with its field `solver` set."""
    hint = get_type_hints(type(world)).get("solver")
    if hint is None:
        raise UsageError(
            f"--expert is {name}, but {world.name} has one expert only: leave it out "
            "(alfworld has search, walkthrough, planner)"
        )
    if name not in get_args(hint):
        raise unknown_name("expert", name, get_args(hint))
    return cast(World, replace(cast("DataclassInstance", world), solver=name))


def _of_recipe(recipe_name: str, environment: str) -> _Demos:
    recipe = recipe_of(recipe_name, environment)
    return _Demos(
        play=Play.alone(recipe),
        level=recipe.level,
        tasks=recipe.cold_start.tasks,
        tags=recipe.cold_start.tags,
        slips=recipe.cold_start.slips,
    )
