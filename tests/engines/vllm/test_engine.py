"""vLLM against the local engine: the same tokens, weights that arrive, processes that die."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import RECIPE, WORLD, finished

from spark_rl.cli import main
from spark_rl.contracts import ModelSource
from spark_rl.engines.local.engine import LocalEngine
from spark_rl.engines.remote.weights import prove
from spark_rl.engines.vllm.settings import Vllm
from spark_rl.errors import PolicyFailure, PromptTooLong, UsageError
from spark_rl.models import adapters
from spark_rl.models.load import load_model, load_tokenizer
from spark_rl.models.weights import Weights
from spark_rl.rollout.executors.in_process import InProcess
from spark_rl.runs.forests import load_forest
from spark_rl.types import Completion, Forest, Observation, Request, Task

pytest.importorskip("vllm", reason="vLLM needs an environment of its own: make vllm && make test-vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]  # vLLM and what it imports warn a lot

SMALL = Vllm(cache_gb=0.1, context=1024)
TASK, NOWHERE = Task("none", "none/1", "nothing"), Observation("")


@cache
def pair(dtype: str = "float32") -> tuple[Any, Any]:
    """A cold-started model of 0.1 M parameters, and its tokenizer."""
    folder = finished()[0].checkpoints / "cold-start"
    return load_model(folder, dtype=dtype), load_tokenizer(folder)


def fresh() -> tuple[Any, Any]:
    """The same, to be changed."""
    folder = finished()[0].checkpoints / "cold-start"
    return load_model(folder, dtype="float32"), load_tokenizer(folder)


class Running:
    """An engine with the event loop that it belongs to."""

    def __init__(self, settings: Vllm, source: ModelSource) -> None:
        self.runner = asyncio.Runner()
        self.opened = settings.open(source)
        try:
            self.engine: Any = self.runner.run(self.opened.__aenter__())
        except BaseException:
            self.runner.close()
            raise

    def sample(self, requests: list[Request]) -> list[list[Completion]]:
        return self.runner.run(self.engine.sample(requests))

    def close(self) -> None:
        self.runner.run(self.opened.__aexit__(None, None, None))
        self.runner.close()


@pytest.fixture(scope="module")
def running() -> Generator[Running]:
    """An engine in 32 bits whose weights no test changes."""
    running = Running(SMALL, ModelSource(loaded=pair()))
    yield running
    running.close()


def requests(count: int, longest: int = 200, most: int = 30) -> list[Request]:
    """Prompts of random tokens, two samples each, at three temperatures."""
    rng, vocabulary = random.Random(0), pair()[0].config.vocab_size
    return [
        Request(
            TASK, (), NOWHERE,
            seeds=(rng.getrandbits(64), rng.getrandbits(64)),
            prompt=tuple(rng.randrange(vocabulary) for _ in range(rng.randrange(1, longest))),
            max_tokens=most,
            temperature=(1.0, 0.7, 0.0)[number % 3],
        )
        for number in range(count)
    ]  # fmt: skip


def local(asked: list[Request], model: Any = None) -> list[list[Completion]]:
    own, tokenizer = pair()
    return asyncio.run(LocalEngine(model or own, tokenizer).sample(asked))


async def grown(engine: Any) -> Forest:
    growth = replace(RECIPE, tree=replace(RECIPE.tree, budget=8, roots=4)).growth
    return await InProcess(WORLD, engine).grow(WORLD.tasks("L0", "train")[:4], growth, seed=5, iteration=1)


def worker(engine: Any) -> int:
    """The id of the process that holds the model."""
    (process,) = engine.kept.host._engine.engine_core.resources.engine_manager.processes
    return process.pid


def gaps(found: list[list[Completion]], expected: list[list[Completion]]) -> list[float]:
    pairs = [(a, b) for some, others in zip(found, expected, strict=True) for a, b in zip(some, others, strict=True)]
    return [abs(x - y) for a, b in pairs for x, y in zip(a.logprobs or (), b.logprobs or (), strict=True)]


# -- what is sampled --------------------------------------------------------------------------------------------------


def test_tokens_are_those_of_the_local_engine(running: Running) -> None:
    asked = requests(30)
    found, expected = running.sample(asked), local(asked)
    assert [[c.ids for c in some] for some in found] == [[c.ids for c in some] for some in expected]
    assert [[c.text for c in some] for some in found] == [[c.text for c in some] for some in expected]
    assert max(gaps(found, expected)) < 1e-4
    for some, others in zip(found, expected, strict=True):
        for a, b in zip(some, others, strict=True):
            assert a.entropies == pytest.approx(b.entropies, abs=1e-3)
    assert any(len(c.ids or ()) < 30 for some in found for c in some), "some end their turn"


def test_a_sample_does_not_depend_on_what_else_is_under_way(running: Running) -> None:
    asked = requests(30)
    together = running.sample(asked)
    for request, expected in list(zip(asked, together, strict=True))[:6]:
        running.runner.run(running.engine.clear())
        (alone,) = running.sample([request])
        assert alone == expected, "to the last bit"


def test_a_forest_is_that_of_the_local_engine(running: Running) -> None:
    by_vllm = [running.runner.run(grown(running.engine)) for _ in range(2)]
    by_local = asyncio.run(grown(LocalEngine(*pair())))
    for tree, other, again in zip(by_vllm[0].trees, by_local.trees, by_vllm[1].trees, strict=True):
        assert tree == again, "to the last bit"
        steps = [{node.path: node.completion for node in nodes} for nodes in (tree.nodes, other.nodes)]
        assert steps[0] == steps[1]
    spent, expected = by_vllm[0].spent, by_local.spent
    assert spent.generated == expected.generated
    assert spent.prefilled + spent.reused == expected.prefilled + expected.reused
    assert spent.reused > 0.5 * expected.reused, "the prefix cache finds most of what trees share"


def test_what_does_not_fit_the_context_is_refused_by_name(running: Running) -> None:
    long, end = replace(requests(1)[0], prompt=(3,) * 1024), replace(requests(1)[0], prompt=(3,) * 1020)
    with pytest.raises(PromptTooLong, match="has 1024 tokens, and the engine's context is 1024"):
        running.sample([long])
    assert all(len(c.ids or ()) <= 4 for (some,) in [running.sample([end])] for c in some)
    with pytest.raises(UsageError, match="no prompt ids"):
        running.sample([replace(long, prompt=None)])


# -- weights ----------------------------------------------------------------------------------------------------------


def test_new_weights_are_used_at_once_and_proved() -> None:
    model, tokenizer = fresh()
    running = Running(SMALL, ModelSource(loaded=(model, tokenizer), version=3))
    try:
        asked = requests(12)
        (before, *_), *_ = running.sample(asked)
        assert before.version == 3
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        running.runner.run(running.engine.load_weights(4, model.state_dict()))
        found = running.sample(asked)
        assert found[0][0].version == 4
        assert found[0][0].ids != before.ids
        assert max(gaps(found, local(asked, model))) < 1e-4
        process = running.engine.kept.host
        other = {name: 1.2 * weight for name, weight in model.state_dict().items()}
        with pytest.raises(PolicyFailure, match="does not sample from the weights of version 5"):
            running.runner.run(prove(process, model, other, version=5, salt="other"))
        with pytest.raises(PolicyFailure, match="does not take the new weights"):
            running.runner.run(running.engine.load_weights(6, {"strange.weight": torch.zeros(2)}))
    finally:
        running.close()


def test_a_model_by_its_name_in_half_precision() -> None:
    folder = finished()[0].checkpoints / "cold-start"
    running = Running(SMALL, ModelSource(name=folder, dtype="bfloat16"))
    try:
        asked = [replace(request, temperature=1.0) for request in requests(30)]
        found = running.sample(asked)
        expected = local(asked, pair("bfloat16")[0])
        same: list[Any] = [pair for some in zip(found, expected, strict=True) for pair in zip(*some, strict=True)]
        first = [abs(a.logprobs[0] - b.logprobs[0]) for a, b in same if a.ids[0] == b.ids[0]]
        assert len(first) > 0.9 * len(same)
        assert max(first) < 0.2
        assert sum(first) / len(first) < 0.02
        with pytest.raises(PolicyFailure, match="loaded a model by its name"):
            running.runner.run(running.engine.load_weights(1, pair()[0].state_dict()))
    finally:
        running.close()


def test_adapters_are_sampled_from_as_they_are() -> None:
    """In place, not merged: the next version is an update of 1e-3 away, and in 32 bits the tokens are the same."""
    model, tokenizer = fresh()
    adapters.add(model, Weights(lora_rank=5))
    running = Running(SMALL, ModelSource(loaded=(model, tokenizer)))
    try:
        asked = requests(12)
        for version, amount in ((1, 0.05), (2, 1e-3)):
            torch.manual_seed(version)
            with torch.no_grad():
                for parameter in (p for p in model.parameters() if p.requires_grad):
                    parameter.add_(amount * torch.randn_like(parameter))
            running.runner.run(running.engine.load_weights(version, model.state_dict()))
            found, expected = running.sample(asked), local(asked, model)
            assert [[c.ids for c in some] for some in found] == [[c.ids for c in some] for some in expected]
            assert max(gaps(found, expected)) < 1e-4
    finally:
        running.close()


# -- failure ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_dies_or_hangs_is_replaced_and_the_forest_is_the_same(how: signal.Signals) -> None:
    running = Running(replace(SMALL, patience=20.0), ModelSource(loaded=pair()))
    try:
        whole = running.runner.run(grown(running.engine))
        lost = worker(running.engine)

        async def disturbed() -> Forest:
            growing, engine = asyncio.ensure_future(grown(running.engine)), running.engine
            begun = engine.kept.answers
            while engine.kept.answers < begun + whole.spent.env_steps // 2:
                await asyncio.sleep(0.01)
            os.kill(lost, how)
            return await growing

        forest = running.runner.run(disturbed())
        assert worker(running.engine) != lost
        assert forest.trees == whole.trees
        assert forest.spent.restarts == 1
    finally:
        running.close()


def test_a_process_that_dies_again_and_again_stops_the_run_with_a_sentence() -> None:
    running = Running(replace(SMALL, restarts=0), ModelSource(loaded=pair()))
    try:
        os.kill(worker(running.engine), signal.SIGKILL)
        with pytest.raises(PolicyFailure, match=r"the engine died, 0 restarts included \(engine.restarts\)"):
            running.sample(requests(1))
    finally:
        running.close()


def test_no_process_outlives_the_one_that_started_it() -> None:
    script = f"""
