"""The command line as a user meets it: exit codes, what goes to which stream, and one sentence for each mistake."""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from serving import as_the_expert, serving

from spark_rl import __version__, load_forest
from spark_rl.cli import COMMANDS, main
from spark_rl.config.codec import decode, encode
from spark_rl.environments.registry import WORLDS, load_world
from spark_rl.prompting.parsing import parse
from spark_rl.prompting.prompt import Prompt
from spark_rl.recipes import load_recipe
from spark_rl.runs.run import Run

SMALL = [
    "--iterations", "1", "--tasks-per-iteration", "2", "--tree.budget", "3", "--tree.roots", "2", "--tree.horizon", "4",
    "--cold-start.demonstrations", "8", "--cold-start.epochs", "1", "--env.train-tasks", "40", "--env.test-tasks", "3",
    "--env.dev-tasks", "2", "--tree.horizon", "25", "--evaluation.levels", "L1", "--threads", "1",
]  # fmt: skip
"""A whole run in seconds: it learns nothing."""


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run."""
    out = tmp_path_factory.mktemp("cli") / "run"
    assert main(["train", "quickstart", "--quiet", "--out", str(out), *SMALL]) == 0
    return out


@pytest.fixture
def grown(tmp_path, capsys) -> Path:
    """A directory that the expert's trees were rolled out into."""
    out = tmp_path / "grown"
    assert main(["rollout", "quickstart", "--policy", "expert", "--tasks", "2", "--out", str(out)]) == 0
    capsys.readouterr()
    return out


