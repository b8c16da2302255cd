"""Training against a server that gives token ids: what is sampled, weights that arrive, servers that are not fit."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import RECIPE, WORLD, Log, finished
from token_server import TokenServer, token_server

from spark_rl.contracts import ModelSource
from spark_rl.engines.openai import Endpoint
from spark_rl.engines.remote.server import is_local
from spark_rl.errors import PolicyFailure, UsageError
from spark_rl.learning.trainer import train
from spark_rl.models import adapters
from spark_rl.models.load import load_model, load_tokenizer
from spark_rl.models.weights import Weights
from spark_rl.rollout.executors.in_process import InProcess
from spark_rl.runs import checkpoints
from spark_rl.runs.run import Run
from spark_rl.types import Forest, Observation, Request, Task

pytest.importorskip("openai", reason="the extra teacher is not installed")

TASK, NOWHERE = Task("none", "none/1", "nothing"), Observation("")


def pair(*, rank: int = 0) -> tuple[Any, Any]:
    """A cold-started model of 0.1 M parameters, and its tokenizer."""
    folder = finished()[0].checkpoints / "cold-start"
    model = load_model(folder, dtype="float32")
    return (adapters.add(model, Weights(lora_rank=rank)) if rank else model), load_tokenizer(folder)


def shifted(model: Any, amount: float = 0.05) -> None:
    """Change what is learnt, as an update would."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.add_(amount * torch.randn_like(parameter))


async def grown(engine: Any) -> Forest:
    return await InProcess(WORLD, engine).grow(WORLD.tasks("L0", "train")[:2], RECIPE.growth, seed=5, iteration=1)


def gap(forest: Forest, model: Any) -> float:
    """Largest difference of a node's log-probabilities from those of the model."""
    worst = 0.0
    for node in (node for tree in forest.trees for node in tree.nodes):
        ids = torch.tensor([[*node.prompt, *node.completion]])
        with torch.no_grad():
            scores = model(input_ids=ids).logits[0, len(node.prompt) - 1 : -1].log_softmax(-1)
        own = scores.gather(1, torch.tensor(node.completion)[:, None])[:, 0]
        worst = max(worst, float((own - torch.tensor(node.logprobs)).abs().max()))
    return worst


@pytest.mark.parametrize("rank", [0, 4])
def test_forests_are_those_of_the_weights_that_were_pushed_last(rank: int) -> None:
    model, tokenizer = pair(rank=rank)

    async def run(served: TokenServer) -> list[Forest]:
        async with Endpoint(served.url, concurrency=4).open(ModelSource(loaded=(model, tokenizer))) as engine:
            before = await grown(engine)
            assert gap(before, model) < 1e-4
            shifted(model)
            await engine.load_weights(1, model.state_dict())
            after = [await grown(engine), await grown(engine)]
            assert gap(after[0], model) < 1e-4
            return [before, *after]

    other = pair()[0]
    shifted(other)  # an earlier run has left its weights
    with token_server(other, tokenizer) as served:
        before, after, again = asyncio.run(run(served))
    assert after.trees == again.trees
    assert [node.completion for node in before.trees[0].nodes] != [node.completion for node in after.trees[0].nodes]
    assert {node.version for tree in after.trees for node in tree.nodes} == {1}
    assert after.spent.generated == sum(len(node.completion) for tree in after.trees for node in tree.nodes)
    push = "/v1/load_lora_adapter" if rank else "/collective_rpc"
    assert served.calls.count(push) == 2, "at the start, and after the update"
    assert not rank or served.calls.count("/collective_rpc") == 1, "the base of adapters goes once"


def test_each_request_says_all_that_decides_its_answer() -> None:
    model, tokenizer = pair()

    async def run(served: TokenServer) -> None:
        async with Endpoint(served.url).open(ModelSource(loaded=(model, tokenizer))) as engine:
            served.asked.clear()
            request = Request(TASK, (), NOWHERE, seeds=(2**64 - 1,), prompt=(5, 6, 7), max_tokens=3, temperature=0.7)
            await engine.sample([request])

    with token_server(model, tokenizer) as served:
        asyncio.run(run(served))
    (body,) = served.asked
    assert body.pop("cache_salt")
    assert body == {
        "model": "own", "prompt": [5, 6, 7], "max_tokens": 3, "temperature": 0.7, "seed": 2**63 - 1, "logprobs": 0,
        "return_token_ids": True, "ignore_eos": True, "stop_token_ids": [257, 258],
        "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0,
    }  # fmt: skip


