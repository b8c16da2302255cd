"""Two hundred trajectories annotated by a server that fails in every way, by a job that is killed three times."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys

import pytest
from serving import DEFECTS, FAILURES, Body, serving, teach

from spark_rl.data.checks import check
from spark_rl.data.demonstrations import collect
from spark_rl.data.format import load, save
from spark_rl.environments.household import Household
from spark_rl.prompting.prompt import Prompt
from spark_rl.prompting.transcript import Transcript

# Small houses, so that paths are short.
WORLD = Household(kinds=("place",), held_out=(), houses=8, unseen_houses=2, receptacles=(8, 10), objects=6, train_tasks=200)
PROMPT = Prompt(Transcript(), instructions="none", list_actions=False)
COUNT, PIECE, CONCURRENCY, KILLS = 200, 4, 8, (60, 180, 320)
NETWORK, CONTENT = 20, 10
"""One request in so many fails on its way; one question in so many is answered badly at first."""


def share(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)


def failure(digest: str, times: int) -> str | None:
    """How a request fails when it comes for the first time; slow ones, which cost a time limit each, are rarer."""
    number = share(digest)
    kind = FAILURES[number // NETWORK % len(FAILURES)]
    if times or number % NETWORK or (kind == "slow" and number // 1000 % 3):
        return None
    return kind


def defect(body: Body) -> str | None:
    number = share(body["messages"][0]["content"])
    return DEFECTS[number // CONTENT % len(DEFECTS)] if len(body["messages"]) == 1 and number % CONTENT == 0 else None


@pytest.mark.slow
def test_none_is_lost_none_is_doubled_and_nothing_is_asked_again(tmp_path):
    pytest.importorskip("openai", reason="the extra teacher is not installed")
    given = asyncio.run(collect(WORLD, COUNT, level="L0", horizon=30, prompt=PROMPT, slips=0.05))
    file, out = tmp_path / "demos.jsonl", tmp_path / "annotated.jsonl"
    save(given, file, PROMPT)
    running: list[subprocess.Popen[bytes]] = []

    def arrival(number: int) -> None:
        if number in KILLS:
            running[-1].kill()

    with serving(lambda body: teach(body, defect(body)), plan=failure, arrival=arrival) as served:
        words = ["--base-url", served.url, "--out", str(out), "--piece", str(PIECE), "--timeout", "20"]
        command = [sys.executable, "-m", "spark_rl", "annotate", str(file), "--teacher", "m", *words]
        codes: list[int] = []
        while not codes or codes[-1] == -9:
            running.append(subprocess.Popen([*command, "--concurrency", str(CONCURRENCY), "--quiet"]))
            codes.append(running[-1].wait())
    assert codes == [-9, -9, -9, 0]

    done = load(out)
    assert [shown.tree.task.id for shown in done] == [shown.tree.task.id for shown in given]
    for before, after in zip(given, done, strict=True):
        assert [node.action for node in after.tree.nodes] == [node.action for node in before.tree.nodes]
        fresh = [node for step, node in enumerate(after.tree.nodes) if step not in after.slips]
        assert all(node.reasoning == f"It is time to {node.action}." for node in fresh)
    assert check(out, lambda _: WORLD, replay=True).objections == []

    # What was needed: an answer to each question, and a second one where the first was bad; equal questions are one.
    distinct = {json.dumps(body, sort_keys=True): body for body in served.bodies}.values()
    questions = [body for body in distinct if len(body["messages"]) == 1]
    again = [body for body in distinct if len(body["messages"]) == 3]
    assert len(questions) + len(again) == len(distinct)
    assert len(questions) <= sum(-(-len(shown.tree.nodes) // PIECE) for shown in given)
    assert len(again) == sum(defect(body) is not None for body in questions) > 0
    assert len(served.bodies) <= len(distinct) + len(served.failed) + CONCURRENCY * len(KILLS)
    assert set(served.failed) == set(FAILURES)
    assert {defect(body) for body in questions} == {None, *DEFECTS}
    answers = [json.loads(line)["key"] for line in (tmp_path / "annotated.answers.jsonl").read_text().splitlines()]
    assert len(answers) == len(set(answers)) == len(distinct)
