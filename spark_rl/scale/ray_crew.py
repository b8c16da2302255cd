"""Workers as Ray actors: rollout actors in one placement group, each with an engine and worlds of its own.

Invariants
----------
* Ray starts an actor again when it dies. A new actor has nothing of the old one: requests name the weights and bring the
  trees' records. Ray never repeats a request by itself, so each loss is seen here, counted and told once.
* A cluster that this process starts ends with it, and listens on loopback alone. (Ray reads that setting at its import,
  so a program that imports Ray first decides for itself.)
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import warnings
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

from spark_rl.config.recipe import Recipe, Scale
from spark_rl.contracts import ModelSource, ModelState
from spark_rl.errors import MissingExtra, SparkError, UsageError
from spark_rl.rollout.executors.in_process import require_ids
from spark_rl.rollout.parts import Grower, Harvest, Part
from spark_rl.rollout.tasks import preload
from spark_rl.scale.dispatch import WorkerLost
from spark_rl.types import Task

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Laid = Mapping[str, tuple[str, tuple[int, ...], NDArray[np.uint8]]]

__all__ = ["RayCrew", "crew", "laid_out", "taken_up", "try_out"]

ROOM = 120.0
"""Seconds that a cluster has to find room for the workers."""
GOODBYE = 10.0
"""Seconds that a worker has to close its worlds."""
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_NUM_REDIS_GET_RETRIES": "2",  # else an address where something else answers is tried for minutes
}
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_AUTH_MODE": "token"}
"""A cluster of this process alone: its servers listen on 127.0.0.1, and whoever connects needs the user's token."""
KNOCK = 5.0
"""Seconds that a cluster has to accept a connection."""
STARTS = 3
"""How often a worker that dies while it starts is started again."""


def laid_out(weights: ModelState) -> Laid:
    """Weights as bytes with their dtypes and shapes, in arrays that an object store shares without a copy.

    A weight with two names (a tied head) is there once.
    """
    import torch

    seen: dict[tuple[int, torch.Size], NDArray[np.uint8]] = {}
    laid: dict[str, tuple[str, tuple[int, ...], NDArray[np.uint8]]] = {}
    for name in weights:
        tensor = weights[name].detach()
        key = tensor.data_ptr(), tensor.shape
        if key not in seen:
            seen[key] = tensor.to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy()
        laid[name] = str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), seen[key]
    return laid


def taken_up(laid: Laid) -> ModelState:
    """The weights that were laid out; they share the memory of the arrays, so they are to be read only."""
    import torch

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return {
            name: torch.from_numpy(numbers).view(getattr(torch, dtype)).reshape(shape)  # pyright: ignore[reportUnknownMemberType]
            for name, (dtype, shape, numbers) in laid.items()
        }


class _Worker:
    """What runs in an actor. Its methods are coroutines, so that it grows several parts at once."""

    def __init__(self, recipe: Recipe, source: ModelSource) -> None:
        self._recipe, self._source = recipe, source
        self._resources = AsyncExitStack()
        self._opening = asyncio.Lock()
        self._opened: Grower | None = None

    async def ready(self) -> str:
        """The name of this process, when its engine is open."""
        await self._grower()
        return f"{os.getpid()}@{socket.gethostname()}"

    async def grow(self, part: Part, weights: Sequence[Any]) -> Harvest:
        """Grow a part; `weights` holds the reference of its weights, so that Ray does not fetch them for each request."""

        async def given() -> ModelState:
            return taken_up(await weights[0])

        return await (await self._grower()).grow(part, given)

    async def finish(self, forest: int) -> None:
        """Forget a forest."""
        await (await self._grower()).finish(forest)

    async def preload(self, tasks: Sequence[Task]) -> None:
        """Begin to get tasks ready."""
        preload(self._recipe.env, tasks)

    async def close(self) -> None:
        """End the engine."""
        await self._resources.aclose()

    async def _grower(self) -> Grower:
        async with self._opening:
            if self._opened is None:
                try:
                    self._opened = await self._open()
                except MissingExtra as error:
                    raise UsageError(str(error)) from None  # an error with one argument, which pickle can rebuild
        return self._opened

    async def _open(self) -> Grower:
        recipe, source = self._recipe, self._source
        if recipe.weights.lora_rank:
            from spark_rl.models import adapters
            from spark_rl.models.load import load_pair

            model, tokenizer = load_pair(source)
            adapters.add_new(model, recipe.weights, run_seed=recipe.seed)
            source = ModelSource(loaded=(model, tokenizer))
        engine = await self._resources.enter_async_context(recipe.engine.open(source))
        require_ids(engine.encoder)
        return Grower(recipe.env, engine)


