"""`spark-rl collect` as typed: a teacher behind a server, a real server, a run's own model; wins and losses kept apart."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from serving import Body, as_the_expert, serving
from tiny import RECIPE, finished

from spark_rl.cli import main
from spark_rl.data.format import Demonstration, load, read_records
from spark_rl.data.played import draw
from spark_rl.environments.registry import load_world
from spark_rl.prompting.prompt import Prompt

WORLD = load_world("household", train_tasks=24)
TASKS = draw(WORLD.tasks("L0", "train"), 6, seed=0)


def half() -> Callable[[Body], str]:
    """The expert, except on every other task, where the same useless step is taken again and again."""
    expert, poor = as_the_expert(WORLD, TASKS, Prompt()), {task.instruction for task in TASKS[::2]}

    def reply(body: Body) -> str:
        content = body["messages"][0]["content"]
        if any(f"Task: {instruction}\n" in content for instruction in poor):
            return "<think>Hm.</think><action>look</action>"
        return expert(body)

    return reply


def ids(some: list[Demonstration]) -> list[str]:
    return [shown.tree.task.id for shown in some]


def test_a_teacher_plays_and_its_wins_and_losses_are_kept_apart(capsys, tmp_path, monkeypatch):
    pytest.importorskip("openai", reason="the extra teacher is not installed")
    monkeypatch.setenv("OPENAI_API_KEY", "sesame-1234567890")
    out, lost = tmp_path / "played.jsonl", tmp_path / "played.failures.jsonl"
    with serving(half()) as served:
        command = ["collect", "household", "--teacher", "some/model", "--base-url", served.url, "--env.train-tasks", "24"]
        command += ["--tasks", "6", "--out", str(out)]
        assert main(command) == 0
        said = capsys.readouterr()
        asked = len(served.bodies)
        poor = {task.instruction for task in TASKS[::2]}
        assert ids(load(out)) == [task.id for task in TASKS if task.instruction not in poor]
        assert ids(load(lost)) == [task.id for task in TASKS if task.instruction in poor]
        assert f"6 episodes, {len(load(out))} won: {out}; {len(load(lost))} lost: {lost}" in said.out
        assert load(out)[0].origin.author == "some/model"
        assert (load(out)[0].origin.source, load(out)[0].origin.level) == ("played", "L0")
        # The same again: nothing is asked, and the files are the same.
        before = out.read_bytes(), lost.read_bytes()
        assert main(command) == 0
        assert len(served.bodies) == asked
        assert (out.read_bytes(), lost.read_bytes()) == before
    for file in (out, lost):
        assert main(["data", "check", str(file), "--replay"]) == 0
    said = capsys.readouterr()
    assert not any("sesame" in text for text in [said.out, said.err, *(file.read_text() for file in tmp_path.iterdir())])


def test_when_nothing_is_won_there_is_a_file_of_failures_alone(capsys, tmp_path):
    pytest.importorskip("openai", reason="the extra teacher is not installed")
    out, lost = tmp_path / "played.jsonl", tmp_path / "lost.jsonl"
    with serving(lambda body: "I would rather not.") as served:
        words = ["--base-url", served.url, "--tasks", "2", "--tree.horizon", "2", "--out", str(out), "--failures", str(lost)]
        assert main(["collect", "household", "--teacher", "m", *words]) == 1
    assert "2 episodes, 0 won; 2 lost" in capsys.readouterr().out
    assert not out.exists()
    assert all(shown.slips == {0, 1} for shown in load(lost))


def test_a_dry_run_shows_what_the_teacher_reads_and_asks_nobody(capsys):
    words = ["--teacher", "m", "--base-url", "http://127.0.0.1:9/v1", "--recipe", "household", "--dry-run"]
    assert main(["collect", "household", *words]) == 0
    out = capsys.readouterr().out
    # The recipe's own prompt explains nothing, since its model learns that from the demonstrations.
    assert out.startswith("[user]\nYou are an expert agent")
    assert "Admissible actions:\n" in out


def test_files_are_rendered_as_the_recipe_says_whatever_the_teacher_reads(tmp_path):
    pytest.importorskip("openai", reason="the extra teacher is not installed")
    out = tmp_path / "played.jsonl"
    with serving(as_the_expert(WORLD, TASKS, Prompt())) as served:
        words = ["--base-url", served.url, "--env.train-tasks", "24", "--tasks", "6", "--count", "2", "--out", str(out)]
        words += ["--prompt.instructions", "none", "--prompt.context", "transcript", "--prompt.list-actions", "False"]
        assert main(["collect", "household", "--teacher", "m", *words]) == 0
    assert all("You are an expert agent" in body["messages"][0]["content"] for body in served.bodies)
    assert [group[0]["prompt"][0]["content"].startswith("Task: ") for group in read_records(out)] == [True, True]
    assert main(["data", "check", str(out), "--replay"]) == 0


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["household"], "collect household needs who plays: --teacher MODEL"),
        (["household", "--teacher", "m", "--split", "test"], "split is test: what is kept is there to be learnt"),
        (["household", "--teacher", "m", "--recipe", "sokoban-tiny"], "--recipe sokoban-tiny plays sokoban, not household"),
        (["household", "--teacher", "m", "--out", "a", "--failures", "a"], "failures is a, which is also --out"),
        (["household", "--teacher", "m", "--prompt.instructions", "react"], "prompt.instructions is react"),
        (["household", "--teacher", "m", "--samples", "0"], "samples is 0"),
        (["household", "--teacher", "m", "--threads", "1"], 'unknown option "--threads"'),
        (["atari", "--teacher", "m"], 'unknown environment "atari"'),
        (["some/model"], "add --recipe NAME, or --env NAME"),
    ],
)
def test_mistakes_are_sentences(capsys, tmp_path, monkeypatch, argv, said):
    monkeypatch.chdir(tmp_path)
    assert main(["collect", *argv]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_plays_its_training_tasks(capsys, tmp_path):
    out = tmp_path / "played.jsonl"
    run = finished()[0]
    command = ["collect", str(run.directory), "--tasks", "10", "--samples", "2", "--temperature", "1.0", "--threads", "1"]
    code = main([*command, "--out", str(out)])
    won, lost = (load(file) if file.exists() else [] for file in (out, tmp_path / "played.failures.jsonl"))
    assert code == (0 if won else 1)
    assert len(won) + len(lost) == 20
    assert all(shown.won for shown in won)
    assert not any(shown.won for shown in lost)
    train = {task.id for task in RECIPE.env.tasks(RECIPE.level, "train")}
    assert {shown.tree.task.id for shown in [*won, *lost]} <= train


@contextlib.contextmanager
def transformers_serve(model: Path, log: Path) -> Iterator[str]:
    """`transformers serve` with a model of ours until the block ends; gives its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["serve", str(model), "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)]
    with log.open("w") as told:
        command = Path(sys.executable).with_name("transformers")
        server = subprocess.Popen([command, *words], stdout=told, stderr=subprocess.STDOUT)
    try:
        for _ in range(600):
            assert server.poll() is None, log.read_text()
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        server.wait(60)


@pytest.mark.slow
def test_a_real_server_plays_twenty_episodes(capsys, tmp_path):
    pytest.importorskip("openai", reason="the extra teacher is not installed")
    pytest.importorskip("fastapi", reason="transformers serve needs fastapi and uvicorn")
    model, out = finished()[0].checkpoints / "cold-start", tmp_path / "played.jsonl"
    with transformers_serve(model, tmp_path / "server.log") as url:
        words = ["--teacher", str(model), "--base-url", url, "--recipe", "tiny:recipe", "--tasks", "20", "--out", str(out)]
        words += ["--explain", "False", "--max-tokens", "32"]
        code = main(["collect", "household", *words])
    won, lost = (load(file) if file.exists() else [] for file in (out, tmp_path / "played.failures.jsonl"))
    assert len(won) + len(lost) == 20
    assert code == (0 if won else 1)
    assert all(shown.won for shown in won)
    assert not any(shown.won for shown in lost)
    # What it was taught comes back through the server: it answers the first prompt of a task with tags.
    assert all(shown.tree.nodes[0].well_formed for shown in [*won, *lost])
    assert " written" in capsys.readouterr().err
