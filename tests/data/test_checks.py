"""What `data check` objects to: each mistake by its line, and nothing where there is none."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shown import WORLD, as_first_version, learnt_encoder, lost, won

from spark_rl.cli import main
from spark_rl.config.codec import encode
from spark_rl.data.checks import check
from spark_rl.data.format import Record, read_records, save
from spark_rl.data.profile import choose, profile
from spark_rl.environments.household import Household
from spark_rl.prompting.prompt import Prompt
from spark_rl.prompting.transcript import Transcript
from spark_rl.prompting.window import Window

PROMPTS = [Prompt(), Prompt(Window(2), instructions="none", list_actions=False), Prompt(Transcript("changes"))]


@pytest.fixture
def file(tmp_path) -> Path:
    save(won(), tmp_path / "demos.jsonl", PROMPTS[0])
    return tmp_path / "demos.jsonl"


def objections(file: Path, **options: Any) -> list[tuple[int, str]]:
    return check(file, lambda _: WORLD, replay=True, **options).objections


def change(file: Path, number: int, **values: Any) -> None:
    """Set columns of a line."""
    lines = file.read_text().splitlines()
    lines[number - 1] = json.dumps(json.loads(lines[number - 1]) | values)
    file.write_text("\n".join(lines) + "\n")


def records(file: Path) -> list[Record]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def first(file: Path, wanted: Callable[[Record], bool]) -> int:
    return next(number for number, record in enumerate(records(file), start=1) if wanted(record))


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_good_file_has_no_objections_token_for_token(tmp_path, prompt):
    file = tmp_path / "demos.jsonl"
    some = [*won(prompt=prompt), *lost(prompt)]
    save(some, file, prompt)
    found = check(file, lambda _: WORLD, replay=True, encoder=learnt_encoder(some, prompt))
    assert (found.objections, found.notes) == ([], [])
    assert found.replayed == len(found.groups) == 7


def test_a_prompt_that_rl_shortens_is_told_and_one_that_does_not_fit_is_an_objection(tmp_path):
    encoder = learnt_encoder(won(), PROMPTS[0])
    file = tmp_path / "demos.jsonl"
    longest = max(len(encoder.conversation(PROMPTS[0].render(one.tree, -1, None).messages)) for one in won())
    prompt = Prompt(limit=longest)  # of a first step: later ones lose history
    save(won(prompt=prompt), file, prompt)
    found = check(file, lambda _: WORLD, encoder=encoder)
    assert found.objections == []
    assert f"RL shortens prompts beyond {longest} tokens" in found.notes[0]
    save(won(prompt=prompt), file, Prompt(limit=20))
    found = check(file, lambda _: WORLD, encoder=encoder)
    assert [number for number, _ in found.objections] == [n for n, r in enumerate(records(file), start=1) if r["step"] == 1]
    assert "prompt.limit is 20" in found.objections[0][1]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"completion": "<think>a</think><action>look</action>!"}, "something else than one reasoning block"),
        ({"completion": "<think>a</think><think>b</think><action>look</action>"}, "something else than one reasoning block"),
        ({"admissible": False}, "was refused, and is no slip"),
        ({"author": "somebody"}, "says 'somebody' in \"author\""),
        ({"success": False}, 'says False in "success"'),
        ({"step": 7}, "is step 7 where step 2 is expected"),
        ({"observation": "A cellar."}, "observes something else"),
        ({"done": True}, "ends the episode, but steps follow"),
        ({"actions": "dance"}, "has a prompt that RL would not render"),
        ({"prompt": [{"role": "user", "content": "Do."}]}, "has a prompt that RL would not render"),
        ({"reward": 0.5}, 'says 0.5 in "reward", the world 0.0'),
    ],
)
def test_each_mistake_is_named_by_its_line(file, values, said):
    number = first(file, lambda record: record["step"] == 2 and not record["slip"] and record["steps"] > 2)
    change(file, number, **values)
    found = objections(file)
    assert any(line == number and said in text for line, text in found), found


def test_an_outcome_that_is_not_true_is_found_by_playing(file):
    last = first(file, lambda record: record["step"] == record["steps"])
    for number in range(1, last + 1):
        change(file, number, success=False)
    assert check(file, lambda _: WORLD).objections == []
    assert objections(file) == [(last, 'says False in "success", the world True')]


def test_a_world_with_other_options_answers_otherwise(file):
    other = replace(WORLD, objects=12)
    found = check(file, lambda _: other, replay=True).objections
    assert any("start" in text or "the world" in text or "task" in text for _, text in found)


def test_a_missing_step_and_a_split_trajectory_are_found(file):
    lines = file.read_text().splitlines(keepends=True)
    count = records(file)[0]["steps"]
    file.write_text("".join(lines[: count - 1] + lines[count:]))
    assert objections(file)[0] == (count - 1, f"is the last of {count - 1} steps, not of {count}")
    file.write_text("".join(lines[1:] + lines[:1]))
    assert any("goes on with trajectory 0, which ended before" in text for _, text in objections(file))


def test_a_line_that_cannot_be_read_is_an_objection_and_the_rest_is_looked_at(file):
    text = file.read_text()
    file.write_text("{}\n" + text)
    found = check(file, lambda _: WORLD)
    assert found.objections == [
        (1, "has the format None, which is neither spark-rl-demonstration/2 nor spark-rl-demonstration/1")
    ]
    assert len(found.groups) == 5
    file.write_text("")
    assert objections(file) == [(1, "is missing: the file is empty")]


def test_a_test_task_and_a_held_out_type_are_found(tmp_path):
    household = Household(train_tasks=40)
    for level, said in (("L0", 'is of the type "'), ("L1", "is a test task of level L1")):
        pool = {"L0": "train", "L1": "test"}
        task = next(t for t in household.tasks(level, pool[level]) if t.kind in ("cool", "two") or level == "L1")
        file = tmp_path / f"{level}.jsonl"
        save(won(), file, PROMPTS[0])
        for number in range(1, records(file)[0]["steps"] + 1):
            change(file, number, task=task.id, kind=task.kind)
        found = check(file, lambda _: WORLD).objections
        assert [number for number, _ in found] == [1]
        assert task.id in found[0][1]
        assert said in found[0][1]


def test_a_file_of_the_first_version_needs_to_be_told_what_it_does_not_say(file):
    as_first_version(file)
    found = check(file, lambda _: WORLD, replay=True)
    assert found.objections == []
    assert len(found.notes) == 2
    found = check(file, lambda _: WORLD, level="L2", prompt=PROMPTS[0])
    assert (found.objections, found.notes) == ([], [])


def test_the_profile_counts_steps_words_and_explore_by_interval():
    def line(step: int, mode: str, steps: int) -> Record:
        message = {"role": "user", "content": "one two three"}
        return {
            "task": "t", "kind": "k", "success": True, "slip": False, "prompt": [message], "step": step, "steps": steps,
            "completion": f"<{mode}>so</{mode}><action>go on</action>", "observation": "", "next_observation": "",
            "environment": "e", "instruction": "", "actions": "", "state_key": "", "admissible": True, "reward": 0.0,
            "done": False, "source": "expert", "author": "a", "date": "", "level": "L0", "world": "", "prompt_version": "",
            "rendering": "",
        }  # fmt: skip

    group = [line(step, "explore" if step in (1, 6) else "think", 6) for step in range(1, 7)]
    text = profile([group, group[:2]], None)
    assert "2 trajectories, 2 won, 0 doubles; 8 steps, 0 slips" in text
    assert "| explore, % | 28.57 | 100.00 | 37.50 |" in text  # 2 of 7, 1 of 1, 3 of 8
    assert "| number | 7 | 1 | 8 |" in text
    assert "| words of a prompt | 3.0 | 3 | 3 |" in text
    assert "| k | 2 | 2 | 4.0 |" in text


def test_a_balanced_sample_takes_each_type_in_turn():
    kinds = ["a"] * 50 + ["b"] * 3 + ["c"] * 20
    chosen = choose(kinds, 15, balanced=True, seed=1)
    assert [sum(kinds[i] == kind for i in chosen) for kind in "abc"] == [6, 3, 6]
    assert (
        chosen == sorted(set(chosen)) == choose(kinds, 15, balanced=True, seed=1) != choose(kinds, 15, balanced=True, seed=2)
    )
    assert choose(kinds, 73, balanced=False, seed=0) == list(range(73))


# -- commands -------------------------------------------------------------------------------------------------------


def test_check_ends_with_1_and_names_the_line(file, capsys):
    assert main(["data", "check", str(file), "--replay", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "5 of 5 trajectories were played again." in out
    assert "Nothing is wrong." in out
    number = first(file, lambda record: not record["slip"])
    change(file, number, completion="I give up.")
    assert main(["data", "check", str(file), "--quiet"]) == 1
    assert f"{file} line {number} answers with something else" in capsys.readouterr().out


def test_check_plays_in_the_world_of_the_file_unless_told_otherwise(file, capsys):
    assert main(["data", "check", str(file), "--replay", "--env.objects", "12", "--quiet"]) == 1
    as_first_version(file)
    assert main(["data", "check", str(file), "--quiet"]) == 0
    assert "give --level" in capsys.readouterr().out
    assert main(["data", "check", str(file), "--replay", "--level", "L2", "--env.train-tasks", "40", "--quiet"]) == 0


def test_merge_numbers_anew_and_keeps_none_twice(file, tmp_path, capsys):
    other, out = tmp_path / "other.jsonl", tmp_path / "all.jsonl"
    save([*lost(), *won()[:2]], other, PROMPTS[0])
    assert main(["data", "merge", str(file), str(other), "--out", str(out)]) == 0
    assert "7 trajectories of 2 files, 2 doubles left out" in capsys.readouterr().out
    assert [group[0]["trajectory"] for group in read_records(out)] == list(range(7))
    assert objections(out) == []
    save(lost(PROMPTS[1]), other, PROMPTS[1])
    assert main(["data", "merge", str(file), str(other), "--out", str(out)]) == 2
    assert "render prompts differently" in capsys.readouterr().err


def test_sample_takes_some(file, tmp_path, capsys):
    out = tmp_path / "some.jsonl"
    assert main(["data", "sample", str(file), "--count", "3", "--balanced", "--out", str(out)]) == 0
    assert len(read_records(out)) == 3
    assert objections(out) == []
    assert main(["data", "sample", str(file), "--count", "6", "--out", str(out)]) == 2
    assert "give 1 to 5" in capsys.readouterr().err


def test_a_world_from_elsewhere_is_not_imported_unasked(file, capsys):
    foreign = json.dumps(encode(WORLD) | {"type": "elsewhere.world:Household"})
    for number in range(1, len(records(file)) + 1):
        change(file, number, world=foreign)
    assert main(["data", "check", str(file), "--quiet"]) == 2
    assert "not part of spark-rl" in capsys.readouterr().err
