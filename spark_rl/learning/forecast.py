"""Estimates how long a run takes, from some seconds of measurement: what the expert plays, and how fast the model computes.

Mechanism: the expert plays a few training tasks, which gives the tokens and the steps of an episode. The recipe's model then
reads, writes and learns once each, in the way of the run. Everything else is multiplication. Half of the agent's episodes
are taken to end when the expert's do, and half at the horizon. Nothing that trees share is subtracted, so a run should be
faster than its estimate rather than slower.

A model that would have to be downloaded is not measured. The measurement changes no weights and no random state of the run.
"""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from spark_rl.common.prefix import shared_prefix
from spark_rl.common.progress import duration
from spark_rl.config.recipe import Recipe
from spark_rl.contracts import Encoder, Engine, ModelSource, Tokenizer
from spark_rl.data import demonstrations
from spark_rl.data.format import Demonstration
from spark_rl.engines.local.settings import Local
from spark_rl.learning.batch import packed_sequences
from spark_rl.learning.prepare import demonstrate
from spark_rl.learning.update import recomputing
from spark_rl.models.load import load_model, load_tokenizer
from spark_rl.models.logprobs import token_logprobs
from spark_rl.models.new import new_model
from spark_rl.models.scratch import ScratchModel
from spark_rl.models.tokenizer import learn_tokenizer
from spark_rl.prompting.encoder import ChatEncoder
from spark_rl.runs.checkpoints import model_folder
from spark_rl.types import Observation, Request, Task

__all__ = ["Episode", "Forecast", "Speed", "combine", "forecast"]

EPISODES = 5
"""Episodes of the expert that are played; the first one is not timed, since it starts engines."""
FEW, MANY = 4, 20
"""Rows of the two batches whose decoding is timed."""
TOKENS = 192
"""Tokens of the row that the model reads, and learns from."""
WRITTEN = 4
"""Tokens that each row of a batch samples."""


@dataclass(frozen=True)
class Episode:
    """What an episode of the expert is like, as means."""

    steps: float
    seconds: float
    """Time of the environment, and of the expert."""
    completion: float
    """Tokens of an answer."""
    reading: float
    """Tokens that the model reads before an answer beyond those that it has read or written already."""
    rows: float
    """Rows of tokens that the model is trained on."""
    trained: float
    """Tokens of these rows."""


@dataclass(frozen=True)
class Speed:
    """Seconds of the model's work, one token each unless said otherwise."""

    read: float
    """A prompt's token."""
    learn: float
    """A token of an update: forward and backward."""
    start: float
    """A token of the cold start, which computes with 32-bit weights."""
    step: float
    """One optimiser step of the cold start."""
    few: float
    """One more token of each of `FEW` rows."""
    many: float
    """One more token of each of `MANY` rows."""

    def decode(self, rows: float) -> float:
        """One more token of each of so many rows: a straight line through the two measurements."""
        slope = max(0.0, (self.many - self.few) / (MANY - FEW))
        return max(self.few + slope * (rows - FEW), min(self.few, self.many) / FEW)


@dataclass(frozen=True)
class Forecast:
    """Expected seconds of the parts of a run."""

    demonstrations: float
    start: float
    """The cold start."""
    iteration: float
    development: float
    """One evaluation on the development slice."""
    levels: dict[str, float]
    """One evaluation of each level."""
    iterations: int
    developments: int
    """How many evaluations on the development slice the run makes."""

    @property
    def phases(self) -> dict[str, float]:
        """Expected seconds of each phase of `train`, under its name there, in order."""
        train = self.iterations * self.iteration + self.developments * self.development
        before, after = ({f"evaluate {level} {at}": s for level, s in self.levels.items()} for at in ("before", "after"))
        return {"demonstrations": self.demonstrations, "cold start": self.start, **before, "train": train, **after}

    @property
    def total(self) -> float:
        """Expected seconds of the whole run."""
        return sum(self.phases.values())

    def sentence(self) -> str:
        """The estimate in words."""
        start = self.demonstrations + self.start
        parts = [f"cold start {duration(start)}"] if start else []
        if self.iterations:
            parts.append(f"{self.iterations} iterations of {duration(self.iteration)}")
        if self.developments:
            parts.append(f"{self.developments} looks at the development slice of {duration(self.development)}")
        if self.levels:
            parts.append(f"evaluation before and after {duration(sum(self.levels.values()))} each")
        return f"about {duration(self.total)} in all: {', '.join(parts)}"