import asyncio, sys, time
from spark_rl.contracts import ModelSource
from spark_rl.engines.vllm.settings import Vllm
from spark_rl.models.load import load_model, load_tokenizer

async def start():
    folder = {str(finished()[0].checkpoints / "cold-start")!r}
    loaded = load_model(folder, dtype="float32"), load_tokenizer(folder)
    async with Vllm(cache_gb=0.1, context=1024).open(ModelSource(loaded=loaded)):
        print("ready", flush=True)
        time.sleep(600)

asyncio.run(start())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        said = iter(parent.stdout.readline, "")
        assert any("ready" in line for line in said)
        started = below(parent.pid)
        assert len(started) >= 2, "vLLM's core and its worker"
        parent.kill()
        deadline = time.monotonic() + 120
        while any(map(alive, started)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not any(map(alive, started))


def below(pid: int) -> set[int]:
    """The ids of vLLM's processes that descend from a process."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found |= below(child) | ({child} if Path(f"/proc/{child}/comm").read_text().startswith("VLLM") else set())
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_what_vllm_cannot_run_is_refused_with_its_sentence() -> None:
    with pytest.raises(UsageError, match="vLLM cannot run"):
        Running(replace(SMALL, cache_gb=1e-4), ModelSource(loaded=pair()))


# -- commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [(), ("--weights.lora-rank", "4")])
def test_training_is_that_of_the_local_engine(
    options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cold = finished()[0].checkpoints / "cold-start"
    rows = {}
    for engine, *more in (("local",), ("vllm", "--engine.context", "1024")):
        out = tmp_path / engine
        words = ["--model", str(cold), "--cold-start.demonstrations", "0", "--iterations", "2", "--evaluation.levels", "L0"]
        engine_words = ["--engine", engine, "--engine.cache-gb", "0.1", *more]
        assert main(["train", "tiny:recipe", *words, *options, *engine_words, "--out", str(out), "--quiet"]) == 0
        capsys.readouterr()
        trees = [load_forest(out, iteration).trees for iteration in (1, 2)]
        rows[engine] = [[{node.path: node.completion for node in tree.nodes} for tree in some] for some in trees]
    assert rows["local"] == rows["vllm"]
