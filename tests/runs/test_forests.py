"""Forests go to disk and come back equal, or a sentence says why not."""

from __future__ import annotations

import errno
import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import draw

import spark_rl
from spark_rl.errors import StorageError
from spark_rl.runs.forests import forest_path, iterations, prune_forests, save_forest
from spark_rl.types import Forest, Fork, Spent


def forest(iteration: int = 3) -> Forest:
    tree = draw([-1, -1, 0, 0, 1], {2: 1.0, 3: 0.0, 4: 0.0}, logprobs=(-0.1, -1 / 3), state_key="ä\n\x1b[31m")
    tree.forks.append(Fork(0, 0, "after", 1))
    return Forest([tree, draw([-1])], iteration, 7, Spent(generated=5, seconds={"generate": 0.5}), ["task: failed"])


def test_a_forest_comes_back_equal(tmp_path):
    save_forest(forest(), tmp_path / "f.jsonl.gz")
    back = spark_rl.load_forest(tmp_path / "f.jsonl.gz")
    assert back == forest()
    assert back.spent == forest().spent
    back.spent.seconds["generate"] = 9.0
    assert back == forest()


@settings(max_examples=50, deadline=None)
@given(logprobs=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=5), text=st.text())
def test_any_number_and_text_survives(tmp_path_factory, logprobs, text):
    path = tmp_path_factory.mktemp("f") / "f.jsonl.gz"
    whole = Forest([draw([-1], None, logprobs=tuple(logprobs), text=text, observation=text)])
    save_forest(whole, path)
    assert spark_rl.load_forest(path) == whole


def test_run_directories_hold_numbered_forests(tmp_path):
    for iteration in (1, 2, 10):
        save_forest(forest(iteration), forest_path(tmp_path / "forests", iteration))
    assert iterations(tmp_path) == [1, 2, 10]
    assert spark_rl.load_forest(tmp_path).iteration == 10
    assert spark_rl.load_forest(str(tmp_path / "forests"), iteration=2).iteration == 2
    with pytest.raises(StorageError, match="no forest of iteration 5; there are 1, 2, 10"):
        spark_rl.load_forest(tmp_path, 5)
    prune_forests(tmp_path / "forests", 2)
    assert iterations(tmp_path) == [2, 10]


def test_files_of_version_one_are_read(tmp_path):
    """They know no entropies, no cap and horizon, and no exclusion; every step has its whole prompt."""
    save_forest(forest(), tmp_path / "new")
    header, *trees = (json.loads(line) for line in gzip.decompress((tmp_path / "new").read_bytes()).splitlines())
    last = header["node"].index("entropies")
    del header["node"][last], header["spent"]["discarded"], header["spent"]["states_kept"]
    header["version"] = 1
    for tree, whole in zip(trees, forest(), strict=True):
        del tree["cap"], tree["horizon"]
        tree["forks"] = [fork[:4] for fork in tree["forks"]]
        for node, step in zip(tree["nodes"], whole.nodes, strict=True):
            node[header["node"].index("prompt")] = list(step.prompt)
            del node[last]
    (tmp_path / "old").write_bytes(gzip.compress("\n".join(map(json.dumps, [header, *trees])).encode()))
    assert spark_rl.load_forest(tmp_path / "old") == forest()


def test_a_step_keeps_what_is_new_in_its_prompt(tmp_path):
    tree = draw([-1, 0, 0])
    tree.nodes[0].prompt, tree.nodes[1].prompt, tree.nodes[2].prompt = (1, 2), (1, 2, 7), (1, 9)
    save_forest(Forest([tree]), tmp_path / "f")
    header, line = gzip.decompress((tmp_path / "f").read_bytes()).splitlines()
    at = json.loads(header)["node"].index("prompt")
    assert [node[at] for node in json.loads(line)["nodes"]] == [[0, [1, 2]], [2, [7]], [1, [9]]]
    assert spark_rl.load_forest(tmp_path / "f") == Forest([tree])


def test_what_growing_adds_comes_back(tmp_path):
    tree = draw([-1, 0], None, entropies=(0.25, 1.5))
    tree.forks, tree.cap, tree.horizon = [Fork(0, None, "decision", 1), Fork(0, 1, "decision", 2, exclude=True)], 9, 30
    tree.nodes[1].progress = {"score": 0.25, "subgoals": 1.0}
    spent = Spent(discarded=3, states_kept=7, restarts=1)
    save_forest(Forest([tree], spent=spent), tmp_path / "f")
    assert spark_rl.load_forest(tmp_path / "f") == Forest([tree], spent=spent)


def test_equal_forests_are_equal_files(tmp_path):
    for name in "ab":
        save_forest(forest(), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_cannot_be_read_says_so(tmp_path):
    with pytest.raises(StorageError, match="holds no forests"):
        spark_rl.load_forest(tmp_path)
    (tmp_path / "cut").write_bytes(gzip.compress(b"{}\n")[:-5])
    with pytest.raises(StorageError, match="not a readable forest"):
        spark_rl.load_forest(tmp_path / "cut")
    (tmp_path / "new").write_bytes(gzip.compress(json.dumps({"format": "spark-rl-forest", "version": 99}).encode()))
    with pytest.raises(StorageError, match="format spark-rl-forest 99; this version reads"):
        spark_rl.load_forest(tmp_path / "new")


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "f"
    save_forest(forest(1), path)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        save_forest(forest(2), path)
    assert spark_rl.load_forest(path).iteration == 1
    assert [file.name for file in tmp_path.iterdir()] == ["f"]
