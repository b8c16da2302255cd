"""The file of demonstrations: what is written comes back, in columns of one type, and older files are read."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from shown import WORLD, as_first_version, lost, won

from spark_rl.config.codec import decode
from spark_rl.data.format import COLUMNS, load, prompt_version, read_records, save
from spark_rl.environments.registry import find_task
from spark_rl.errors import StorageError
from spark_rl.prompting.prompt import Prompt
from spark_rl.prompting.transcript import Transcript
from spark_rl.prompting.window import Window


@pytest.mark.parametrize(
    "prompt",
    [Prompt(), Prompt(Window(2), list_actions=False), Prompt(Transcript("changes")), Prompt(modes="rlvmr")],
)
def test_what_is_written_comes_back(tmp_path, prompt):
    shown = [*won(prompt=prompt), *lost(prompt)]
    save(shown, tmp_path / "one.jsonl", prompt)
    read = load(tmp_path / "one.jsonl")
    assert [one.won for one in read] == [True] * 5 + [False] * 2
    for before, after in zip(shown, read, strict=True):
        assert replace(after.origin, rendering="") == before.origin
        assert decode(json.loads(after.origin.rendering)) == prompt
        assert decode(json.loads(after.origin.world)) == WORLD
        assert find_task(WORLD, after.tree.task.id).kind == after.tree.task.kind
        for old, new in zip(before.tree.nodes, after.tree.nodes, strict=True):
            names = ("text", "action", "mode", "admissible", "observation", "reward", "done", "success", "state_key")
            assert [getattr(old, name) for name in names] == [getattr(new, name) for name in names]
    save(read, tmp_path / "two.jsonl", prompt)
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


def test_a_compressed_file_holds_the_same_lines(tmp_path):
    shown = won(40)
    for name in ("plain.jsonl", "small.jsonl.gz", "again.jsonl.gz"):
        save(shown, tmp_path / name, Prompt())
    assert read_records(tmp_path / "small.jsonl.gz") == read_records(tmp_path / "plain.jsonl")
    assert (tmp_path / "small.jsonl.gz").read_bytes() == (tmp_path / "again.jsonl.gz").read_bytes()
    whole = (tmp_path / "small.jsonl.gz").read_bytes()
    assert len(whole) < (tmp_path / "plain.jsonl").stat().st_size / 20
    (tmp_path / "small.jsonl.gz").rename(tmp_path / "renamed.jsonl")
    assert len(load(tmp_path / "renamed.jsonl")) == 40
    for broken in (whole[:-20], whole[:200] + b"x" * 20 + whole[220:]):
        (tmp_path / "again.jsonl.gz").write_bytes(broken)
        with pytest.raises(StorageError, match=r"again.jsonl.gz is no readable demonstration file"):
            load(tmp_path / "again.jsonl.gz")


def test_what_a_policy_got_wrong_is_not_to_be_learnt():
    first = lost()[0]
    assert first.slips == {1, 2}
    assert not first.won


def test_the_prompt_version_names_settings():
    assert prompt_version(Prompt()) == prompt_version(Prompt(Window()))
    assert prompt_version(Prompt()) != prompt_version(Prompt(Window(4)))
    assert prompt_version(Prompt()) == "prompt-177df0a0", "the name that older files give it"


def test_sparks_modes_are_not_said_so_that_older_files_agree(tmp_path):
    for modes in ("spark", "rlvmr"):
        prompt = Prompt(modes=modes)
        save(won(2, prompt), tmp_path / "one.jsonl", prompt)
        (first, *_), *_ = read_records(tmp_path / "one.jsonl")
        assert json.loads(first["rendering"]).get("modes", "spark") == modes
        assert ("modes" in first["rendering"]) == (modes == "rlvmr")


def test_lines_of_an_older_version_are_read_under_todays_names(tmp_path):
    prompt = Prompt(Window(2))
    save(won(2, prompt), tmp_path / "new.jsonl", prompt)
    today, *_ = read_records(tmp_path / "new.jsonl")
    renamed = {
        "rendering": {"type": "spark_rl.prompting:Prompt", "context": {"type": "spark_rl.prompting:Window", "history": 2}},
        "world": {"type": "spark_rl.environments.household.world:Household", "train_tasks": 40},
    }  # and without what has its default
    lines = [{**record, **{name: json.dumps(value) for name, value in renamed.items()}} for record in today]
    (tmp_path / "old.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (read,) = read_records(tmp_path / "old.jsonl")
    assert read == today


@pytest.mark.parametrize("text", ["", "no JSON", "[1]", "7", '{"history": 2}'])
def test_a_rendering_that_is_none_is_read_as_it_is(tmp_path, text):
    save(won(1), tmp_path / "demos.jsonl", Prompt())
    lines = [{**json.loads(line), "rendering": text} for line in (tmp_path / "demos.jsonl").read_text().splitlines()]
    (tmp_path / "demos.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert {record["rendering"] for group in read_records(tmp_path / "demos.jsonl") for record in group} == {text}


def test_every_column_has_one_type_for_datasets(tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is part of the extra sft")
    bare = Prompt(list_actions=False)
    files = [tmp_path / name for name in ("won.jsonl", "lost.jsonl", "bare.jsonl")]
    save(won(), files[0], Prompt())
    save(lost(), files[1], Prompt())
    save(won(2, bare, 0.0), files[2], bare)
    loaded = [
        datasets.load_dataset("json", data_files=str(file), cache_dir=str(tmp_path / "cache"))["train"] for file in files
    ]
    kinds = {str: "string", int: "int64", float: "float64", bool: "bool"}
    for rows, file in zip(loaded, files, strict=True):
        types = {name: getattr(feature, "dtype", "messages") for name, feature in rows.features.items()}
        assert types == {name: kinds.get(kind, "messages") for name, kind in COLUMNS.items()} | {"prompt": types["prompt"]}
        assert rows[0]["prompt"] == read_records(file)[0][0]["prompt"]
    assert len(datasets.concatenate_datasets(loaded)) == sum(map(len, loaded))


def test_a_file_of_the_first_version_is_read(tmp_path):
    save(won(), tmp_path / "demos.jsonl", Prompt())
    today = load(tmp_path / "demos.jsonl")
    as_first_version(tmp_path / "demos.jsonl")
    for before, after in zip(today, load(tmp_path / "demos.jsonl"), strict=True):
        assert before.tree == after.tree
        assert before.slips == after.slips
        assert after.origin.world == ""


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ('{"trajectory": 0', "is not JSON"),
        ("[1]", "is no JSON object"),
        ('{"format": "other/7"}', "has the format 'other/7'"),
        ({"completion": None}, 'has None in the column "completion", which must be of type str'),
        ({"step": True}, 'has True in the column "step", which must be of type int'),
        ({"prompt": [{"role": "user"}]}, "no list of messages"),
    ],
)
def test_a_broken_line_is_named(tmp_path, broken, said):
    file = tmp_path / "demos.jsonl"
    save(won(1), file, Prompt())
    lines = file.read_text().splitlines()
    lines[1] = broken if isinstance(broken, str) else json.dumps(json.loads(lines[1]) | broken)
    file.write_text("\n".join(lines))
    with pytest.raises(StorageError, match=r"demos.jsonl line 2 ") as caught:
        load(file)
    assert said in str(caught.value)


def test_a_column_that_is_missing_is_named(tmp_path):
    file = tmp_path / "demos.jsonl"
    save(won(1), file, Prompt())
    records = [json.loads(line) for line in file.read_text().splitlines()]
    del records[0]["source"]
    file.write_text("\n".join(map(json.dumps, records)))
    with pytest.raises(StorageError, match='line 1 lacks the column "source"'):
        load(file)