def test_a_whole_run_learns_from_a_server(tmp_path: Path) -> None:
    cold = finished()[0].checkpoints / "cold-start"
    with token_server(*pair()) as served:
        recipe = replace(
            RECIPE, model=str(cold), iterations=2, cold_start=replace(RECIPE.cold_start, demonstrations=0),
            engine=Endpoint(served.url), evaluation=replace(RECIPE.evaluation, levels=("L0",)),
        )  # fmt: skip
        run = Run.create(tmp_path / "run", recipe)
        train(run, Log())
        after = served.model.state_dict()
    rows = run.metrics()
    assert [row["iteration"] for row in rows] == [1, 2]
    assert all(row["update_rollout_gap_max"] < 1e-4 for row in rows)
    assert all(row["update_importance"] == 0 for row in rows), "what agrees needs no importance weight"
    last = checkpoints.latest(run.checkpoints)
    assert last is not None
    saved = load_model(last, dtype="float32").state_dict()
    assert all(torch.equal(saved[name], after[name]) for name in saved)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"without": frozenset({"token_ids"})}, "answers without token ids and log-probabilities"),
        ({"without": frozenset({"logprobs"})}, "answers without token ids and log-probabilities"),
        ({"without": frozenset({"/collective_rpc"})}, "has no call /collective_rpc, so it cannot be given weights"),
        ({"temperature": 1.0}, "does not sample from the weights of version 0.*processed_logprobs"),
        ({"models": ("one", "two")}, r"has several models \(one, two\)"),
        ({"without": frozenset({"/v1/models"})}, r"refuses a request \(404"),
    ],
)
def test_a_server_that_is_not_fit_is_refused_by_name(settings: dict[str, Any], sentence: str) -> None:
    model, tokenizer = pair()

    async def run(served: TokenServer) -> None:
        async with Endpoint(served.url, retries=0).open(ModelSource(loaded=(model, tokenizer))):
            pass

    with token_server(model, tokenizer, **settings) as served, pytest.raises((PolicyFailure, UsageError), match=sentence):
        asyncio.run(run(served))


def test_a_server_that_was_started_again_is_found_out() -> None:
    model, tokenizer = pair()

    async def run(served: TokenServer) -> None:
        async with Endpoint(served.url).open(ModelSource(loaded=(model, tokenizer))) as engine:
            await grown(engine)
            served.restart()
            await grown(engine)

    with token_server(model, tokenizer) as served, pytest.raises(PolicyFailure, match="was it started again"):
        asyncio.run(run(served))


def test_weights_of_another_model_are_refused_with_the_servers_reason() -> None:
    model, tokenizer = pair()

    async def run(served: TokenServer) -> None:
        async with Endpoint(served.url, retries=0).open(ModelSource(loaded=(model, tokenizer))) as engine:
            await engine.load_weights(1, {"strange": torch.zeros(2)})

    with token_server(model, tokenizer) as served, pytest.raises(PolicyFailure, match="no weight strange"):
        asyncio.run(run(served))


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("http://127.0.0.1:8000/v1", True), ("http://localhost/v1", True), ("http://[::1]:8000/v1", True),
        ("http://10.0.0.4:8000/v1", False), ("https://api.example.org/v1", False), ("http://127.0.0.1.example.org", False),
    ],
)  # fmt: skip
def test_weights_are_pushed_on_this_machine_alone(address: str, local: bool) -> None:
    assert is_local(address) == local


def test_a_server_on_another_machine_is_refused_before_it_is_asked() -> None:
    async def run() -> None:
        async with Endpoint("http://10.255.255.1:8000/v1").open(ModelSource(loaded=pair())):
            pass

    with pytest.raises(UsageError, match="weights are pushed to this machine alone"):
        asyncio.run(run())
