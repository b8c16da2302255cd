"""Weights on their way from the learner to a host, and the proof that they arrived.

Invariant: after `prove`, the host samples from the distribution of the learner's weights, up to the rounding of the
precision. The proof is that the log-probabilities of a few sampled tokens are those which `transformers` computes with the
learner's weights. It is made after every hand-over: several ways to load weights leave a part of them as it was, without an
error. Probes are drawn at a temperature that is not 1, so that a host which tells log-probabilities at 1 is found out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file  # pyright: ignore[reportUnknownVariableType]  untyped paths
from torch.func import functional_call

from spark_rl.contracts import LanguageModel, ModelState
from spark_rl.engines.remote.host import Answer, Host
from spark_rl.errors import PolicyFailure
from spark_rl.models import adapters

__all__ = ["BOUNDS", "TEMPERATURE", "distinct", "hand_over", "prove", "write"]

PROBES, LENGTH, DRAWN = 4, 16, 12
"""Number of probes, tokens of the prompt of each, and tokens sampled from each."""
TEMPERATURE = 0.8
"""Temperature of the probes."""
BOUNDS = {torch.float32: 1e-3, torch.bfloat16: 0.15, torch.float16: 0.03}
"""Most that the log-probabilities of a probe may differ on average (nats), by precision. In 16 bits it is what rounding
alone may do, since a probe is no text that a model knows: SmolLM2 in bfloat16 is up to 0.06 from itself in 32 bits."""


def distinct(state: ModelState) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights by name; one that two layers share comes once."""
    places = set[int]()
    for name, tensor in state.items():
        if tensor.data_ptr() not in places:
            places.add(tensor.data_ptr())
            yield name, tensor.detach()


def write(state: ModelState, file: Path) -> Path:
    """Write weights for a host to read."""
    save_file({name: tensor.cpu().contiguous() for name, tensor in distinct(state)}, file, metadata={"format": "pt"})
    return file


async def hand_over(host: Host, model: LanguageModel, state: ModelState, place: Path, *, version: int) -> float:
    """Give a host the weights of a model, or its adapters where it has them, and prove that they arrived.

    Args:
        host: the host.
        model: the architecture, with any weights.
        state: the weights.
        place: a new folder for adapters; its name is in no other hand-over of the engine.
        version: the weights' version.

    Returns:
        What `prove` returns; raises what it and the host raise.
    """
    if adapters.present(model):
        if not host.based:
            await host.load(adapters.base_state(state))
        place.mkdir()
        await asyncio.to_thread(adapters.save, model, place, state)
        await host.load_adapters(place)
    else:
        await host.load(state)
    return await prove(host, model, state, version=version, salt=f"proof {place.name}")


async def prove(host: Host, model: LanguageModel, state: ModelState, *, version: int, salt: str) -> float:
    """Compare a host's log-probabilities with those of the weights that it was handed.

    Args:
        host: the host.
        model: the architecture, with any weights.
        state: the weights.
        version: their version, for the message.
        salt: keeps the probes from cached keys and values.

    Returns:
        The largest mean difference of a probe's log-probabilities.

    Raises:
        PolicyFailure: the difference exceeds the bound of the precision.
    """
    vocabulary = int(cast(Any, model.config).get_text_config().vocab_size)
    prompts = [[(31 * probe + 7 * place + 5) % vocabulary for place in range(LENGTH)] for probe in range(PROBES)]
    answers = [
        await host.ask(prompt, seed=probe, temperature=TEMPERATURE, most=DRAWN, stops=(), salt=salt, name=f"{salt} {probe}")
        for probe, prompt in enumerate(prompts)
    ]
    gap = max(_gap(model, state, prompt, answer) for prompt, answer in zip(prompts, answers, strict=True))
    bound = BOUNDS[model.dtype]
    if not gap <= bound:
        raise PolicyFailure(
            f"the engine does not sample from the weights of version {version}: log-probabilities of probes differ from the "
            f"learner's by {gap:.4f} on average, and {model.dtype} allows {bound}. A server must tell processed "
            "log-probabilities (--logprobs-mode processed_logprobs); in a process of this package it is a defect"
        )
    return gap


def _gap(model: LanguageModel, state: ModelState, prompt: list[int], answer: Answer) -> float:
    """Mean difference of the log-probabilities of one probe."""
    ids = torch.tensor([[*prompt, *answer.ids]], device=model.device)
    with torch.no_grad():
        options = {"input_ids": ids, "use_cache": False}
        output = cast(Any, functional_call)(model, dict(state), (), options, tie_weights=False)
    logits: torch.Tensor = output.logits[0, len(prompt) - 1 : -1] / TEMPERATURE
    own = logits.float().log_softmax(-1).gather(1, ids[0, len(prompt) :, None])[:, 0]
    return float((own.cpu() - torch.tensor(answer.logprobs)).abs().mean())
