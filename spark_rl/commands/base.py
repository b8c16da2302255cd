"""Helpers that all commands share: the command-line call, loading runs and models by path, and output."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from spark_rl.common.progress import watching
from spark_rl.config.options import parse, take
from spark_rl.config.recipe import Recipe
from spark_rl.contracts import ModelSource, Watcher
from spark_rl.environments.registry import load_world
from spark_rl.errors import UsageError
from spark_rl.recipes import load_recipe
from spark_rl.recipes.algorithms import with_algorithm
from spark_rl.runs.run import Run

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Call", "holds_run", "how_to_play", "hush", "model_source", "recipe_of", "show"]

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """One call of a command from the command line."""

    prog: str
    """The words before the arguments, for messages."""
    argv: Sequence[str]
    usage: str = ""
    """Printed for --help when the arguments do not yet determine the options."""
    quiet: bool = False
    """No progress."""
    yes: bool = False
    """Answer every question with yes."""

    def positional(self, what: str, known: Iterable[str] = ()) -> tuple[str, Call]:
        """The first argument, and the call without it.

        Args:
            what: description of the argument, for messages.
            known: valid values, for messages; empty where they cannot be listed.

        Raises:
            UsageError: the argument is missing.
            SystemExit: the argument is --help, and help was printed.
        """
        names = f": {', '.join(known)}" if known else ""
        if self.argv and self.argv[0] in ("-h", "--help"):
            print(f"{self.usage}\n\n{what}{names}\n\nWith {what} given, --help documents every option.")
            raise SystemExit(0)
        if not self.argv or self.argv[0].startswith("-"):
            raise UsageError(f"{self.prog} needs {what}{names}")
        return self.argv[0], replace(self, prog=f"{self.prog} {self.argv[0]}", argv=self.argv[1:])

    def positionals(self, what: str) -> tuple[list[str], Call]:
        """All arguments before the first option, at least one, and the call without them; raises as `positional` does."""
        first, call = self.positional(what)
        number = next((i for i, word in enumerate(call.argv) if word.startswith("-")), len(call.argv))
        return [first, *call.argv[:number]], replace(call, argv=call.argv[number:])

    def options(self, default: T) -> T:
        """The options of this call on top of a default; see `options.parse`."""
        return parse(default, self.argv, self.prog)

    def algorithm(self, recipe: Recipe) -> tuple[Recipe, Call]:
        """The recipe under the algorithm that `--algorithm` names, if any, and the call without it.

        The algorithm is applied before the options, so that options can change any of its settings.

        Raises:
            UsageError: the algorithm does not exist.
        """
        name, argv = take(self.argv, "--algorithm")
        call = replace(self, argv=argv)
        return (recipe if name is None else with_algorithm(recipe, name)), call

    def watching(self) -> AbstractContextManager[Watcher]:
        """A progress display on standard error; silent with `--quiet`."""
        return watching(quiet=self.quiet)

    def open_run(self, directory: str | Path) -> Run:
        """Open an existing run; the user confirms before its recipe imports code from outside this package."""
        return Run.open(Path(directory), foreign=self.trusts)

    def trusts(self, place: str) -> bool:
        """Whether a saved recipe may import a class from outside this package: yes by `--yes`, or by the user's answer."""
        if self.yes or not sys.stdin.isatty():
            return self.yes
        print(f"The saved recipe runs code of {place}. Import it? [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")


def show(*parts: RenderableType) -> None:
    """Print to standard output, in colour on a terminal."""
    from rich.console import Console

    console = Console(highlight=False, markup=False, emoji=False)
    for part in parts:
        console.print(part)


def holds_run(directory: Path) -> bool:
    """Whether a directory holds a run (or the output of `spark-rl rollout`)."""
    return (directory / "recipe.json").is_file()


def how_to_play(call: Call, name: str, recipe_name: str | None, *, run: bool) -> tuple[Recipe, int, Call]:
    """The recipe to play by, its thread count, and the rest of the call.

    The recipe is the one that `--recipe` names, the run's own, or a default recipe around the world that `--env` names.

    Args:
        call: the call; the rest is the call without `--env` where `--env` was used.
        name: a run directory, a model directory or a hub name.
        recipe_name: value of `--recipe`.
        run: whether `name` may be a run directory.

    Raises:
        UsageError: there is no `--recipe`, no run and no `--env`.
    """
    if recipe_name is not None:
        return load_recipe(recipe_name), 0, call
    if run and holds_run(Path(name)):
        opened = call.open_run(name)
        return opened.recipe, opened.recipe.threads or opened.settings.get("threads", 0), call
    world, argv = take(call.argv, "--env")
    if world is not None:
        return Recipe("prompted", load_world(world)), 0, replace(call, argv=argv)
    if any(word in ("-h", "--help") for word in call.argv):
        return Recipe("prompted", load_world("household")), 0, call
    raise UsageError(
        f'"{name}" is no run directory, so what to play is not known: add --recipe NAME, or --env NAME and fields'
    )


def recipe_of(recipe_name: str, environment: str) -> Recipe:
    """The recipe that `--recipe` names, which must play the world that the command names.

    Raises:
        UsageError: the recipe does not exist, or plays another world.
    """
    recipe = load_recipe(recipe_name)
    if environment not in (recipe.env.name, recipe_name):
        raise UsageError(
            f"--recipe {recipe_name} plays {recipe.env.name}, not {environment}: name a recipe of {environment}"
        )
    return recipe


def hush() -> None:
    """Silence the progress bars and deprecation notices of libraries, which break the live progress line."""
    import warnings

    from transformers.utils import logging

    logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)


def model_source(name: str | Path, checkpoint: str = "last", *, threads: int = 0) -> ModelSource:
    """The model of a run directory, a model directory or a hub name, for an engine to load.

    Args:
        name: the path or name that the user typed.
        checkpoint: for a run: `last`, `best`, `cold-start` or the number of an iteration.
        threads: threads of a matrix product; 0 measures the best number.

    Raises:
        UsageError: the run has no such checkpoint.
    """
    from spark_rl.runs.checkpoints import model_folder

    hush()
    return ModelSource(name=model_folder(name, checkpoint), threads=threads)
