"""A report: one HTML file that holds its runs, its script and its style, and opens without a network.

Invariants
----------
* Nothing from a run can become markup or code: data stand in elements that are not run, `<` is written as an escape, and
  the content security policy lets in this page's own script and style by their hashes, and nothing else.
* A forest is packed by itself (gzip, base64) and unpacked by the page when somebody looks at it.
* The file stays below a size: where not all forests fit, an even selection of iterations does, the first and the last among
  them, and the page says what was left out.

`page/` holds the page, built from `web/` (its README says how). `fill` puts it together, also for the server, which serves
the same page with links in the place of contents.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence, Set
from importlib import resources
from typing import Any

from spark_rl.report.payload import forest_entry, forest_payload, metrics_payload, missing_entry, run_payload
from spark_rl.report.reading import Reading
from spark_rl.types import Forest

__all__ = ["POLICY", "asset", "fill", "metrics_element", "packed", "report"]

Json = dict[str, Any]
Key = tuple[int, int]
"""A forest on the page: number of its run, iteration."""

POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; connect-src {connect}; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
"""The content security policy, for a report and for the server."""


def report(
    readings: Sequence[Reading], names: Sequence[str], most_bytes: int, advance: Callable[[int], None] = lambda _: None
) -> str:
    """The whole file.

    Args:
        readings: of the runs, in the order in which they are shown.
        names: what the page calls them.
        most_bytes: of the file; the page and what is known of runs as a whole are always in it.
        advance: told how many forests have been read.
    """
    entries: list[list[Json]] = []
    elements: dict[Key, str] = {}
    for number, reading in enumerate(readings):
        entries.append([])
        for iteration in reading.forests:
            forest = reading.open_forest(iteration)
            if isinstance(forest, str):
                entries[-1].append(missing_entry(iteration, forest))
            else:
                entries[-1].append(forest_entry(forest))
                elements[number, iteration] = _forest_element(number, reading, forest)
            advance(sum(map(len, entries)))
    why = f"Left out to keep the file below {most_bytes / 1e6:.0f} MB (--max-mb)."

    def page(kept: Set[Key]) -> str:
        listed = [
            [{**entry, "missing": why} if (number, entry["iteration"]) in elements.keys() - kept else entry for entry in own]
            for number, own in enumerate(entries)
        ]
        return _page(_runs(readings, names, listed), [element for key, element in elements.items() if key in kept])

    # With every forest named as left out, the rest of the page is as large as it can be.
    return page(_that_fit(elements, most_bytes - len(page(set()).encode())))


def _forest_element(run: int, reading: Reading, forest: Forest) -> str:
    content = base64.b64encode(packed(forest_payload(forest, reading.recipe))).decode()
    return f'<script type="text/plain" id="forest-{run}-{forest.iteration}">{content}</script>\n'


def _page(runs: str, forests: Sequence[str]) -> str:
    script, style = asset("page.js"), asset("page.css")
    return fill(
        csp=POLICY.format(script=_hash(script), style=_hash(style), connect="'none'"),
        style=f"<style>{style}</style>",
        data="".join([metrics_element(), f'<script type="application/json" id="runs">{runs}</script>\n', *forests]),
        script=f"<script>{script}</script>",
    )


def metrics_element() -> str:
    """What the page says of metrics, for a report and for the server."""
    return f'<script type="application/json" id="metrics">{_escaped(metrics_payload())}</script>\n'


def packed(value: Json) -> bytes:
    """JSON, gzipped; equal values are equal bytes."""
    return gzip.compress(_json(value).encode(), compresslevel=9, mtime=0)


def asset(name: str) -> str:
    """A file of the page: `page.html`, `page.js` or `page.css`."""
    return (resources.files("spark_rl.report") / "page" / name).read_text(encoding="utf-8")


def fill(**parts: str) -> str:
    """The page's template with its parts in place. It is cut at its marks first, so that none is found in a part."""
    pieces = re.split(r"{{(\w+)}}", asset("page.html"))
    assert sorted(pieces[1::2]) == sorted(parts), f"page.html has places for {pieces[1::2]}"
    return "".join(parts[piece] if place % 2 else piece for place, piece in enumerate(pieces))


def _runs(readings: Sequence[Reading], names: Sequence[str], entries: Sequence[Sequence[Json]]) -> str:
    each = enumerate(zip(readings, names, entries, strict=True))
    return _escaped([run_payload(reading, str(i), name, known) for i, (reading, name, known) in each])


def _escaped(value: object) -> str:
    """JSON for a script element, where only `<` can end it or begin a comment."""
    return _json(value).replace("<", "\\u003c")


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _that_fit(elements: Mapping[Key, str], room: int) -> Set[Key]:
    """An even selection of each run's forests: all, else the first and every second, third, ... counted from the last."""
    own: dict[int, list[int]] = {}
    for run, iteration in sorted(elements):
        own.setdefault(run, []).append(iteration)
    for step in range(1, max(map(len, own.values()), default=0) + 1):
        kept = {(run, i) for run, known in own.items() for i in (known[0], *known[::-step])}
        if sum(len(elements[key]) for key in kept) <= room:
            return kept
    return set()
