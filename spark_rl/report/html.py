"""A report: one HTML file with its runs, its script and its style, which opens without a network.

Invariants
----------
* No data of a run can become markup or code: data are in elements that browsers do not run, `<` is escaped, and the content
  security policy allows only the page's own script and style, by their hashes.
* Each forest is compressed by itself (gzip, base64), and the page decompresses it when it is opened.
* The file stays below a size. If not all forests fit, the file has an even selection of iterations, with the first and the
  last, and the page names the missing ones.

`page/` holds the page, built from `web/` (see the README there). `fill` assembles the page, also for the server, whose page
has links in place of the data.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence, Set
from importlib import resources

from spark_rl.report.payload import (
    ForestEntry,
    Payload,
    forest_entry,
    forest_payload,
    metrics_payload,
    missing_entry,
    run_payload,
)
from spark_rl.report.reading import Reading
from spark_rl.types import Forest

__all__ = ["POLICY", "asset", "fill", "metrics_element", "packed", "report"]

Key = tuple[int, int]
"""Key of a forest on the page: the number of the run, and the iteration."""

POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; connect-src {connect}; img-src data:; "
    "base-uri 'none'; form-action 'none'"
)
"""The content security policy, for a report and for the server."""


def report(
    readings: Sequence[Reading], names: Sequence[str], most_bytes: int, advance: Callable[[int], None] = lambda _: None
) -> str:
    """The text of the file.

    Args:
        readings: the contents of the run directories, in the order on the page.
        names: the names of the runs on the page.
        most_bytes: the largest size of the file; the page and the runs without their steps are always in the file.
        advance: called with the number of forests that have been read.
    """
    entries: list[list[ForestEntry]] = []
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

    def page(chosen: Set[Key]) -> str:
        listed: list[list[ForestEntry]] = [
            [
                {**entry, "missing": why} if (number, entry["iteration"]) in elements.keys() - chosen else entry
                for entry in own
            ]
            for number, own in enumerate(entries)
        ]
        return _page(_runs(readings, names, listed), [element for key, element in elements.items() if key in chosen])

    # Without forests the rest of the page is largest, since it then names every forest as left out.
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
    """The element with the metrics, for a report and for the server."""
    return f'<script type="application/json" id="metrics">{_escaped(metrics_payload())}</script>\n'


def packed(value: Payload) -> bytes:
    """A value as gzipped JSON; equal values give equal bytes."""
    return gzip.compress(_json(value).encode(), compresslevel=9, mtime=0)


def asset(name: str) -> str:
    """A file of the page: `page.html`, `page.js` or `page.css`."""
    return (resources.files("spark_rl.report") / "page" / name).read_text(encoding="utf-8")


def fill(**parts: str) -> str:
    """The template of the page with its parts. It is split at its marks first, so that marks inside a part do not count."""
    pieces = re.split(r"{{(\w+)}}", asset("page.html"))
    assert sorted(pieces[1::2]) == sorted(parts), f"page.html has places for {pieces[1::2]}"
    return "".join(parts[piece] if place % 2 else piece for place, piece in enumerate(pieces))


def _runs(readings: Sequence[Reading], names: Sequence[str], entries: Sequence[Sequence[ForestEntry]]) -> str:
    each = enumerate(zip(readings, names, entries, strict=True))
    return _escaped([run_payload(reading, str(i), name, forests) for i, (reading, name, forests) in each])


def _escaped(value: object) -> str:
    """JSON for a script element, in which only `<` can end the element or start a comment."""
    return _json(value).replace("<", "\\u003c")


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _that_fit(elements: Mapping[Key, str], room: int) -> Set[Key]:
    """The forests that fit: all of each run, or the first and every second, third, ... counted from the last."""
    by_run: dict[int, list[int]] = {}
    for run, iteration in sorted(elements):
        by_run.setdefault(run, []).append(iteration)
    for step in range(1, max(map(len, by_run.values()), default=0) + 1):
        chosen = {(run, i) for run, iterations in by_run.items() for i in (iterations[0], *iterations[::-step])}
        if sum(len(elements[key]) for key in chosen) <= room:
            return chosen
    return set()