async def forecast(recipe: Recipe) -> Forecast | None:
    """Measure for some seconds; None if the model has to be downloaded first, or is not run in this process.

    Raises:
        UsageError: the world has no expert, or the model cannot be loaded.
        EnvironmentFailure: the world cannot play.
    """
    scratch = isinstance(recipe.model, ScratchModel)
    if not isinstance(recipe.engine, Local) or not (scratch or Path(model_folder(str(recipe.model))).is_dir()):
        return None
    with torch.random.fork_rng():  # pyright: ignore[reportUnknownMemberType]  untyped in torch
        await demonstrate(recipe, 1, processes=1)
        started = time.perf_counter()
        trees = await demonstrate(recipe, EPISODES, processes=1)
        seconds = (time.perf_counter() - started) / EPISODES
        model, tokenizer = _model(recipe, trees)
        episode = _episode(recipe, trees, ChatEncoder(tokenizer), seconds)
        async with recipe.engine.open(ModelSource(loaded=(model, tokenizer))) as engine:
            speed = await _speed(recipe, model, engine)
    return combine(recipe, episode, speed)


def combine(recipe: Recipe, episode: Episode, speed: Speed) -> Forecast:
    """The time of a run, from what an episode is like and how fast the model is."""
    horizon, settings = recipe.tree.horizon, recipe.evaluation
    longer = (min(episode.steps, horizon) + horizon) / 2 / episode.steps

    def playing(episodes: int, at_once: int) -> float:
        if not episodes:
            return 0.0
        rows = min(episodes, at_once)
        active = rows * longer * episode.steps / horizon  # mean over the rounds; finished episodes ask for nothing
        a_round = episode.completion * speed.decode(active) + active * episode.reading * speed.read
        return episodes / rows * horizon * a_round + episodes * longer * episode.seconds

    start, count = recipe.cold_start, recipe.cold_start.demonstrations
    steps = start.epochs * math.ceil(count * episode.rows / start.batch)
    leaves = recipe.tasks_per_iteration * recipe.tree.budget
    token = speed.learn * recipe.optimizer.epochs + (speed.read if recipe.loss.kl else 0.0)
    dev = len(recipe.env.tasks(settings.dev_level, "dev")) if settings.every and recipe.iterations else 0
    return Forecast(
        demonstrations=0.0 if start.data else count * episode.seconds,
        start=start.epochs * count * episode.trained * speed.start + steps * speed.step,
        iteration=playing(leaves, leaves) + leaves * longer * episode.trained * token,
        development=playing(min(dev, settings.dev_tasks or dev), settings.batch),
        levels={level: playing(len(recipe.env.tasks(level, "test")), settings.batch) for level in settings.levels},
        iterations=recipe.iterations,
        developments=math.ceil(recipe.iterations / settings.every) if settings.every else 0,
    )


# -- measuring --------------------------------------------------------------------------------------------------------


def _model(recipe: Recipe, trees: list[Demonstration]) -> tuple[PreTrainedModel, Tokenizer]:
    """The recipe's model; for a model from scratch one of its size, with a tokenizer of these few demonstrations."""
    if isinstance(recipe.model, ScratchModel):
        size, texts = recipe.model, demonstrations.texts(trees, recipe.prompt)
        tokenizer = learn_tokenizer(texts, vocabulary=size.vocabulary, min_count=1, tags=recipe.prompt.tags)
        return new_model(tokenizer, size, seed=0), tokenizer
    folder = model_folder(recipe.model)
    return load_model(folder, device=recipe.weights.device, dtype=recipe.weights.dtype), load_tokenizer(folder)


