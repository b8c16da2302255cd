"""The results of a study in one file, for `results/`.

    python benchmarks/pack_results.py DIR/cells results/NAME.jsonl --command "spark-rl compare ... --out DIR"
    python benchmarks/pack_results.py results/NAME.jsonl results/NAME.jsonl    # with settings as this version writes them

The command is the one that prints the study's tables; a file that is packed again keeps its own. Settings are read and
written anew, so that names of components, and settings that came later, are those of this version.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from spark_rl.config.codec import decode, encode
from spark_rl.experiments.compare.study import pack, read_study, unpack, write_study


def main() -> None:
    """Read, pack, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of cells, or a file of results")
    parser.add_argument("out", type=Path)
    parser.add_argument("--command", help="prints the tables")
    arguments = parser.parse_args()
    command, results = read(arguments.source)
    head, lines = pack([renewed(result) for result in results], arguments.out.stem, arguments.command or command)
    write_study(arguments.out, head, lines)
    print(f"{arguments.out}: {len(lines)} cells, {arguments.out.stat().st_size:,} bytes")


def read(source: Path) -> tuple[str, list[Any]]:
    """The command and the results of a source."""
    if source.is_dir():
        return "", [json.loads(path.read_text()) for path in sorted(source.glob("*.json"))]
    head, lines = read_study(source)
    return head["command"], unpack(head, lines)


def renewed(result: dict[str, Any]) -> Any:
    """A result with its settings as this version writes them."""
    parts = {name: result[name] for name in ("settings", "preferences") if name in result}
    return result | {name: encode(decode(part, foreign=lambda _: True)) for name, part in parts.items()}


if __name__ == "__main__":
    main()
