"""What vLLM loads into its own processes: the draw of tokens, and the receiver of new weights.

Invariant
---------
A token is drawn as the local engine draws it: from the same numbers, which are a hash of the sample's seed and the position,
by the same function. So a forest does not depend on the engine that grows it, up to rounding.

vLLM takes the likeliest token. `Draw` leaves each row two finite logits: that of the drawn token, which is its
log-probability, and a smaller one of any other token, from which the entropy can be read. With `logprobs_mode` as
`processed_logits`, vLLM returns both numbers as they are.

None of vLLM's processes outlives the process that started it, however that one ends: `_end_with`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spark_rl.common.follow import follow
from spark_rl.engines.sampling import draw, uniform
from spark_rl.engines.vllm.interface import interface
from spark_rl.engines.vllm.process import PARENT

__all__ = ["ARGUMENT", "RETURNED", "Draw", "Receiver", "read"]

ARGUMENT = "spark_rl"
"""Name of the sampling parameter that holds seed and temperature."""
RETURNED = 2
"""How many log-probabilities vLLM has to return for a token."""
BELOW = 1.0
"""How much smaller the second logit is than the first, beside the entropy."""


def read(token: int, returned: Mapping[int, Any]) -> tuple[float, float]:
    """Log-probability and entropy (nats) of a drawn token, from what vLLM returns for it."""
    chosen = float(returned[token].logprob)
    (other,) = (float(entry.logprob) for ids, entry in returned.items() if ids != token)
    return chosen, max(chosen - other - BELOW, 0.0)


def _end_with(parent: int) -> None:
    """End this process of vLLM, and the one above it, when their parent ends. vLLM's own way needs a parent that ends well.

    Args:
        parent: id of the process that started vLLM.
    """
    above = os.getppid()  # vLLM's core where this is a process below it, else the parent itself

    def end() -> None:
        if above not in (parent, 1):
            os.kill(above, signal.SIGKILL)

    follow(parent, end)


_processor: Any = interface("vllm.v1.sample.logits_processor")


class Draw(_processor.LogitsProcessor):
    """Draws the token of each row."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        """As vLLM calls it in each of its workers; nothing of it is needed."""
        if parent := os.environ.get(PARENT):
            _end_with(int(parent))
        self._rows: dict[int, tuple[int, float, Sequence[int]]] = {}
        """Seed, temperature and tokens so far of each row of the batch. vLLM goes on writing to the latter."""

    def is_argmax_invariant(self) -> bool:
        """False: this makes the likeliest token another."""
        return False

    def update_state(self, batch_update: Any) -> None:
        """Keep account of which request is in which row."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._rows.pop(row, None)
        for row, parameters, _, tokens in batch_update.added:
            seed, temperature = parameters.extra_args[ARGUMENT]
            self._rows[row] = seed, temperature, tokens
        for source, target, direction in batch_update.moved:
            moved, other = self._rows.pop(source, None), self._rows.pop(target, None)
            if moved is not None:
                self._rows[target] = moved
            if other is not None and direction == _processor.MoveDirectionality.SWAP:
                self._rows[source] = other

    def apply(self, logits: Tensor) -> Tensor:
        """Replace the logits, [rows, vocabulary]."""
        rows = [self._rows[row] for row in range(len(logits))]
        seeds = np.array([seed for seed, _, _ in rows], np.uint64)
        positions = np.array([len(tokens) for _, _, tokens in rows], np.uint64)
        temperatures = torch.tensor([[temperature] for _, temperature, _ in rows], device=logits.device)
        token, chosen, entropy = draw(logits, temperatures, uniform(seeds, positions))
        other = (token + 1) % logits.shape[1]
        logits.fill_(-torch.inf)
        logits.scatter_(1, other[:, None], (chosen - BELOW - entropy)[:, None])
        return logits.scatter_(1, token[:, None], chosen[:, None])


class Receiver:
    """Methods that vLLM adds to its worker (`worker_extension_cls`)."""

    model_runner: Any

    def receive_file(self, path: str) -> None:
        """Take the weights of a safetensors file."""
        from safetensors.torch import load_file  # pyright: ignore[reportUnknownVariableType]  untyped paths

        self.model_runner.reload_weights(weights_iterator=iter(load_file(path).items()))
        model = self.model_runner.get_model()
        head = getattr(model, "lm_head", None)
        if head is not None and hasattr(head, "cpu_linear"):
            # A head that shares the embeddings' weights has a packed copy, which reloading leaves as it was.
            import_module("vllm.model_executor.layers.utils").dispatch_cpu_unquantized_gemm(head, remove_weight=False)
