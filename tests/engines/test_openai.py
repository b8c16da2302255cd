"""A policy behind a real server: what it sends, how it meets failures, what it never does twice and never tells."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest
from forking import lock
from serving import FAILURES, Body, Served, serving

from spark_rl.branching.chains import Chains
from spark_rl.contracts import Growth
from spark_rl.engines.openai import Endpoint, OpenAIEngine, Refused, connect
from spark_rl.environments.household import Household
from spark_rl.errors import EnvironmentFailure, PolicyFailure, UsageError
from spark_rl.prompting.prompt import Prompt
from spark_rl.rollout.grow import grow_forest
from spark_rl.types import Completion, Cost, Observation, Request, Sampling, TreeShape

pytest.importorskip("openai", reason="the extra teacher is not installed")

MESSAGES = ({"role": "user", "content": "where is the key"},)
SAID = "<think>so</think><action>look</action>"


@pytest.fixture(autouse=True)
def no_key(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


def request(*seeds: int, content: str = "where is the key") -> Request:
    messages = ({"role": "user", "content": content},)
    return Request(lock(3), messages, Observation(""), seeds, temperature=0.4, max_tokens=64)


def endpoint(served: Served, **settings: Any) -> Endpoint:
    return Endpoint(served.url, **{"timeout": 60.0, **settings})


def sample(served: Served, requests: list[Request], answers: Path | None = None, **settings: Any) -> list[list[Completion]]:
    return policy(served, requests, answers, **settings)[0]


def policy(
    served: Served, requests: list[Request], answers: Path | None = None, **settings: Any
) -> tuple[list[list[Completion]], OpenAIEngine]:
    async def run() -> tuple[list[list[Completion]], OpenAIEngine]:
        async with connect("m", endpoint(served, **settings), answers) as server:
            policy = OpenAIEngine(server)
            return await policy.sample(requests), policy

    return asyncio.run(run())


def cost(answers: list[list[Completion]]) -> Cost:
    return sum((completion.cost for answer in answers for completion in answer), Cost())


def test_what_is_sent_and_what_comes_back():
    with serving(lambda body: f"seed {body['seed']}") as served:
        answers, _ = policy(served, [request(5, 2**40 + 6), request(7, content="and the door")])
    assert answers == [[Completion("seed 5"), Completion("seed 6")], [Completion("seed 7")]]
    first = next(body for body in served.bodies if body["seed"] == 5)
    assert first == {"model": "m", "messages": [*MESSAGES], "max_tokens": 64, "temperature": 0.4, "seed": 5}
    # 4 + 4 + 3 words read, of which the server says one each was kept; 2 words written each
    assert cost(answers) == Cost(generated=6, prefilled=8, reused=3)


def test_a_servers_own_wishes_are_merged_into_every_request():
    body = '{"max_tokens": null, "max_completion_tokens": 9, "temperature": null, "seed": null, "extra": {"think": false}}'
    with serving(lambda body: SAID) as served:
        assert sample(served, [request(1, 2)], body=body) == [[Completion(SAID)] * 2]
    assert len(served.bodies) == 2  # two samples, although what is sent is the same
    assert served.bodies[0] == {
        "model": "m", "messages": [*MESSAGES], "max_completion_tokens": 9, "extra": {"think": False},
    }  # fmt: skip


def test_no_more_requests_than_allowed_are_under_way():
    def reply(body: Body) -> str:
        time.sleep(0.02)
        return SAID

    with serving(reply) as served:
        sample(served, [request(*range(20))], concurrency=3)
    assert len(served.bodies) == 20
    assert served.most <= 3


@pytest.mark.parametrize("failure", FAILURES)
def test_each_failure_is_met_by_asking_again(failure):
    with serving(lambda body: SAID, plan=lambda digest, times: failure if times == 0 else None) as served:
        timeout = 3.0 if failure == "slow" else 60.0
        assert sample(served, [request(1)], timeout=timeout) == [[Completion(SAID)]]
    assert served.failed == [failure]
    assert len(served.bodies) == 2


@pytest.mark.parametrize(
    ("failure", "words"),
    [("error", "failed 2 times (500"), ("garbage", "gave 2 times what is no answer"), ("cut", "cannot be reached")],
)
def test_retries_end_and_the_failure_says_so(failure, words):
    plan = {"plan": lambda digest, times: failure}
    with serving(lambda body: SAID, **plan) as served, pytest.raises(PolicyFailure) as caught:
        sample(served, [request(1)], retries=1)
    assert words in str(caught.value)
    assert len(served.bodies) == 2


def test_a_server_that_is_not_there():
    with serving(lambda body: SAID) as served:
        pass
    with pytest.raises(PolicyFailure, match="cannot be reached, 0 retries included"):
        sample(served, [request(1)], retries=0)


def test_when_the_server_is_gone_those_in_line_do_not_knock():
    with serving(lambda body: (404, "no such model")) as served, pytest.raises(PolicyFailure, match='knows no model "m"'):
        sample(served, [request(*range(50))], concurrency=2)
    assert len(served.bodies) <= 2


def test_answers_under_way_when_another_fails_are_kept(tmp_path):
    def reply(body: Body) -> str | tuple[int, str]:
        return (404, "gone") if body["seed"] == 0 else SAID

    with serving(reply) as served, pytest.raises(PolicyFailure):
        sample(served, [request(*range(4))], tmp_path / "answers.jsonl", concurrency=4)
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 3


def test_what_was_answered_is_not_asked_again(tmp_path):
    path = tmp_path / "answers.jsonl"
    with serving(lambda body: f"seed {body['seed']}") as served:
        first, before = policy(served, [request(1, 2), request(1)], path)
        assert len(served.bodies) == 2  # the same request twice is one, also at the same moment
        again, after = policy(served, [request(1, 2), request(1, 3)], path)
        assert len(served.bodies) == 3
    assert again[0] == first[0]
    assert again[1][0] == first[1][0]
    assert (before.server.usage.asked, before.server.usage.kept) == (2, 1)
    assert (after.server.usage.asked, after.server.usage.kept) == (1, 3)
    assert cost(again).generated == 8  # kept answers count as what they cost


def test_the_cost_is_counted():
    with serving(lambda body: "one two three") as served:
        _, used = policy(served, [request(1, 2)], price_in=1000.0, price_out=2000.0)
    # 2 x 4 tokens read at 0.001, 2 x 3 written at 0.002
    assert used.server.usage.line(used.server.endpoint) == (
        "2 requests (0 more answered by what was kept), 8 tokens read, 6 written, cost 0.0200 (0.0200 now)"
    )


def test_a_refused_request_drops_its_trajectory_alone(tmp_path):
    world = Household(train_tasks=8)
    tasks = world.tasks("L0", "train")[:3]
    poor = tasks[1].instruction

    def reply(body: Body) -> str | tuple[int, str]:
        long = f"Task: {poor}\n" in body["messages"][0]["content"] and "Steps taken: 1" in body["messages"][0]["content"]
        return (400, "the context is too long") if long else "<think>so</think><action>inventory</action>"

    growth = Growth(TreeShape(budget=1, roots=1, horizon=3), Chains(), Prompt(), Sampling(0.0, 32))

    async def run(served: Served, chosen: Any) -> Any:
        async with connect("m", endpoint(served), None) as server:
            return await grow_forest(chosen, world, OpenAIEngine(server), growth, seed=0)

    with serving(reply) as served:
        forest = asyncio.run(run(served, tasks))
        assert [tree.task.id for tree in forest] == [tasks[0].id, tasks[2].id]
        assert all(len(tree.nodes) == 3 for tree in forest)
        assert forest.spent.failed == 1
        assert "the context is too long" in forest.failures[0]
        with pytest.raises(EnvironmentFailure, match="every tree failed"):
            asyncio.run(run(served, tasks[1:2]))


def test_an_answer_stopped_by_a_filter_is_no_completion():
    with serving(lambda body: "no", finish="content_filter") as served:
        [[completion]] = sample(served, [request(1)])
    assert completion.text == ""
    assert "filter" in completion.refused


def test_a_refusal_is_told_from_other_failures():
    async def ask(served: Served) -> None:
        async with connect("m", endpoint(served), None) as server:
            await server.ask(MESSAGES, max_tokens=8, temperature=0.0)

    with serving(lambda body: (422, "no such field")) as served, pytest.raises(Refused, match="no such field"):
        asyncio.run(ask(served))


def test_a_key_is_sent_and_nowhere_kept_or_told(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", "sesame-1234567890")
    path = tmp_path / "answers.jsonl"

    def reply(body: Body) -> str | tuple[int, str]:
        return (400, "the key sesame-1234567890 may not do this") if body["seed"] == 2 else SAID

    with serving(reply) as served:
        [[fine, refused]] = sample(served, [request(1, 2)], path, key_env="MY_KEY")
        assert fine.text == SAID
        assert served.headers[0]["authorization"] == "Bearer sesame-1234567890"
    assert "the key *** may" in refused.refused
    assert "sesame" not in path.read_text() + caplog.text
    with serving(lambda body: (401, "wrong key sesame-1234567890")) as served, pytest.raises(PolicyFailure) as caught:
        sample(served, [request(1)], key_env="MY_KEY")
    assert "$MY_KEY" in str(caught.value)
    assert "sesame" not in str(caught.value)


def test_the_file_of_answers_holds_no_prompt_and_no_address(tmp_path):
    path = tmp_path / "answers.jsonl"
    with serving(lambda body: SAID) as served:
        sample(served, [request(1)], path)
    [line] = path.read_text().splitlines()
    assert set(json.loads(line)) == {"key", "text", "finish", "prompt", "completion", "cached", "model", "date"}
    assert json.loads(line)["model"] == "served-m"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"base_url": "localhost:8000"}, "base_url is localhost:8000"),
        ({"base_url": "http://"}, "base_url is http://"),
        ({"base_url": "http://a:notaport/v1"}, "base_url is"),
        ({"base_url": "http://me:secret@there/v1"}, "holds a name or a password"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"retries": -1}, "retries is -1"),
        ({"timeout": 0.0}, "timeout is 0"),
        ({"price_in": -1.0}, "price_in is -1"),
        ({"body": "{"}, "body is no JSON"),
        ({"body": "[1]"}, "must be a JSON object"),
    ],
)
def test_settings_that_cannot_be(settings, words):
    with pytest.raises(UsageError) as caught:
        Endpoint(**settings)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_the_address_may_come_from_the_environment(monkeypatch):
    with serving(lambda body: SAID) as served:
        monkeypatch.setenv("OPENAI_BASE_URL", served.url)
        served.url = ""
        assert sample(served, [request(1)]) == [[Completion(SAID)]]