class RayCrew:
    """Actors by their numbers; fulfils `on_workers.Crew`."""

    def __init__(self, actors: Sequence[Any], *, timeout: float, tell: Callable[[str], None]) -> None:
        """Made by `crew`. A worker that takes longer than `timeout` seconds for a unit is started anew; 0: never."""
        self.count, self.lost = len(actors), 0
        self._actors, self._timeout, self._tell = actors, timeout, tell
        self._processes: list[str] = []
        self._replacing = [asyncio.Lock() for _ in actors]

    async def start(self) -> None:
        """Wait until all workers have opened their engines.

        Raises:
            SparkError: a worker could not.
        """
        self._processes = await asyncio.gather(*(self._ready(worker) for worker in range(self.count)))

    def put(self, weights: ModelState) -> object:
        """Lay the weights out in the object store; returns their reference."""
        return _ray().put(laid_out(weights))

    async def grow(self, worker: int, part: Part, weights: object) -> Harvest:
        """Let a worker grow a part.

        Raises:
            WorkerLost: the worker died or hung; Ray has started it anew.
            SparkError: an error in the worker.
        """
        actor, process = self._actors[worker], self._processes[worker]
        try:
            return await self._in_time(actor.grow.remote(part, [weights]))
        except _ray().exceptions.RayActorError:
            await self._replaced(worker, process, "died")
        except TimeoutError:
            if self._processes[worker] == process:
                _ray().kill(actor, no_restart=False)
            await self._replaced(worker, process, f"gave no answer for {self._timeout:g} s")
        raise WorkerLost(f"process {process}")

    async def finish(self, forest: int) -> None:
        """Tell all workers that a forest does not grow any more."""
        for answer in [actor.finish.remote(forest) for actor in self._actors]:
            # Whoever replaces a dead worker has no forest, and one that hangs is found by its next request.
            with suppress(_ray().exceptions.RayActorError, TimeoutError):
                await self._in_time(answer)

    def preload(self, worker: int, tasks: Sequence[Task]) -> None:
        """Let a worker begin to get tasks ready."""
        self._actors[worker].preload.remote(tasks)

    async def close(self) -> None:
        """End all workers; the worlds' own processes end first."""
        goodbyes = [_answer(actor.close.remote()) for actor in self._actors]
        with suppress(TimeoutError):  # a worker that hangs is ended all the same
            await asyncio.wait_for(asyncio.gather(*goodbyes, return_exceptions=True), GOODBYE)
        for actor in self._actors:
            _ray().kill(actor)

    async def _in_time(self, answer: Any) -> Any:
        """What a worker answers; raises TimeoutError when the time for a unit is over."""
        return await asyncio.wait_for(_answer(answer), self._timeout or None)

    async def _ready(self, worker: int) -> str:
        """The name of a worker's process, as soon as it has opened its engine."""
        try:
            return await _answer(self._actors[worker].ready.options(max_task_retries=STARTS).remote())
        except _ray().exceptions.RayActorError:
            raise SparkError(
                f"worker {worker} died {STARTS + 1} times while it started; if memory ran out, lower --scale.workers"
            ) from None

    async def _replaced(self, worker: int, process: str, why: str) -> None:
        """Wait until another process is in the place of a lost one; the first who notices tells and counts it."""
        async with self._replacing[worker]:
            if self._processes[worker] == process:
                self._processes[worker] = await self._ready(worker)
                if self._processes[worker] != process:  # else only the connection was lost
                    self.lost += 1
                    self._tell(f"worker {worker} {why} and was started anew; its trees grow again")


