"""Results of an evaluation as Markdown tables."""

from __future__ import annotations

from spark_rl.common.tables import markdown_table
from spark_rl.evaluation.lookahead import CHOICES
from spark_rl.evaluation.results import KindResult, Levels

__all__ = ["averages", "branching", "by_kind", "markdown", "report"]


def markdown(results: Levels) -> str:
    """The main table, one row for each level."""
    wanted = list(dict.fromkeys(k for r in results.values() for k in r.pass_at))
    head = ["level", "success", "95 % interval", "wins", "score", "steps", "invalid", "repeated", "explore", "tokens"]
    head += [f"Pass@{k}" for k in wanted]
    rows = [
        [
            level,
            f"{r.success:.3f}",
            f"{r.low:.3f} to {r.high:.3f}",
            f"{r.wins}/{r.episodes}",
            f"{r.score:.3f}",
            f"{r.steps:.1f}",
            *(f"{share:.3f}" for share in (r.invalid_ratio, r.repetitive_ratio, r.explore_ratio)),
            f"{r.tokens:.0f}",
            *(f"{r.pass_at[k]:.3f}" for k in wanted),
        ]
        for level, r in results.items()
    ]
    return markdown_table(head, rows)


def branching(results: Levels) -> str:
    """A table of the effect and the cost of choosing, one row for each level; empty where there was no choice.

    The success of every rule is computed from the same trees. `alone` is the trajectory without branching, from the same
    samples. Pass@leaves counts a task as solved where any leaf succeeded: it uses outcomes, so it is not a success rate.
    """
    chosen = [(level, r, r.branching) for level, r in results.items() if r.branching is not None]
    if not chosen:
        return ""
    rules = [rule for rule in CHOICES if all(rule in b.by_rule for _, _, b in chosen)]
    head = ["level", "chosen", "alone", "gained", "lost", *(f"by {rule}" for rule in rules), "Pass@leaves", "leaves"]
    head += ["tokens", "alone", "environment steps", "alone"]
    rows = [
        [
            level,
            *(f"{value:.3f}" for value in (r.success, b.alone)),
            f"{b.gained}",
            f"{b.lost}",
            *(f"{b.by_rule[rule]:.3f}" for rule in rules),
            f"{b.pass_at_leaves:.3f}",
            f"{b.leaves:.1f}",
            *(f"{value:.0f}" for value in (r.tokens, b.alone_tokens)),
            *(f"{value:.1f}" for value in (r.env_steps, b.alone_steps)),
        ]
        for level, r, b in chosen
    ]
    return markdown_table(head, rows)


def report(results: Levels) -> str:
    """All tables, in Markdown."""
    return "\n\n".join(filter(None, (f(results) for f in (markdown, branching, averages, by_kind))))


def by_kind(results: Levels) -> str:
    """A table of wins by task type, one column for each level; empty where no level has two types."""
    if all(len(result.kinds) < 2 for result in results.values()):
        return ""
    kinds = sorted({kind for result in results.values() for kind in result.kinds})
    rows = [[kind, *(_fraction(result.kinds.get(kind)) for result in results.values())] for kind in kinds]
    return markdown_table(["type", *results], rows)


def averages(results: Levels) -> str:
    """A table of means, over tasks and over types; empty where no level has two types or a measure besides success."""
    if all(len(result.kinds) < 2 and len(result.averages) < 2 for result in results.values()):
        return ""
    rows: list[list[str]] = []
    for measure in dict.fromkeys(name for result in results.values() for name in result.averages):
        means = [result.averages.get(measure) for result in results.values()]
        rows.append([f"{measure}, over tasks", *("" if mean is None else f"{mean.tasks:.3f}" for mean in means)])
        rows.append([f"{measure}, over types", *("" if mean is None else f"{mean.types:.3f}" for mean in means)])
    return markdown_table(["mean", *results], rows)


def _fraction(kind: KindResult | None) -> str:
    return "" if kind is None else f"{kind.wins}/{kind.tasks}"
