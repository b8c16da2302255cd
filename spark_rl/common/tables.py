"""The one writer of Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["markdown_table"]


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], *, spaced: bool = False) -> str:
    """A table in Markdown.

    Args:
        head: the headings; empty for a table without headings, which Markdown writes with empty cells.
        rows: the cells of each row, one for each heading.
        spaced: whether the line below the headings has spaces; the rendered table is the same.
    """
    width = len(head) if head else len(rows[0]) if rows else 0
    top = f"| {' | '.join(head)} |" if head else "| " * width + "|"
    rule = "| " + " | ".join(["---"] * width) + " |" if spaced else "|---" * width + "|"
    return "\n".join([top, rule, *(f"| {' | '.join(row)} |" for row in rows)])