def sentence(capsys, *argv: str | Path, code: int = 2) -> str:
    """What a failing command says: one line on standard error, nothing on standard output."""
    assert main([*map(str, argv), "--quiet"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("spark-rl: ")
    assert err.count("\n") == 1
    return err


def shell(*argv: str, **settings: object) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "spark_rl", *argv]
    return subprocess.run(command, text=True, check=False, **{"capture_output": True, **settings})


# -- help and version -----------------------------------------------------------------------------------------------


def test_help_lists_the_commands(capsys):
    for argv in ([], ["--help"], ["-h"], ["help"]):
        assert main(argv) == 0
        out = capsys.readouterr().out
        for name, command in COMMANDS.items():
            assert f"  {name:12} {command.about}\n" in out


def test_help_of_each_command(capsys):
    for name in COMMANDS:
        assert main([*name.split(), "--help"]) == 0
        out, err = capsys.readouterr()
        assert f"usage: spark-rl {name}" in out
        assert err == ""
    assert main(["env", "--help"]) == 0
    assert "env replay" in capsys.readouterr().out


def test_help_documents_the_options(capsys):
    assert main(["train", "quickstart", "--help"]) == 0
    out = capsys.readouterr().out
    assert "--tree.budget INT" in out
    assert "--env.houses INT" in out
    assert main(["env", "tasks", "household", "--help"]) == 0
    assert "--env.houses INT" in capsys.readouterr().out


def test_help_needs_no_heavy_library():
    code = (
        "import sys\nfrom spark_rl.cli import main\nmain(['train', 'quickstart', '--help'])\n"
        "print({'torch', 'transformers', 'trl', 'textworld'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "set()\n"


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"spark-rl {__version__}\n"


def test_every_command_is_there():
    for command in COMMANDS.values():
        module, _, function = command.place.partition(":")
        assert callable(getattr(importlib.import_module(f"spark_rl.commands.{module}"), function))


# -- mistakes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["trian"], ['unknown command "trian"', 'did you mean "train"?']),
        (["env", "lst"], ['unknown command "env lst"']),
        (["train"], ["spark-rl train needs a recipe", "quickstart"]),
        (["train", "--seed", "1"], ["spark-rl train needs a recipe"]),
        (["train", "quickstrt"], ['unknown recipe "quickstrt"', 'did you mean "quickstart"?']),
        (["train", "no.where:recipe"], ["no.where:recipe", "cannot be imported"]),
        (["train", "quickstart", "--bugdet", "8"], ['unknown option "--bugdet"']),
        (["train", "quickstart", "--iterations", "many"], ["--iterations", "a whole number"]),
        (["train", "quickstart", "--tree.roots", "9"], ["tree.roots is 9", "tree.budget 8"]),
        (["train", "quickstart", "--branching.width", "1"], ["branching.width is 1"]),
        (["train", "quickstart", "--env", "atari"], ['unknown env "atari"']),
        (["train", "--from", "nowhere"], ["nowhere holds no run"]),
        (["train", "--resume", "nowhere"], ["nowhere holds no run"]),
        (["train", "--resume"], ["--resume needs a value"]),
        (["show", "nowhere"], ["nowhere holds no run"]),
        (["eval", "nowhere"], ["no run directory", "--recipe", "--env"]),
        (["eval", "gpt", "--policy", "openai"], ["--recipe", "--env"]),
        (["eval", "gpt", "--policy", "opnai", "--env", "household"], ['unknown policy "opnai"', "openai"]),
        (["eval", "gpt", "--policy", "openai", "--env", "household", "--base-url", "here"], ["base_url is here"]),
        (["eval", "gpt", "--policy", "openai", "--env", "household", "--threads", "1"], ['unknown option "--threads"']),
        (["eval", "./nowhere", "--recipe", "quickstart"], ["nowhere", "does not exist"]),
        (["rollout", "quickstart", "--tasks", "0"], ["tasks is 0"]),
        (["rollout", "quickstart", "--policy", "model"], ["starts from scratch", "--model"]),
        (["demos", "atari"], ['unknown environment "atari"', "household"]),
        (["demos", "household", "--count", "0"], ["--count is 0"]),
        (["demos", "alfworld", "--recipe", "quickstart"], ["quickstart plays household"]),
        (["env", "tasks", "household", "--level", "L9"], ["--level", "L0, L1, L2"]),
        (["env", "tasks", "household", "--env.houses", "0"], ["env.houses is 0"]),
        (["env", "check", "no.where:World"], ["no.where:World", "cannot be imported"]),
        (["env", "play", "household", "--task", "L0/train/999999"], ["L0/train/999999"]),
        (["env", "replay", "household", "nowhere.jsonl"], ["needs --out"]),
        (["env", "replay", "household", "nowhere.jsonl", "--out", "x"], ["nowhere.jsonl cannot be read"]),
    ],
)
def test_one_sentence_for_each_mistake(argv, parts, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = sentence(capsys, *argv)
    for part in parts:
        assert part in said
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(capsys):
    assert main(["train", "--debug", "quickstrt"]) == 2
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert err.splitlines()[-1].startswith("spark-rl: unknown recipe")


def test_a_mistake_in_a_process_of_its_own():
    done = shell("train", "quickstart", "--tree.roots", "9")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1


def test_a_full_disk_is_a_sentence(capsys, tmp_path, monkeypatch):
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    episodes, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    episodes.write_text('{"task": "L0/dev/0", "actions": []}\n')
    monkeypatch.setattr(os, "fsync", full)
    said = sentence(capsys, "env", "replay", "household", episodes, "--out", out)
    assert str(out) in said
    assert "No space left" in said
    assert list(tmp_path.iterdir()) == [episodes]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_behind_standard_output_is_a_sentence():
    with open("/dev/full", "w") as full:  # noqa: PTH123
        done = shell("env", "tasks", "household", capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert done.stderr == "spark-rl: standard output could not be written (the disk is full); free some space\n"


def test_a_reader_that_leaves_is_no_error():
    command = f"{sys.executable} -m spark_rl env tasks household --env.train-tasks 8000 | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stdout == "L0/train/0\n"
    assert done.stderr == ""


# -- environments ---------------------------------------------------------------------------------------------------


def test_env_list(capsys):
    assert main(["env", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(WORLDS)


def test_env_tasks_prints_ids_and_nothing_else(capsys):
    assert main(["env", "tasks", "household", "--level", "L2", "--split", "dev", "--env.dev-tasks", "3"]) == 0
    assert capsys.readouterr() == ("L2/dev/0\nL2/dev/1\nL2/dev/2\n", "")


def test_env_check_tells_good_from_bad(capsys, tmp_path, monkeypatch):
    assert main(["env", "check", "household", "--tasks", "2", "--steps", "20"]) == 0
    out = capsys.readouterr().out
    assert "fork == replay" in out
    assert "FAIL" not in out
    (tmp_path / "broken_world.py").write_text(BROKEN_WORLD)
    monkeypatch.chdir(tmp_path)  # a user's own file is found where the command is run
    assert main(["env", "check", "broken_world:Broken"]) == 1
    assert "FAIL" in capsys.readouterr().out


BROKEN_WORLD = '''
from dataclasses import dataclass

@dataclass(frozen=True)
class Broken:
    """A world without tasks."""
    name = "broken"
    def tasks(self, level, split): return ()
    def make(self): raise RuntimeError("nobody is at home")
'''


def test_env_replay(capsys, tmp_path):
    episodes, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    episodes.write_text('{"task": "L0/dev/1", "actions": ["look", "xyzzy"]}\n\n{"task": "L1/test/0", "actions": []}\n')
    assert main(["env", "replay", "household", str(episodes), "--out", str(out)]) == 0
    first, second = map(json.loads, out.read_text().splitlines())
    assert first["task"] == "L0/dev/1"
    assert [step["action"] for step in first["steps"]] == [None, "look", "xyzzy"]
    assert all(set(step) == {"action", "observation", "actions", "reward", "done", "success"} for step in first["steps"])
    assert len(second["steps"]) == 1


@pytest.mark.parametrize(
    "line",
    ["nonsense", "[]", '{"task": "L0/dev/0"}', '{"task": 3, "actions": []}', '{"task": "L0/dev/0", "actions": [1]}',
     '{"task": "no such task", "actions": []}'],
)  # fmt: skip
def test_env_replay_names_the_bad_line(line, capsys, tmp_path):
    episodes, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    episodes.write_text('{"task": "L0/dev/1", "actions": ["look"]}\n' + line + "\n")
    out.write_text("what was there before")
    assert f"{episodes} line 2" in sentence(capsys, "env", "replay", "household", episodes, "--out", out)
    assert out.read_text() == "what was there before"


def test_env_play():
    world = load_world("household")
    done = shell("env", "play", "household", "--horizon", "2", input="1\nlook\n")
    assert done.returncode == 0
    assert world.tasks("L0", "train")[0].instruction in done.stdout
    assert done.stdout.endswith("✗ Not solved in 2 steps.\n")
    left = shell("env", "play", "household", input="quit\n")
    assert (left.returncode, left.stderr) == (130, "spark-rl: stopped\n")


def test_demos(capsys, tmp_path):
    out = tmp_path / "demos.jsonl"
    assert main(["demos", "household", "--count", "3", "--out", str(out), "--recipe", "quickstart", "--quiet"]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("3 demonstrations, ")
    assert said.err == ""
    steps = [json.loads(line) for line in out.read_text().splitlines()]
    assert {step["trajectory"] for step in steps} == {0, 1, 2}
    assert all(parse(step["completion"]).well_formed and step["success"] for step in steps)


# -- rollouts and reports -------------------------------------------------------------------------------------------


def test_rollout_is_repeatable_and_readable(capsys, tmp_path):
    for name in ("a", "b"):
        argv = ["rollout", "quickstart", "--tasks", "2", "--seed", "3", "--out", str(tmp_path / name), "--quiet"]
        assert main(argv) == 0
        out, err = capsys.readouterr()
        assert "⑂ explore" in out
        assert err == ""
    forest = load_forest(tmp_path / "a")
    assert forest == load_forest(tmp_path / "b")
    assert len(forest) == 2
    assert any(tree.forks for tree in forest)
    assert Run.open(tmp_path / "a").recipe.seed == 3
    assert "already holds a run" in sentence(capsys, "rollout", "quickstart", "--out", tmp_path / "a")


def test_rollout_by_chance(capsys, tmp_path):
    out = tmp_path / "chance"
    words = ["--tasks", "1", "--policy", "random", "--tree.horizon", "5", "--out", str(out), "--quiet"]
    assert main(["rollout", "quickstart", *words]) == 0
    assert all(tree.nodes[leaf].depth == 5 for tree in load_forest(out) for leaf in tree.leaves())


def test_show_draws_the_tree_asked_for(capsys, grown):
    forest = load_forest(grown)
    for index, tree in enumerate(forest):
        assert main(["show", str(grown), "--task", str(index)]) == 0
        assert tree.task.instruction in capsys.readouterr().out
    assert "trees 0 to 1" in sentence_after_output(capsys, "show", grown, "--task", "2")
    assert "no forest of iteration 9" in sentence_after_output(capsys, "show", grown, "--iteration", "9")
    assert main(["show", str(next((grown / "forests").iterdir()))]) == 0


def sentence_after_output(capsys, *argv: object) -> str:
    assert main([*map(str, argv)]) == 2
    return capsys.readouterr().err


def test_show_of_a_run_without_forests(capsys, tmp_path):
    Run.create(tmp_path / "new", load_recipe("quickstart"))
    assert main(["show", str(tmp_path / "new")]) == 0
    assert "not trained" in capsys.readouterr().out


def test_a_saved_recipe_with_somebody_elses_code_is_asked_about(capsys, grown, monkeypatch):
    file = grown / "recipe.json"
    saved = json.loads(file.read_text())
    saved["recipe"]["branching"] = {"type": f"{__name__}:Elsewhere"}
    file.write_text(json.dumps(saved))
    monkeypatch.setattr("sys.stdin", io.StringIO())  # no terminal: nobody to ask
    assert f"{__name__}:Elsewhere" in sentence(capsys, "train", "--resume", grown)
    # Allowed, it is imported: and refused only because there is no such class.
    assert "cannot be imported" in sentence(capsys, "train", "--resume", grown, "--yes")
    # What only looks, looks at the rest.
    assert main(["show", str(grown)]) == 0
    assert f"Its recipe cannot be used, so advantages are not shown: the saved recipe uses {__name__}:Elsewhere" in " ".join(
        capsys.readouterr().out.split()
    )


# -- training and evaluation ----------------------------------------------------------------------------------------


def test_train_leaves_a_run_and_says_what_came_out(run, capsys):
    assert main(["show", str(run)]) == 0
    out = capsys.readouterr().out
    for part in (
        "finished",
        "95 % interval",
        "L1",
        "what the iterations cost",
        "forest of iteration 1",
    ):
        assert part in out
    assert set(Run.open(run).evaluations()) == {"before", "after"}


def test_train_refuses_a_directory_that_holds_a_run(run, capsys):
    said = sentence(capsys, "train", "quickstart", "--out", run)
    assert str(run) in said
    assert "--resume" in said
    assert "--out" in said


def test_resume_of_a_finished_run_says_so(run, capsys):
    before = (run / "metrics.jsonl").read_bytes()
    assert main(["train", "--resume", str(run)]) == 0
    assert "finished" in capsys.readouterr().out
    assert (run / "metrics.jsonl").read_bytes() == before
    assert "leave out --seed" in sentence(capsys, "train", "--resume", run, "--seed", "2")


def test_from_repeats_a_run(run, capsys, tmp_path):
    out = tmp_path / "again"
    assert main(["train", "--from", str(run), "--out", str(out), "--quiet"]) == 0
    assert Run.open(out).recipe == Run.open(run).recipe
    assert load_forest(out) == load_forest(run)
    assert Run.open(out).evaluations() == Run.open(run).evaluations()


def test_quickstart_of_a_finished_run_trains_nothing(run, capsys):
    assert main(["quickstart", "--out", str(run), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "one seed" in out
    assert "to start anew" in out
    assert "other settings" in sentence(capsys, "quickstart", "--out", run, "--iterations", "2")


def test_eval_repeats_the_runs_own_evaluation(run, capsys, tmp_path):
    out = tmp_path / "eval.json"
    assert main(["eval", str(run), "--out", str(out), "--quiet"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.startswith("| level |")
    assert json.loads(out.read_text()) == json.loads((run / "eval.json").read_text())["after"]


def test_eval_of_a_model_directory(run, capsys):
    model = run / "checkpoints" / "cold-start"
    words = [
        "--recipe",
        "quickstart",
        "--level",
        "L0",
        "--tasks",
        "2",
        "--tree.horizon",
        "3",
        "--temperature",
        "0",
        "--threads",
        "1",
    ]
    assert main(["eval", str(model), *words, "--quiet"]) == 0
    assert "/2 |" in capsys.readouterr().out


FEW = ["--level", "L1", "--tasks", "3", "--tree.horizon", "6", "--temperature", "1", "--samples", "2", "--batch", "2"]


def test_eval_of_several_samples_goes_on_and_comes_together(run, capsys, tmp_path):
    words = ["eval", str(run), *FEW, "--quiet", "--pass-at", "1", "2"]
    assert main([*words, "--out", str(tmp_path / "whole.json")]) == 0
    said = capsys.readouterr().out
    assert "| Pass@1 | Pass@2 |" in said
    assert "/6 |" in said
    out = ["--out", str(tmp_path / "out")]
    assert main([*words, *out, "--shard", "1/2"]) == 0
    assert capsys.readouterr().out == "", "there is more to come"
    assert not (tmp_path / "out" / "results.json").exists()
    assert main([*words, *out, "--shard", "2/2"]) == 0
    assert capsys.readouterr().out == said
    whole = json.loads((tmp_path / "whole.json").read_text())
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == whole
    lines = sum(file.read_text().count('"task"') for file in (tmp_path / "out").glob("episodes*"))
    assert main([*words, *out]) == 0
    assert capsys.readouterr().out == said
    assert lines == sum(file.read_text().count('"task"') for file in (tmp_path / "out").glob("episodes*")) == 6
    assert (tmp_path / "out" / "results.md").read_text() == said


def test_an_evaluation_goes_on_in_a_run_that_was_moved(run, capsys, tmp_path):
    before, after = tmp_path / "before", tmp_path / "after"
    shutil.copytree(run, before)
    assert main(["eval", str(before), *FEW, "--out", str(before / "more"), "--quiet"]) == 0
    before.rename(after)
    episodes = (after / "more" / "episodes.jsonl").read_bytes()
    assert main(["eval", str(after), *FEW, "--out", str(after / "more"), "--quiet"]) == 0
    assert (after / "more" / "episodes.jsonl").read_bytes() == episodes
    capsys.readouterr()
    assert "begun with model" in sentence(capsys, "eval", run, *FEW, "--out", after / "more")


@pytest.mark.parametrize("choose", ["majority", "likelihood"])
def test_eval_with_branching(run, capsys, tmp_path, choose):
    words = ["--tree.budget", "4", "--tree.roots", "2", "--out", str(tmp_path / "out.json"), "--quiet"]
    assert main(["eval", str(run), *FEW, "--policy", "branching", "--choose", choose, *words]) == 0
    assert "| level | chosen | alone |" in capsys.readouterr().out
    found = json.loads((tmp_path / "out.json").read_text())["L1"]
    assert main(["eval", str(run), *FEW, *words]) == 0
    plain = json.loads((tmp_path / "out.json").read_text())["L1"]
    assert found["branching"]["leaves"] >= 2
    assert found["branching"][f"by_{choose}"] == found["success"]
    assert found["branching"]["alone"] == plain["success"]
    assert found["branching"]["alone_tokens"] == plain["tokens"]
    assert found["tokens"] > plain["tokens"]
    assert "branching" not in plain


def test_eval_with_a_vote_at_each_exploring_step(run, capsys, tmp_path):
    words = ["--choose", "majority", "--among", "steps", "--branching.width", "3", "--out", str(tmp_path / "out.json")]
    assert main(["eval", str(run), *FEW, *words, "--quiet"]) == 0
    found = json.loads((tmp_path / "out.json").read_text())["L1"]
    assert "branching" not in found, "nothing is forked"
    assert (found["discarded"] > 0) == (found["explore_ratio"] > 0)


def test_eval_that_makes_no_sense(run, capsys, tmp_path):
    assert "from 1 to samples" in sentence(capsys, "eval", run, "--samples", "4", "--pass-at", "5")
    assert "raise it" in sentence(capsys, "eval", run, "--policy", "branching", "--temperature", "0")
    assert "--out DIR" in sentence(capsys, "eval", run, "--shard", "1/2")
    assert "such as 2/4" in sentence(capsys, "eval", run, "--shard", "3/2", "--out", tmp_path / "out")
    assert 'did you mean "branching"' in sentence(capsys, "eval", run, "--policy", "branchin")
    rule = ["--choose", "majority", "--among", "steps", "--branching", "chains"]
    assert "explore-tag" in sentence(capsys, "eval", run, *rule)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    assert "something else" in sentence(capsys, "eval", run, "--out", tmp_path / "full")


def test_eval_of_what_is_not_there(run, capsys, tmp_path):
    assert "cold-start" in sentence(capsys, "eval", run, "--checkpoint", "7")
    without = tmp_path / "without"
    without.mkdir()
    for name in ("config.json", "model.safetensors"):
        (without / name).write_bytes((run / "checkpoints" / "cold-start" / name).read_bytes())
    assert "no tokenizer" in sentence(capsys, "eval", without, "--recipe", "quickstart", "--env.test-tasks", "1")


@pytest.mark.parametrize("style", ["full", "react", "plain"])
def test_eval_of_a_model_behind_a_server(capsys, tmp_path, style):
    pytest.importorskip("openai", reason="the extra teacher is not installed")
    world, prompt = load_world("household", test_tasks=4), Prompt(instructions=style)
    say = {
        "full": lambda node: node.text,
        "react": lambda node: f"Thought: {node.reasoning}\nAction: {node.action}",
        "plain": lambda node: node.action,
    }[style]
    out, kept = tmp_path / "eval.json", tmp_path / "eval.answers.jsonl"
    with serving(as_the_expert(world, world.tasks("L1", "test"), prompt, say)) as served:
        words = ["--base-url", served.url, "--level", "L1", "--env.test-tasks", "4", "--prompt.instructions", style]
        command = ["eval", "some/model", "--policy", "openai", "--env", "household", *words, "--price-in", "1"]
        assert main([*command, "--out", str(out)]) == 0
        said = capsys.readouterr()
        assert "| 4/4 |" in said.out
        result = json.loads(out.read_text())["L1"]
        steps = round(result["steps"] * 4)
        assert (result["invalid_ratio"], result["tasks"], result["failed"]) == (0.0, 4, 0)
        assert len(served.bodies) == len(kept.read_text().splitlines()) == steps
        assert f"{steps} requests (0 more" in said.err
        assert "cost 0." in said.err
        # The same again: nothing is asked, everything is equal.
        assert main([*command, "--out", str(tmp_path / "again.json"), "--answers", str(kept)]) == 0
        assert len(served.bodies) == steps
        assert f"0 requests ({steps} more" in capsys.readouterr().err
        assert json.loads((tmp_path / "again.json").read_text())["L1"] == result


def test_a_dry_run_shows_the_prompt_and_asks_nobody(capsys):
    command = ["eval", "some/model", "--policy", "openai", "--env", "household", "--base-url", "http://127.0.0.1:9/v1"]
    assert main([*command, "--dry-run", "--env.test-tasks", "1", "--prompt.instructions", "react"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("[user]\nYou are an expert agent")
    assert "Thought:" in out
    assert "Admissible actions:\n" in out


def test_rollout_with_the_model_of_a_run(run, capsys, tmp_path):
    out = tmp_path / "grown"
    words = ["--model", str(run), "--tasks", "1", "--tree.horizon", "3", "--threads", "1", "--out", str(out), "--quiet"]
    assert main(["rollout", "quickstart", *words]) == 0
    assert all(node.completion for tree in load_forest(out) for node in tree.nodes)


def test_a_missing_extra_names_the_command_that_mends_it(capsys, tmp_path, monkeypatch):
    for library in ("datasets", "trl"):
        monkeypatch.setitem(sys.modules, library, None)
    said = sentence(capsys, "train", "quickstart", "--out", tmp_path / "run", *SMALL)
    assert 'pip install "spark-rl[sft]"' in said


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_stopping_says_how_to_continue(tmp_path, how):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "spark_rl", "train", "quickstart", "--out", str(out), *SMALL]
    command += ["--iterations", "50"]  # too many to be done before the signal comes, however busy the machine
    # What a shell without job control runs in the background ignores Ctrl-C, and so would all that it starts.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("demonstrations"):
            break
    process.send_signal(how)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err.splitlines()[-1] == f"spark-rl: stopped; continue with: spark-rl train --resume {out}"
    assert "Traceback" not in err


def test_a_recipe_survives_its_file():
    recipe = load_recipe("quickstart")
    assert decode(json.loads(json.dumps(encode(recipe)))) == recipe
