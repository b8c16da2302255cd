"""The task variations, and the rule by which they belong to levels and splits; neither needs files or Java.

Invariants
----------
* L0 and L1 train on 3,322 variations, L2 on 2,242; they are tested on 1,661, 1,684 and 549.
* No training or `dev` split of L2 has one of the ten task types of `HELD_OUT`, and its test split has no other types.
* The variations of `dev` splits are training variations of the engine that no `train` split has.

The engine numbers the variations of a task. The first half are its training variations, the next quarter its development
variations, the rest its test variations (quarters rounded down). L0 is tested on the engine's development variations, which
are near those of training. L1 is tested on the engine's test variations, which have substances, animals and so on that
training lacks. One task type (`use-thermometer`) is in no level; every variation can be named by id.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from spark_rl.environments.splits import check_names, draw
from spark_rl.errors import UsageError, unknown_name

__all__ = ["HELD_OUT", "KINDS", "LEFT_OUT", "VARIATIONS", "mixed", "named", "variations"]

VARIATIONS = {
    "boil": 30,
    "change-the-state-of-matter-of": 30,
    "chemistry-mix": 32,
    "chemistry-mix-paint-secondary-color": 36,
    "chemistry-mix-paint-tertiary-color": 36,
    "find-animal": 300,
    "find-living-thing": 300,
    "find-non-living-thing": 300,
    "find-plant": 300,
    "freeze": 30,
    "grow-fruit": 126,
    "grow-plant": 126,
    "identify-life-stages-1": 14,
    "identify-life-stages-2": 10,
    "inclined-plane-determine-angle": 168,
    "inclined-plane-friction-named-surfaces": 1386,
    "inclined-plane-friction-unnamed-surfaces": 162,
    "lifespan-longest-lived": 125,
    "lifespan-longest-lived-then-shortest-lived": 125,
    "lifespan-shortest-lived": 125,
    "measure-melting-point-known-substance": 436,
    "measure-melting-point-unknown-substance": 300,
    "melt": 30,
    "mendelian-genetics-known-plant": 120,
    "mendelian-genetics-unknown-plant": 480,
    "power-component": 20,
    "power-component-renewable-vs-nonrenewable-energy": 20,
    "test-conductivity": 900,
    "test-conductivity-of-unknown-substances": 600,
    "use-thermometer": 540,
}
"""Number of variations of each task type of the engine."""

LEFT_OUT = "use-thermometer"
KINDS = tuple(kind for kind in VARIATIONS if kind != LEFT_OUT)
HELD_OUT = tuple(KINDS[i] for i in (1, 4, 8, 11, 13, 16, 18, 21, 24, 28))
"""Task types that level L2 trains without and tests on."""

_ID = re.compile(r"(?P<kind>[a-z0-9-]+)/(?P<variation>0|[1-9][0-9]*)")


def variations(level: str, split: str, dev_tasks: int) -> list[str]:
    """Ids of a level (`L0`, `L1`, `L2`) and split (`train`, `dev`, `test`).

    Test ids are sorted by type and number. The others stand in the order of `mixed`, the first `dev_tasks` being `dev`.

    Raises:
        UsageError: the level or split is not known.
    """
    check_names(level, split)
    if split == "test":
        return [
            f"{kind}/{number}"
            for kind in (HELD_OUT if level == "L2" else KINDS)
            for number in _part(kind, "dev" if level == "L0" else "test")
        ]
    kinds = [kind for kind in KINDS if level != "L2" or kind not in HELD_OUT]
    ids = mixed(f"{kind}/{number}" for kind in kinds for number in _part(kind, "train"))
    return ids[:dev_tasks] if split == "dev" else ids[dev_tasks:]


def mixed(ids: Iterable[str]) -> list[str]:
    """The ids in a fixed order that takes one of each type in turn."""
    by_kind: defaultdict[str, list[str]] = defaultdict(list)
    for task_id in sorted(ids, key=draw):
        by_kind[task_id.partition("/")[0]].append(task_id)
    turns = [(turn, draw(task_id), task_id) for some in by_kind.values() for turn, task_id in enumerate(some)]
    return [task_id for _, _, task_id in sorted(turns)]


def named(task_id: str) -> tuple[str, int]:
    """Task type and variation of an id `<type>/<number>`, of any level or none.

    Raises:
        UsageError: there is no such variation.
    """
    match = _ID.fullmatch(task_id)
    if match is None:
        raise UsageError(f'"{task_id}" is no ScienceWorld task: an id is a type and a number, such as "boil/3"')
    kind, number = match["kind"], int(match["variation"])
    if kind not in VARIATIONS:
        raise unknown_name("ScienceWorld task type", kind, VARIATIONS)
    if number >= VARIATIONS[kind]:
        raise UsageError(f'"{task_id}": {kind} has variations 0 to {VARIATIONS[kind] - 1}')
    return kind, number


def _part(kind: str, part: str) -> Sequence[int]:
    """The numbers of the engine's training, development or test variations."""
    count = VARIATIONS[kind]
    quarter = count // 4
    return {"train": range(2 * quarter), "dev": range(2 * quarter, 3 * quarter), "test": range(3 * quarter, count)}[part]
