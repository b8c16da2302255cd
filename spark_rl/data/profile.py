"""Statistics of a file of demonstrations: lengths, types, and the share of explore steps over an episode."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence

from spark_rl.common.seeding import derive
from spark_rl.contracts import Encoder
from spark_rl.data.format import Record, demonstration
from spark_rl.rollout.metrics import explored

__all__ = ["choose", "doubles", "profile"]


def doubles(groups: Sequence[Sequence[Record]]) -> list[int]:
    """Indices of trajectories with the same task and the same completions as an earlier trajectory."""
    seen: set[tuple[str, ...]] = set()
    indices: list[int] = []
    for index, group in enumerate(groups):
        key = (group[0]["task"], *(record["completion"] for record in group))
        if key in seen:
            indices.append(index)
        seen.add(key)
    return indices


def profile(groups: Sequence[Sequence[Record]], encoder: Encoder | None) -> str:
    """The statistics of a file as Markdown.

    Args:
        groups: the lines of each trajectory, at least one.
        encoder: counts sizes in a model's tokens; None counts them in words.
    """
    records = [record for group in groups for record in group]
    slips, won = sum(record["slip"] for record in records), sum(group[0]["success"] for group in groups)
    unit = "tokens" if encoder else "words"
    intervals = explored([demonstration(group).tree for group in groups])
    total = sum(count for _, count in intervals.values())
    share = sum(exploring for exploring, _ in intervals.values()) / total
    return "\n".join(
        [
            f"{len(groups)} trajectories, {won} won, {len(doubles(groups))} doubles; {len(records)} steps, {slips} slips",
            *_origins(groups),
            "",
            f"| {'':>8} | mean | median | longest |",
            "|---|---|---|---|",
            f"| steps | {_spread([len(group) for group in groups])} |",
            f"| {unit} of a prompt | {_spread([_prompt_size(record, encoder) for record in records])} |",
            f"| {unit} of an answer | {_spread([_answer_size(record, encoder) for record in records])} |",
            "",
            f"| steps | {' | '.join(name.replace('_', '-') for name in intervals)} | all |",
            "|---" * (len(intervals) + 2) + "|",
            f"| explore, % | {' | '.join(f'{100 * a / b:.2f}' for a, b in intervals.values())} | {100 * share:.2f} |",
            f"| number | {' | '.join(str(b) for _, b in intervals.values())} | {total} |",
            "",
            "| type | trajectories | won | steps |",
            "|---|---|---|---|",
            *_kinds(groups),
        ]
    )


def _origins(groups: Sequence[Sequence[Record]]) -> list[str]:
    """A line for each origin, the most frequent first."""
    names = ("source", "author", "level", "date")
    counts = Counter(tuple(group[0][name] or "unknown" for name in names) for group in groups)
    return [
        f"{count} {source} by {who}, level {level}, {date}" for (source, who, level, date), count in counts.most_common()
    ]


def _kinds(groups: Sequence[Sequence[Record]]) -> list[str]:
    kinds = sorted({group[0]["kind"] for group in groups})
    alike = {kind: [group for group in groups if group[0]["kind"] == kind] for kind in kinds}
    return [
        f"| {kind or '-'} | {len(some)} | {sum(group[0]['success'] for group in some)} "
        f"| {statistics.fmean(len(group) for group in some):.1f} |"
        for kind, some in alike.items()
    ]


def _spread(values: Sequence[int]) -> str:
    return f"{statistics.fmean(values):.1f} | {statistics.median(values):g} | {max(values)}"


def _prompt_size(record: Record, encoder: Encoder | None) -> int:
    if encoder:
        return len(encoder.conversation(record["prompt"]))
    return sum(len(message["content"].split()) for message in record["prompt"])


def _answer_size(record: Record, encoder: Encoder | None) -> int:
    return len(encoder.completion(record["completion"])) if encoder else len(record["completion"].split())


def choose(kinds: Sequence[str], count: int, *, balanced: bool, seed: int) -> list[int]:
    """Indices of `count` items drawn without replacement, in ascending order.

    Args:
        kinds: type of each item.
        count: at most the number of items.
        balanced: take one of each type in turn, as long as the type has items.
        seed: seed of the draw.
    """
    drawn = sorted(range(len(kinds)), key=lambda place: derive(seed, place, "sample"))
    if balanced:
        turn: Counter[str] = Counter()
        turns: dict[int, int] = {}
        for place in drawn:
            turns[place] = turn[kinds[place]]
            turn[kinds[place]] += 1
        drawn.sort(key=lambda place: turns[place])  # a stable sort: in the order of the draw within a turn
    return sorted(drawn[:count])