def _episode(recipe: Recipe, trees: list[Demonstration], encoder: Encoder, seconds: float) -> Episode:
    tokenized = [demonstrations.tokenize(each.tree, recipe.prompt, encoder) for each in trees]
    rows = packed_sequences(tokenized)
    nodes = [(tree, node) for tree in tokenized for node in tree.nodes]
    known = [
        (*tree.nodes[node.parent].prompt, *tree.nodes[node.parent].completion) if node.parent >= 0 else ()
        for tree, node in nodes
    ]
    reused = sum(
        shared_prefix(np.array(node.prompt), np.array(before)) for (_, node), before in zip(nodes, known, strict=True)
    )
    return Episode(
        steps=len(nodes) / len(trees),
        seconds=seconds,
        completion=sum(len(node.completion) for _, node in nodes) / len(nodes),
        reading=(sum(len(node.prompt) for _, node in nodes) - reused) / len(nodes),
        rows=len(rows) / len(trees),
        trained=sum(len(row) for row in rows) / len(trees),
    )


async def _speed(recipe: Recipe, model: Any, engine: Engine) -> Speed:
    vocabulary: int = model.get_input_embeddings().weight.shape[0]
    prompt = tuple(random.Random(0).choices(range(vocabulary), k=TOKENS))
    ids = torch.tensor([prompt], device=model.device)

    async def sampling(length: int, rows: int, written: int) -> float:
        task = Task("forecast", "train", "")
        request = Request(task, (), Observation(""), tuple(range(rows)), prompt=prompt[:length], max_tokens=written)
        started = time.perf_counter()
        await engine.sample([request])
        return time.perf_counter() - started

    async def decoding(rows: int) -> float:
        once = await sampling(TOKENS // 2, rows, 1)
        return max(0.0, await sampling(TOKENS // 2, rows, WRITTEN) - once) / (WRITTEN - 1)

    await sampling(16, FEW, 2)  # the first call starts threads and prepares weights
    read, few, many = await sampling(TOKENS, 1, 1) / TOKENS, await decoding(FEW), await decoding(MANY)
    checkpointing = recipe.weights.checkpointing
    with recomputing(model, checkpointing):
        learn = _learning(model, ids, autocast=False)
    heavy = copy.deepcopy(model).float()  # the cold start trains 32-bit weights
    with recomputing(heavy, checkpointing):
        start = learn if model.dtype == torch.float32 else _learning(heavy, ids, autocast=True)
    step = _stepping(heavy)
    for parameter in model.parameters():
        parameter.grad = None
    return Speed(read, learn / TOKENS, start / TOKENS, step, few, many)


def _stepping(model: PreTrainedModel) -> float:
    """Seconds of one step of AdamW on all weights."""
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0)

    def step() -> None:
        optimizer.step()  # pyright: ignore[reportUnknownMemberType]  its closure has no type

    step()  # makes its state
    return _timed(step, model.device)


def _learning(model: PreTrainedModel, ids: torch.Tensor, *, autocast: bool) -> float:
    """Seconds of one forward and backward pass."""
    sampled = torch.ones_like(ids, dtype=torch.bool)
    sampled[:, : TOKENS // 2] = False  # about half of a transcript is the agent's

    def both(length: int) -> None:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=autocast):
            logprobs, _ = token_logprobs(model, ids[:, -length:], sampled[:, -length:], 1.0)
        logprobs.sum().backward()  # pyright: ignore[reportUnknownMemberType]  its arguments have no types

    both(TOKENS // 2 + 8)  # starts threads, and makes the gradients' memory
    return _timed(lambda: both(TOKENS), model.device)


def _timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of some work; a GPU's are awaited."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    wait()
    started = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - started
