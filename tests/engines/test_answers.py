"""Kept answers: on disk before they are used, whole or not at all, one process at a time."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_rl.engines.answers import Answer, Answers, key_of
from spark_rl.errors import StorageError, UsageError

ANSWER = Answer("a thought\nand ünïcode", "stop", 12, 5, 3, "served", "2026-01-31 UTC")


def test_an_answer_is_found_again_by_what_was_asked(tmp_path):
    asked = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "seed": 1}
    with Answers(tmp_path / "deep" / "answers.jsonl") as answers:
        assert answers.get(key_of(asked)) is None
        answers.put(key_of(asked), ANSWER)
        assert answers.get(key_of(asked)) == ANSWER
    with Answers(tmp_path / "deep" / "answers.jsonl") as answers:
        assert answers.get(key_of(dict(reversed(asked.items())))) == ANSWER
        assert answers.get(key_of({**asked, "seed": 2})) is None


def test_without_a_file_answers_are_kept_in_memory():
    with Answers(None) as answers:
        answers.put("a", ANSWER)
        assert answers.get("a") == ANSWER


@given(st.integers(min_value=1, max_value=400))
def test_half_a_line_is_cut_off_and_costs_one_answer_at_most(cut):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "answers.jsonl"
        with Answers(path) as answers:
            for key in "abcd":
                answers.put(key, ANSWER)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) - cut])
        lost = -(-cut // (len(whole) // 4))  # lines touched by the cut
        with Answers(path) as answers:
            assert len(answers) == 4 - lost
            answers.put("e", replace(ANSWER, text="after"))
        with Answers(path) as answers:
            assert len(answers) == 5 - lost
            assert answers.get("e") == replace(ANSWER, text="after")


def test_a_line_that_is_no_answer_is_named(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text('{"key": "a"}\n')
    with pytest.raises(StorageError, match="line 1 is no kept answer"):
        Answers(path)
    path.write_text("[]\n")
    with pytest.raises(StorageError, match="line 1 is no kept answer"):
        Answers(path)


def test_two_processes_do_not_write_one_file(tmp_path):
    path = tmp_path / "answers.jsonl"
    with Answers(path), pytest.raises(UsageError, match="another process"):
        Answers(path)
    Answers(path).close()


def test_a_full_disk_leaves_whole_lines(tmp_path):
    path = tmp_path / "answers.jsonl"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Answers(path) as answers:
        answers.put("a", ANSWER)
        size = path.stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limit[1]))  # room for ten bytes more
        try:
            with pytest.raises(StorageError, match=r"answers\.jsonl could not be written"):
                answers.put("b", ANSWER)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        assert answers.get("b") is None
        assert path.stat().st_size == size
        answers.put("c", ANSWER)
    with Answers(path) as answers:
        assert len(answers) == 2


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        Answers(tmp_path / "file" / "answers.jsonl")


def test_what_was_kept_survives_a_kill(tmp_path):
    path = tmp_path / "answers.jsonl"
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from spark_rl.engines.answers import Answer, Answers\n"
        "answers = Answers(Path(sys.argv[1]))\n"
        "for i in range(10**9):\n"
        "    answers.put(str(i), Answer(str(i), 'stop', 1, 1, 0, 'm', 'd'))\n"
        "    print(i, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    said = [process.stdout.readline() for _ in range(20)]
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    said += process.stdout.readlines()
    process.stdout.close()
    with Answers(path) as answers:
        assert len(answers) in (len(said), len(said) + 1)
        assert all(answers.get(line.strip()) is not None for line in said if line.endswith("\n"))