async def _answer(reference: Any) -> Any:
    """What an actor answers, or its error as it was raised there."""
    try:
        return await reference
    except _ray().exceptions.RayTaskError as error:
        cause: object = error.cause
        if isinstance(cause, SparkError):
            raise cause from None
        raise SparkError(f"a worker failed: {type(cause).__name__}: {cause}") from error


def try_out(scale: Scale) -> None:
    """Find out, before anything is spent, whether the workers of a run can be reached.

    Raises:
        MissingExtra: Ray is not installed.
        UsageError: the cluster does not answer, or has other versions.
    """
    _ray_for(scale)
    if scale.address:
        _join(scale, cpus=0)
        _ray().shutdown()


@asynccontextmanager
async def crew(recipe: Recipe, source: ModelSource, tell: Callable[[str], None]) -> AsyncGenerator[RayCrew]:
    """The workers of a run until the block ends, on a cluster that is joined or started.

    Args:
        recipe: says how many workers there are, and what each has.
        source: a model folder, which all workers can read, and the threads of each.
        tell: receives a sentence when a worker is lost.

    Raises:
        MissingExtra: Ray is not installed.
        UsageError: the cluster does not answer, has another version of Ray, or has no room.
    """
    from spark_rl.models.load import device_of

    scale = recipe.scale
    need = {"CPU": float(source.threads), **({"GPU": 1.0} if device_of(recipe.weights.device) == "cuda" else {})}
    _join(scale, cpus=scale.workers * source.threads)
    ray = _ray()
    try:
        group = ray.util.placement_group([need] * scale.workers, strategy="PACK")
        if not await asyncio.to_thread(group.wait, ROOM):
            raise UsageError(
                f"the cluster has no room for {scale.workers} workers, each of {need}: lower --scale.workers, or add nodes"
            )
        actor, placed = ray.remote(_Worker), ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy
        actors = [
            actor.options(
                num_cpus=need["CPU"],
                num_gpus=need.get("GPU", 0),
                max_restarts=-1,
                max_task_retries=0,
                scheduling_strategy=placed(group, placement_group_bundle_index=number),
            ).remote(recipe, source)
            for number in range(scale.workers)
        ]
        started = RayCrew(actors, timeout=scale.timeout, tell=tell)
        await started.start()
        try:
            yield started
        finally:
            await started.close()
            ray.util.remove_placement_group(group)
    finally:
        ray.shutdown()


def _ray() -> Any:
    """Ray, which is typed in part only.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        return import_module("ray")
    except ImportError:
        raise MissingExtra("--scale.executor ray", "ray") from None


def _knock(address: str) -> None:
    """Connect to a host and port once, since Ray would go on trying for minutes.

    Raises:
        OSError: nobody answers.
    """
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), KNOCK).close()


def _nothing(*_args: object, **_named: object) -> None:
    """Print nothing."""


def _ray_for(scale: Scale) -> Any:
    """Ray, with the settings that it reads when it is imported.

    Raises:
        MissingExtra: it is not installed.
    """
    settings = QUIET if scale.address else QUIET | LOOPBACK
    if "ray" not in sys.modules:  # else its processes would have other settings than this one
        os.environ |= {name: value for name, value in settings.items() if name not in os.environ}
    logging.getLogger("ray").setLevel(logging.ERROR)
    return _ray()


def _join(scale: Scale, *, cpus: int) -> None:
    """Join the cluster at `scale.address`, or start one for this run that deals out so many processors."""
    ray = _ray_for(scale)
    # Ray prints a paragraph for each process that dies; the crew tells it in a sentence.
    setattr(import_module("ray._private.worker"), "print_to_stdstream", _nothing)  # noqa: B010
    common: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "configure_logging": False}
    if not scale.address:
        ray.init(**common, num_cpus=cpus, include_dashboard=False)
        return
    try:
        _knock(scale.address)
        ray.init(address=scale.address, **common)
    except (OSError, ValueError, RuntimeError) as error:
        sentence = " ".join(str(error).split())
        if "ersion mismatch" in sentence:
            raise UsageError(f"the cluster at {scale.address} has other versions than this process: {sentence}") from None
        raise UsageError(
            f"no Ray cluster answers at scale.address {scale.address}: start one with `ray start --head`, or leave the "
            "address out to start one for this run"
        ) from None
