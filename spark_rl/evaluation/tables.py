"""Results of an evaluation as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spark_rl.evaluation.results import RULES

__all__ = ["averages", "branching", "by_kind", "markdown", "report"]


def markdown(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A table, one row a level."""
    shares = {"invalid": "invalid_ratio", "repeated": "repetitive_ratio", "explore": "explore_ratio"}
    wanted = list(dict.fromkeys(k for r in results.values() for k in r.get("pass_at", {})))
    head = ["level", "success", "95 % interval", "wins", "score", "steps", *shares, "tokens", *(f"Pass@{k}" for k in wanted)]
    rows = [
        [
            level,
            f"{r['success']:.3f}",
            f"{r['low']:.3f} to {r['high']:.3f}",
            f"{r['wins']}/{r['episodes']}",
            f"{r['score']:.3f}",
            f"{r['steps']:.1f}",
            *(f"{r[name]:.3f}" for name in shares.values()),
            f"{r['tokens']:.0f}",
            *(f"{r['pass_at'][k]:.3f}" for k in wanted),
        ]
        for level, r in results.items()
    ]
    return _table(head, rows)


def branching(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of what choosing brought and cost, one row a level; empty where nothing was chosen.

    The trees answer for all rules, so that success by each stands beside what was chosen. `alone` is the trajectory without
    branching, from the same samples. Pass@leaves counts a task as solved where any leaf is: it looks at outcomes, and is no
    success.
    """
    chosen = {level: r for level, r in results.items() if "branching" in r}
    if not chosen:
        return ""
    rules = {name: said for name, said in RULES.items() if all(name in r["branching"] for r in chosen.values())}
    head = ["level", "chosen", "alone", "gained", "lost", *rules.values(), "Pass@leaves", "leaves"]
    head += ["tokens", "alone", "environment steps", "alone"]
    rows = [
        [
            level,
            *(f"{value:.3f}" for value in (r["success"], b["alone"])),
            *(f"{b[name]}" for name in ("gained", "lost")),
            *(f"{b[name]:.3f}" for name in rules),
            f"{b['pass_at_leaves']:.3f}",
            f"{b['leaves']:.1f}",
            *(f"{value:.0f}" for value in (r["tokens"], b["alone_tokens"])),
            *(f"{value:.1f}" for value in (r["env_steps"], b["alone_steps"])),
        ]
        for level, r in chosen.items()
        for b in (r["branching"],)
    ]
    return _table(head, rows)


def report(results: Mapping[str, Mapping[str, Any]]) -> str:
    """All tables, in Markdown."""
    return "\n\n".join(filter(None, (f(results) for f in (markdown, branching, averages, by_kind))))


def by_kind(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of wins by task type, a column a level; empty where no level has two types."""
    if all(len(result["kinds"]) < 2 for result in results.values()):
        return ""
    kinds = sorted({kind for result in results.values() for kind in result["kinds"]})
    rows = [[kind, *(_fraction(result["kinds"].get(kind)) for result in results.values())] for kind in kinds]
    return _table(["type", *results], rows)


def averages(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A table of means, over tasks and over types; empty where no level has two types or a measure besides success."""
    if all(len(result["kinds"]) < 2 and len(result["averages"]) < 2 for result in results.values()):
        return ""
    rows: list[list[str]] = []
    for measure in dict.fromkeys(name for result in results.values() for name in result["averages"]):
        for over in ("tasks", "types"):
            found = (result["averages"].get(measure) for result in results.values())
            rows.append([f"{measure}, over {over}", *("" if mean is None else f"{mean[over]:.3f}" for mean in found)])
    return _table(["mean", *results], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def _fraction(pair: Mapping[str, int] | None) -> str:
    return "" if pair is None else f"{pair['wins']}/{pair['tasks']}"
