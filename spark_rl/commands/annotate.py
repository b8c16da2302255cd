"""`spark-rl annotate`: a teacher's reasons for the steps of won trajectories."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from spark_rl.commands.asking import answers_file, show_messages
from spark_rl.commands.base import Call
from spark_rl.commands.data import world_of_line
from spark_rl.common.running import run
from spark_rl.config.codec import decode
from spark_rl.config.options import INLINE, take
from spark_rl.data.annotate import Annotator, Asking, question
from spark_rl.engines.openai import Endpoint, connect
from spark_rl.environments.registry import load_world
from spark_rl.errors import PolicyFailure, UsageError
from spark_rl.prompting.instructions import Modes
from spark_rl.prompting.prompt import Prompt
from spark_rl.recipes import load_recipe

if TYPE_CHECKING:
    from spark_rl.contracts import Watcher
    from spark_rl.data.format import Demonstration, Record

__all__ = ["annotate"]


@dataclass(frozen=True, kw_only=True)
class _Annotate:
    """Let a model behind a server write the reasoning for each step of won trajectories; the actions do not change.

    The reasoning uses the file's own modes (`spark-rl demos --prompt.modes`). Slips keep their text, since they are not
    trained on. A trajectory whose answers cannot be used goes to OUT's name with `.refused.jsonl`. A file of version 1 needs
    `--recipe NAME` for its level and prompts.
    """

    teacher: str = ""
    """Name of the model on its server (required)."""
    out: Path = Path("annotated.jsonl")
    """File to write, one step per line."""
    endpoint: Endpoint = field(default=Endpoint(), metadata=INLINE)
    asking: Asking = field(default=Asking(), metadata=INLINE)
    dry_run: bool = False
    """Print the first question, and send no request."""

    @property
    def refused(self) -> Path:
        """File for the trajectories whose answers cannot be used."""
        return self.out.with_name(f"{self.out.stem}.refused.jsonl")


def annotate(call: Call) -> int:
    """Write the annotated and the refused trajectories to their files, and print the numbers."""
    from spark_rl.data.format import demonstration, read_records, save

    recipe_name, argv = take(call.argv, "--recipe")
    name, call = replace(call, argv=argv).positional("a file of demonstrations")
    options, file = call.options(_Annotate()), Path(name)
    if file in (options.out, options.refused):
        raise UsageError(f"--out {options.out} would replace {file}, which is read: give another --out")
    groups = read_records(file)
    won = [group for group in groups if group[0]["success"]]
    if not won:
        raise UsageError(f"{name} holds no won trajectory, and only those are annotated: `spark-rl demos` writes some")
    given = [demonstration(group) for group in won]
    prompt = _prompt_of(call, name, won, given, recipe_name)
    if options.dry_run:
        show_messages(question(given[0], 0, min(options.asking.piece, len(given[0].tree.nodes)), prompt.modes))
        return 0
    with call.watching() as watcher:
        if len(won) < len(groups):
            watcher.note(f"{len(groups) - len(won)} lost trajectories of {name} are left out")
        results = run(_ask(given, options, prompt.modes, watcher))
        done = [result for result in results if not isinstance(result, str)]
        refused = [(shown, why) for shown, why in zip(given, results, strict=True) if isinstance(why, str)]
        for shown, why in refused:
            watcher.note(f"not annotated: task {shown.tree.task.id}: {why}")
    if refused:
        save([shown for shown, _ in refused], options.refused, prompt)
    if not done:
        raise PolicyFailure(f"none of {len(given)} trajectories was annotated; the first: {refused[0][1]}")
    save(done, options.out, prompt)
    if not refused:
        options.refused.unlink(missing_ok=True)  # an earlier run's file, which is out of date now
    nodes = [node for shown in done for node in shown.tree.nodes]
    explored = sum(node.mode == "explore" for node in nodes) / len(nodes)
    left = f"; {len(refused)} not annotated: {options.refused}" if refused else ""
    print(f"{len(done)} trajectories, {len(nodes)} steps, {explored:.0%} of them explore: {options.out}{left}")
    return 0


def _prompt_of(
    call: Call, name: str, groups: Sequence[Sequence[Record]], given: Sequence[Demonstration], recipe_name: str | None
) -> Prompt:
    """The prompt settings of the file, after a check that no task of the file is held out.

    Raises:
        UsageError: a task is held out, or the file lacks its level or prompt settings.
    """
    from spark_rl.data.leaks import refuse_leaks

    recipe, first = load_recipe(recipe_name) if recipe_name else None, groups[0][0]
    settings = {(group[0]["environment"], group[0]["world"], group[0]["level"], group[0]["rendering"]) for group in groups}
    if len(settings) > 1:
        raise UsageError(f"{name} mixes worlds, levels or renderings of prompts: annotate files of one of each")
    if recipe is None and not (first["rendering"] and first["level"]):
        raise UsageError(
            f"{name} does not say on which level it was made and how its prompts are rendered: give --recipe NAME"
        )
    world = world_of_line(call, first, recipe.env if recipe else load_world("household"))
    refuse_leaks(given, world, first["level"] or (recipe.level if recipe else ""), name)
    prompt = decode(json.loads(first["rendering"])) if first["rendering"] else recipe and recipe.prompt
    if not isinstance(prompt, Prompt):
        raise UsageError(f'{name} says in "rendering" what is no prompt settings of this version: write the file again')
    return prompt


async def _ask(
    given: Sequence[Demonstration], options: _Annotate, modes: Modes, watcher: Watcher
) -> list[Demonstration | str]:
    watcher.phase("annotate", len(given))
    async with connect(options.teacher, options.endpoint, answers_file(options.out, options.teacher)) as server:
        try:
            return await Annotator(server, options.asking, modes).annotate(given, watcher.advance)
        finally:
            watcher.note(server.usage.line(options.endpoint))
