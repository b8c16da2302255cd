"""Forests on disk: gzipped JSON lines, a header and then one line for each tree.

Invariants
----------
* `load_forest(save_forest(f)) == f`: every id, log-probability, action and counter comes back exactly.
* A file is written whole or not at all.
* The header names the format and its version. An older version is read; a newer one raises an error that names both.
  (Version 2 added the tokens' entropies, a tree's cap and horizon, and forks that exclude actions. Version 3 added progress
  and restarts. Version 4 added the version of the weights. Since version 5 a prompt is a pair: how many ids it has in common
  with the prompt of the step before, and the other ids.)

The format is JSON because anybody can read it with three lines of any language. Token ids compress well.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from spark_rl.common.files import compressed, write_bytes
from spark_rl.common.packed import floats, ids
from spark_rl.errors import StorageError
from spark_rl.types import Forest, Fork, Node, Spent, Task, Tree

__all__ = ["FORMAT", "VERSION", "forest_path", "iterations", "load_forest", "prune_forests", "save_forest"]

FORMAT = "spark-rl-forest"
VERSION = 5
SUFFIX = ".jsonl.gz"

_NODE = [f.name for f in fields(Node)]
_TASK = ("environment", "id", "instruction", "kind")
_TUPLES = ("path", "actions")
_FLOATS = ("logprobs", "entropies")
_PAIRS = 5
"""First version with prompts as pairs."""


def save_forest(forest: Forest, path: Path) -> None:
    """Write a forest to a file, whole or not at all."""
    header = {
        "format": FORMAT,
        "version": VERSION,
        "iteration": forest.iteration,
        "seed": forest.seed,
        "weights": forest.version,
        "spent": {**forest.spent.counts(), "seconds": forest.spent.seconds},
        "failures": forest.failures,
        "node": _NODE,
    }
    lines = [json.dumps(header), *(json.dumps(_tree_record(tree), separators=(",", ":")) for tree in forest)]
    write_bytes(path, compressed(("\n".join(lines) + "\n").encode()))


def load_forest(path: str | Path, iteration: int | None = None) -> Forest:
    """Read a forest back.

    Args:
        path: a forest file, a folder of forest files, or a run directory.
        iteration: the iteration to read from a folder; the last by default.

    Raises:
        StorageError: there is no such forest, or its file cannot be read.
    """
    file = _forest_file(Path(path), iteration)
    try:
        lines = gzip.decompress(file.read_bytes()).decode().splitlines()
        header = json.loads(lines[0])
        if header.get("format") != FORMAT or header["version"] > VERSION:
            actual = f"{header.get('format')} {header.get('version')}"
            raise StorageError(f"{file} has format {actual}; this version reads {FORMAT} {VERSION}")
        trees = [_tree(json.loads(line), header["node"], header["version"]) for line in lines[1:]]
        spent, weights = Spent(**header["spent"]), header.get("weights", 0)
        return Forest(trees, header["iteration"], header["seed"], spent, header["failures"], weights)
    except (OSError, EOFError, ValueError, KeyError, IndexError, TypeError) as error:
        raise StorageError(f"{file} is not a readable forest ({error})") from error


def iterations(path: str | Path) -> list[int]:
    """The iterations that have a forest in a folder (or run directory), in order."""
    return sorted(int(file.name.removesuffix(SUFFIX)) for file in _folder(Path(path)).glob(f"[0-9]*{SUFFIX}"))


def prune_forests(folder: Path, keep: int) -> None:
    """Delete all forests except the newest `keep`; 0 deletes none."""
    for old in iterations(folder)[:-keep] if keep else []:
        forest_path(folder, old).unlink(missing_ok=True)


def forest_path(folder: Path, iteration: int) -> Path:
    """The file of an iteration's forest in a folder."""
    return folder / f"{iteration:06d}{SUFFIX}"


def _folder(path: Path) -> Path:
    return path / "forests" if (path / "forests").is_dir() else path


def _forest_file(path: Path, iteration: int | None) -> Path:
    if path.is_file():
        return path
    saved = iterations(path)
    if not saved:
        raise StorageError(f"{path} holds no forests; name a run directory or a forest file")
    if iteration is not None and iteration not in saved:
        raise StorageError(f"{path} holds no forest of iteration {iteration}; there are {', '.join(map(str, saved))}")
    return forest_path(_folder(path), saved[-1] if iteration is None else iteration)


def _tree_record(tree: Tree) -> dict[str, object]:
    task = tree.task
    return {
        "task": {name: getattr(task, name) for name in _TASK} | {"data": dict(task.data)},
        "observation": tree.observation,
        "actions": tree.actions,
        "opened": tree.opened,
        "cap": tree.cap,
        "horizon": tree.horizon,
        "forks": [[fork.tree, fork.node, fork.at, fork.extra, fork.exclude] for fork in tree.forks],
        "nodes": [_node_record(node, tree) for node in tree.nodes],
    }


def _node_record(node: Node, tree: Tree) -> list[object]:
    values = {name: getattr(node, name) for name in _NODE}
    above: Sequence[int] = tree.nodes[node.parent].prompt if node.parent >= 0 else ()
    prompt = ids(tuple(node.prompt), ids(above))
    values["prompt"] = [prompt.kept, prompt.new.tolist()]
    for name in ("completion", *_FLOATS):
        values[name] = list(values[name])
    return list(values.values())


def _tree(record: Mapping[str, Any], names: list[str], version: int) -> Tree:
    nodes: list[Node] = []
    for row in record["nodes"]:
        values: dict[str, Any] = dict(zip(names, row, strict=True))
        parent: int = values["parent"]
        above = nodes[parent].prompt if parent >= 0 else ids(())
        kept, new = values["prompt"] if version >= _PAIRS else (0, values["prompt"])
        values["prompt"] = ids((*above[:kept], *new), above)
        values["completion"] = ids(values["completion"])
        for name in values.keys() & _TUPLES:
            values[name] = tuple(values[name])
        for name in values.keys() & _FLOATS:
            values[name] = floats(values[name])
        nodes.append(Node(**values))
    forks = [Fork(*fork) for fork in record["forks"]]
    return Tree(
        task=Task(**record["task"]),
        observation=record["observation"],
        actions=tuple(record["actions"]),
        nodes=nodes,
        forks=forks,
        opened=record["opened"],
        cap=record.get("cap", 0),
        horizon=record.get("horizon", 0),
    )
