"""Check a file of demonstrations: form, order, outcome, rendering, and that no task is a test task.

Invariant: each objection names its line; a check that could not be made is reported as a note.

The steps to train on (steps of won trajectories that are no slips) must be well-formed and admissible. Slips and lost
trajectories have mistakes by their nature; only their form, order, rendering and task are checked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from spark_rl.config.codec import decode
from spark_rl.contracts import Encoder, World
from spark_rl.data.demonstrations import tokenize
from spark_rl.data.format import Line, Record, demonstration, read_as, read_lines, trajectories
from spark_rl.data.leaks import Guard
from spark_rl.environments.registry import find_task
from spark_rl.environments.replay import walk
from spark_rl.errors import EnvironmentFailure, PromptTooLong, UsageError
from spark_rl.prompting.prompt import Prompt

__all__ = ["Checked", "Objection", "check"]

Objection = tuple[int, str]
"""Number of a line, and what is wrong with it."""

CONSTANT = (
    "environment",
    "world",
    "level",
    "task",
    "kind",
    "instruction",
    "source",
    "author",
    "prompt_version",
    "rendering",
    "steps",
    "success",
)
"""Columns that are the same in all lines of a trajectory."""


@dataclass
class Checked:
    """The results of a check."""

    groups: list[list[Record]] = field(default_factory=list[list[Record]])
    """Trajectories whose lines could be read."""
    objections: list[Objection] = field(default_factory=list[Objection])
    """Errors, in the order of the lines."""
    notes: list[str] = field(default_factory=list[str])
    """Checks that could not be made, each with the reason."""
    replayed: int = 0
    """Number of replayed trajectories."""


def check(
    path: Path,
    world_of: Callable[[Record], World],
    *,
    level: str = "",
    prompt: Prompt | None = None,
    encoder: Encoder | None = None,
    replay: bool = False,
    advance: Callable[[int], None] = lambda _: None,
) -> Checked:
    """Check every line of a file.

    Args:
        path: the file.
        world_of: gives the world of a trajectory from its first line.
        level: level of the training split that must have the tasks, where the file names none; empty: no such check.
        prompt: how prompts are rendered, where the file does not say.
        encoder: compares also the token ids of prompts.
        replay: play the actions again and compare all observations.
        advance: receives the number of checked trajectories.

    Raises:
        StorageError: the file cannot be read.
        UsageError: a world cannot be made, or its data are missing.
    """
    result = Checked()
    good: list[Line] = []
    for number, line in read_lines(path):
        if isinstance(line, str):
            result.objections.append((number, line))
        else:
            good.append((number, line))
    guards: dict[tuple[World, str], Guard] = {}
    seen: set[int] = set()
    groups = trajectories(good)
    for index, group in enumerate(groups, start=1):
        first = group[0][1]
        result.groups.append([record for _, record in group])
        if first["trajectory"] in seen:
            result.objections.append((group[0][0], f"goes on with trajectory {first['trajectory']}, which ended before"))
        seen.add(first["trajectory"])
        objections = [*_order(group), *_answers(group)]
        result.objections += objections
        if not objections:  # only a correct trajectory can be rendered and played
            result.objections += _rendered(group, prompt, encoder, result.notes)
        world = world_of(first)
        if trained := first["level"] or level:
            guard = guards.setdefault((world, trained), Guard(world, trained))
            if objection := guard.objection(demonstration([first]).tree.task):
                result.objections.append((group[0][0], f"is of task {first['task']}, which {objection}"))
        else:
            _note(result.notes, "the file does not say on which level it was made, so tasks were not compared: give --level")
        if replay and not objections:
            result.replayed += 1
            result.objections += _replayed(group, world)
        advance(index)
    result.objections.sort()
    if not groups and not result.objections:
        result.objections.append((1, "is missing: the file is empty"))
    return result


def _note(notes: list[str], text: str) -> None:
    if text not in notes:
        notes.append(text)


def _order(group: Sequence[Line]) -> Iterator[Objection]:
    """The steps must be in order, of one trajectory, and each must observe the result of the step before."""
    first = group[0][1]
    for index, (number, record) in enumerate(group):
        for column in CONSTANT:
            if record[column] != first[column]:
                yield number, f'says {record[column]!r} in "{column}", unlike the first line of its trajectory'
        if record["step"] != index + 1:
            yield number, f"is step {record['step']} where step {index + 1} is expected"
        if index and record["observation"] != group[index - 1][1]["next_observation"]:
            yield number, "observes something else than the step before led to"
        if record["done"] and index + 1 < len(group):
            yield number, "ends the episode, but steps follow"
    number, last = group[-1]
    if last["steps"] != len(group):
        yield number, f"is the last of {len(group)} steps, not of {last['steps']}"
    if last["success"] and not last["done"]:
        yield number, "is the last step of a success, but does not end the episode"


def _answers(group: Sequence[Line]) -> Iterator[Objection]:
    """Each step to train on must have one reasoning block and one admissible action."""
    read = read_as(group[0][1])
    for number, record in group:
        if record["slip"] or not record["success"]:
            continue
        if not read(record["completion"]).well_formed:
            yield number, "answers with something else than one reasoning block and one action, and is no slip"
        elif not record["admissible"]:
            yield number, f'takes the action "{read(record["completion"]).action}", which was refused, and is no slip'


def _rendered(
    group: Sequence[Line], prompt: Prompt | None, encoder: Encoder | None, notes: list[str]
) -> Iterator[Objection]:
    """The prompts must be those that RL renders, message for message; with an encoder also token for token."""
    text = group[0][1]["rendering"]
    if text:
        try:
            prompt = decode(json.loads(text))
        except (ValueError, UsageError):
            prompt = None
        if not isinstance(prompt, Prompt):
            yield group[0][0], 'says in "rendering" what is no prompt settings of this version'
            return
    if prompt is None:
        _note(notes, "the file does not say how its prompts are rendered, so they were not compared: give --recipe NAME")
        return
    tree = demonstration([record for _, record in group]).tree
    try:
        fed = tokenize(tree, prompt, encoder) if encoder else None
    except PromptTooLong as error:
        yield group[0][0], f"begins a trajectory that cannot be fed to the model: {error}"
        return
    for index, (number, record) in enumerate(group):
        rendered = prompt.render(tree, index - 1, None)
        if [dict(message) for message in rendered.messages] != record["prompt"]:
            yield number, "has a prompt that RL would not render for this state"
        elif encoder and fed and fed.nodes[index].truncated:
            _note(notes, f"RL shortens prompts beyond {prompt.limit} tokens; of those only the messages were compared")
        elif encoder and fed and encoder.conversation(record["prompt"]) != fed.nodes[index].prompt:
            yield number, "has a prompt whose tokens are not those that RL would feed"


def _replayed(group: Sequence[Line], world: World) -> Iterator[Objection]:
    """The world's observations in a replay must be those of the lines."""
    first = group[0][1]
    try:
        task = find_task(world, first["task"])
    except UsageError as error:
        yield group[0][0], f"names a task that cannot be played: {error}"
        return
    facts = Record(kind=task.kind, instruction=task.instruction)
    yield from ((group[0][0], f'says {first[k]!r} in "{k}", the world {v!r}') for k, v in facts.items() if first[k] != v)
    environment = world.make()
    try:
        read = read_as(first)
        actions = [read(record["completion"]).action for _, record in group]
        answers = walk(environment, task, actions)
        if next(answers).text != first["observation"]:
            yield group[0][0], "observes something else than the world says at the start"
            return
        for (number, record), answer in zip(group, answers, strict=True):
            last = record["step"] == len(group)
            values = Record(
                next_observation=answer.text, admissible=answer.admissible, reward=answer.reward, done=answer.done
            )
            values |= {"success": answer.success} if last else {}
            for name, value in values.items():
                if record[name] != value:
                    yield number, f'says {_brief(record[name])} in "{name}", the world {_brief(value)}'
                    return  # later lines differ for the same reason
    except EnvironmentFailure as error:
        yield group[0][0], f"could not be played: {error}"
    finally:
        environment.close()


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:120]}..."
