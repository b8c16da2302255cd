"""Estimates the memory that a run needs, from recipe and model configuration, and names a remedy if it is too much.

Invariants
----------
* No weights are loaded: parameters are counted on a model without storage.
* Large tensors are counted as the code allocates them: weights, gradients and optimiser state exactly, keys and values at
  their bound. Activations follow a formula for gated transformers: for each token, a layer keeps four times the width of its
  feed-forward part and eight times the width of the model, and twice the width of the model in 32 bits (four times where
  32-bit weights compute in 16 bits). Prefix trees add copies of keys and values, and masks. The formula is within a third of
  measured values.
* The largest moment decides. Cold start, growing and updating follow one another, and after the first two only the weights
  stay in memory.

The estimate leaves out the libraries' own code and contexts (0.5 to 1 GB on CUDA) and fragmentation, so a run should stay
below nine tenths of the device.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, cast

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from spark_rl.config.recipe import Recipe, Scale
from spark_rl.contracts import LanguageModel
from spark_rl.engines.local.engine import BATCH_TOKENS
from spark_rl.engines.local.settings import Local
from spark_rl.engines.vllm.settings import Vllm
from spark_rl.errors import UsageError
from spark_rl.models import adapters
from spark_rl.models.load import device_of
from spark_rl.models.logprobs import LOGIT_CELLS
from spark_rl.models.new import scratch_config
from spark_rl.models.scratch import ScratchModel
from spark_rl.models.tree_attention import copies
from spark_rl.models.weights import Weights
from spark_rl.runs.checkpoints import model_folder

__all__ = ["Need", "Shape", "activation_bytes", "check", "device_bytes", "fitted", "need", "shape", "tree_bytes"]

GB = 1e9
USABLE = 0.9
VLLM_BYTES = 2_000_000_000
"""What vLLM's processes hold beside the model: libraries and contexts. Measured as 1.7 GB on a CPU."""
LEAST_GB = 0.5
"""Keys and values that an engine gets even where nothing is left, so that the check of memory names what is missing."""
INSTEAD = " (adapters instead of all weights)"


class _TextConfig(Protocol):
    """The settings of a language model's configuration that every architecture has."""

    num_hidden_layers: int
    hidden_size: int
    num_attention_heads: int
    vocab_size: int


class _Config(Protocol):
    """A configuration of `transformers`, which may hold parts beside the language model."""

    dtype: object

    def get_text_config(self) -> _TextConfig: ...


@dataclass(frozen=True)
class Shape:
    """The sizes of a model that decide its memory."""

    parameters: int
    matrices: tuple[tuple[int, int], ...]
    """Numbers of inputs and outputs of each inner matrix; these matrices may get adapters."""
    layers: int
    hidden: int
    intermediate: int
    cached: int
    """How many numbers the keys and values of one token have in all layers."""
    vocabulary: int
    bytes: int
    """Bytes of a weight in the precision in which the model computes."""


@dataclass(frozen=True)
class Need:
    """Bytes of each part of a run. The moments `start`, `grow` and `update` each add their parts to the weights."""

    weights: int
    optimizer: int
    """Gradients, 32-bit copies, and both moments of AdamW."""
    reference: int
    start: int
    """The cold start: its own gradients, optimiser and activations, before those of the updates exist."""
    cache: int
    batch: int
    """Keys and values of the batch that is sampled, and its probabilities."""
    activations: int
    logits: int
    engine: int = 0
    """What an engine in a process of its own holds on the learner's device, beside `cache` and `batch`: its copy of the
    weights, and its libraries."""
    stays: int = 0
    """1 where that engine keeps all of its memory while the learner works, else 0."""
    apart: int = 0
    """What an engine holds on a device of its own, which may be a worker's."""

    @property
    def grow(self) -> int:
        """Bytes that growing trees adds."""
        return self.engine + self.cache + self.batch

    @property
    def update(self) -> int:
        """Bytes that an update adds."""
        return self.activations + self.logits + self.stays * self.grow

    @property
    def total(self) -> int:
        """Bytes at the largest moment."""
        return self.weights + max(self.start, self.optimizer + self.reference + max(self.grow, self.update))

    def table(self) -> str:
        """A text with one line for each part."""
        lines = [
            ("weights", self.weights),
            ("gradients and optimiser", self.optimizer),
            ("reference", self.reference),
            ("growing: kept keys and values", self.cache),
            ("growing: the running batch", self.batch),
            *([("growing: the engine's own copy of the model", self.engine)] if self.engine else []),
            ("updating: activations of a micro-batch", self.activations),
            ("updating: its logits", self.logits),
            ("cold start, instead of the lines above but the first", self.start),
            ("most at once", self.total),
            *([("an engine, on a device of its own", self.apart)] if self.apart else []),
        ]
        return "\n".join(f"{name:55}{size / GB:9.3f} GB" for name, size in lines)


def shape(recipe: Recipe) -> Shape:
    """The shape of a recipe's model. For a hub name, only the configuration is downloaded.

    Raises:
        UsageError: there is no such model.
    """
    if isinstance(recipe.model, ScratchModel):
        config = cast(_Config, scratch_config(recipe.model, recipe.model.vocabulary))
        saved = torch.float32
    else:
        name = model_folder(recipe.model)
        if Path(name).is_dir() and adapters.holds_adapters(Path(name)):
            name = adapters.base_of(Path(name))
        try:
            # The library does not annotate the options of its factories.
            local = Path(name).is_dir()
            config = cast(_Config, AutoConfig.from_pretrained(name, local_files_only=local))  # pyright: ignore[reportUnknownMemberType]
        except (OSError, ValueError) as error:
            reason = str(error).strip().partition("\n")[0]
            raise UsageError(f'model "{recipe.model}" has no configuration that can be read: {reason}') from error
        saved = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    with torch.device("meta"):
        model = cast(LanguageModel, AutoModelForCausalLM.from_config(config))  # pyright: ignore[reportUnknownMemberType]
    inner = config.get_text_config()
    heads: int = getattr(inner, "num_key_value_heads", None) or inner.num_attention_heads
    width: int = getattr(inner, "head_dim", None) or inner.hidden_size // inner.num_attention_heads
    head = model.get_output_embeddings()
    dtype: torch.dtype = saved if recipe.weights.dtype == "auto" else getattr(torch, recipe.weights.dtype)
    return Shape(
        parameters=sum(p.numel() for p in model.parameters()),
        matrices=tuple(
            (m.in_features, m.out_features) for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head
        ),
        layers=inner.num_hidden_layers,
        hidden=inner.hidden_size,
        intermediate=getattr(inner, "intermediate_size", None) or 4 * inner.hidden_size,
        cached=2 * inner.num_hidden_layers * heads * width,
        vocabulary=inner.vocab_size,
        bytes=dtype.itemsize,
    )


def need(recipe: Recipe, model: Shape) -> Need:
    """The memory that each rank of a run needs with a model of this shape; a run without iterations has no update."""
    weights, p = recipe.weights, model.parameters
    adapted = weights.lora_rank * sum(inputs + outputs for inputs, outputs in model.matrices)
    trained = adapted or p
    copies = 4 * p if model.bytes < 4 and not adapted else 0
    row = recipe.prompt.limit + recipe.sampling.max_tokens
    # A row longer than the budget goes through the model alone. Rows hold prompts beside completions.
    cells = max(recipe.optimizer.token_budget, row)
    tree = recipe.optimizer.packing == "tree"
    completions = _sampled(recipe, cells, recipe.tree.budget if tree else 1)
    start = _cold_start(recipe, model, adapted, cells) if recipe.cold_start.demonstrations else 0
    updates, ranks = int(recipe.iterations > 0), recipe.scale.ranks
    # Ranks have shards beside the whole weights; where 32-bit copies are trained, the shards are these copies.
    shards = 0 if ranks == 1 or copies else p * model.bytes + 4 * adapted
    return Need(
        weights=p * model.bytes + 4 * adapted,
        optimizer=updates * (12 * trained + copies + shards) // ranks,
        reference=p * model.bytes // ranks if updates and recipe.loss.kl and not adapted else 0,
        start=start,
        activations=updates * (activation_bytes(model, cells, weights) + tree * tree_bytes(model, cells, row, weights)),
        logits=updates * _logit_bytes(model, completions, model.bytes),
        **_sampling(recipe, model, row),
    )


def _sampling(recipe: Recipe, model: Shape, row: int) -> dict[str, int]:
    """The fields of `Need` that concern the engine, or the engines of all workers."""
    workers = recipe.scale.workers
    if recipe.scale.executor == "process":
        return _engine(recipe, model, row)
    one = _engine(replace(recipe, scale=Scale(ranks=workers)), model, row)  # a share of the leaves
    if isinstance(recipe.engine, Local):
        one["engine"] = model.parameters * model.bytes  # a copy, where in one process the learner's are shared
    if recipe.scale.address or device_of(recipe.weights.device).startswith("cuda"):
        return {"cache": 0, "batch": 0, "apart": sum(one.values())}
    return {part: workers * size for part, size in one.items()} | {"stays": 1}


def _engine(recipe: Recipe, model: Shape, row: int) -> dict[str, int]:
    """The fields of `Need` that concern an engine beside its learner."""
    engine, cuda = recipe.engine, device_of(recipe.weights.device).startswith("cuda")
    leaves = -(-max(recipe.tasks_per_iteration * recipe.tree.budget, recipe.evaluation.batch) // recipe.scale.ranks)
    if isinstance(engine, Vllm):
        own = model.parameters * model.bytes + VLLM_BYTES
        # vLLM reads `max_num_batched_tokens` at once, and keeps few of their numbers. Each row of logits has 32-bit copies.
        batch = max(engine.context, 4096) * (8 * model.hidden + 4 * model.intermediate) * model.bytes
        batch += min(leaves, engine.batch) * model.vocabulary * (12 + model.bytes)
        if cuda and engine.device:
            return {"cache": 0, "batch": 0, "apart": own + batch + engine.memory()}
        return {"cache": engine.memory(), "batch": batch, "engine": own, "stays": int(not (cuda and engine.sleep))}
    if not isinstance(engine, Local):
        return {"cache": engine.memory(), "batch": 0}
    sampled = min(leaves * row, max(BATCH_TOKENS, row))
    # The slabs of keys and values grow by a quarter at a time. Each leaf has a row of logits and two 32-bit rows. On the CPU
    # 16-bit weights are packed for sampling.
    batch = 5 * sampled * model.cached * model.bytes // 4
    batch += min(leaves, sampled // row + 1) * model.vocabulary * (8 + model.bytes)
    if model.bytes == 2 and not cuda:
        batch += model.parameters * model.bytes
    return {"cache": engine.memory(), "batch": batch}


def fitted(recipe: Recipe, model: Shape, *, available: tuple[str, int] | None = None) -> Recipe:
    """The recipe with the keys and values that fit beside the learner, where `engine.cache_gb` of vLLM is 0.

    Args:
        recipe: the run's recipe.
        model: the model's shape.
        available: name and bytes of the learner's device; None looks them up. A GPU of the engine's own counts as large.
    """
    engine = recipe.engine
    if not isinstance(engine, Vllm) or engine.cache_gb:
        return recipe
    _, size = available or device_bytes(recipe.weights.device)
    found = need(recipe, model)
    if found.apart:
        left = USABLE * size - found.apart
    else:
        moments = (found.grow, found.update) if found.stays else (found.grow,)
        left = USABLE * size - found.weights - found.optimizer - found.reference - max(moments)
    left /= 1 if recipe.scale.executor == "process" or found.apart else recipe.scale.workers
    return replace(recipe, engine=replace(engine, cache_gb=max(round(left / 2**30 - 0.05, 1), LEAST_GB)))


def _sampled(recipe: Recipe, cells: int, leaves: int) -> int:
    """How many of so many tokens of rows the policy sampled, where a prompt of its own has `leaves` answers at most."""
    horizon, answer = recipe.tree.horizon, recipe.sampling.max_tokens
    if recipe.prompt.context.steps(horizon) == horizon > 1:
        return max(answer, cells // 2)  # a row is an episode, about half of which the agent wrote
    return max(answer, cells * leaves * answer // (recipe.prompt.limit + leaves * answer))


def activation_bytes(model: Shape, tokens: int, weights: Weights, *, autocast: bool = False) -> int:
    """Bytes that the layers keep for the backward pass over this many tokens.

    Args:
        model: the model's shape.
        tokens: tokens of a forward pass.
        weights: says what is trained, and whether layers are computed twice.
        autocast: 32-bit weights compute in the model's own precision, and norms in 32 bits.
    """
    each = model.bytes
    layer = each * (4 * model.intermediate + 8 * model.hidden) + (16 if autocast else 8) * model.hidden
    if weights.lora_rank and each < 4:
        layer += 4 * (6 * model.hidden + model.intermediate)  # every adapter reads its input in 32 bits
    if weights.checkpointing:
        return tokens * (model.layers * model.hidden * each + layer)
    return tokens * model.layers * layer


def tree_bytes(model: Shape, tokens: int, row: int, weights: Weights) -> int:
    """Bytes that attention of a prefix tree keeps besides: copies of keys and values, and masks as marks and as numbers.

    Args:
        model: the model's shape.
        tokens: tokens of the tree.
        row: most tokens from the root to a leaf.
        weights: says whether layers are computed twice.
    """
    layers = 1 if weights.checkpointing else model.layers
    copied = int(tokens * copies(row) * model.cached * model.bytes * layers / model.layers)
    return copied + tokens * min(tokens, row) * (1 + model.bytes)


def _logit_bytes(model: Shape, tokens: int, each: int) -> int:
    """Bytes of the logits of the trained tokens, their gradient, and one 32-bit chunk with the data of its backward pass."""
    cells = tokens * model.vocabulary
    return 2 * each * cells + 4 * 4 * min(cells, LOGIT_CELLS)


def _cold_start(recipe: Recipe, model: Shape, adapted: int, cells: int) -> int:
    """Bytes that the cold start adds to the saved weights. It trains all weights in 32 bits, and computes as saved."""
    settings, row = recipe.cold_start, recipe.prompt.limit + recipe.sampling.max_tokens
    tokens = settings.batch * row if settings.prompt_weight else max(min(cells, settings.batch * row), row)
    completions = tokens if settings.prompt_weight else _sampled(recipe, tokens, 1)
    casts = 0 if model.bytes == 4 or adapted else model.bytes * model.parameters  # autocast's 16-bit copies
    held = 12 * adapted if adapted else 16 * model.parameters - model.bytes * model.parameters + casts
    logits = _logit_bytes(model, completions, model.bytes)
    if settings.prompt_weight:
        logits += 12 * completions * model.vocabulary
    return held + activation_bytes(model, tokens, recipe.weights, autocast=bool(casts)) + logits


def device_bytes(device: str) -> tuple[str, int]:
    """Name and memory of the device that a run takes.

    Raises:
        UsageError: the device is CUDA, and there is none.
    """
    device = device_of(device)
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise UsageError(f'weights.device is "{device}", but there is no CUDA device: use cpu or auto')
        # torch does not annotate the properties of a device.
        memory = cast(int, torch.cuda.get_device_properties(device).total_memory)  # pyright: ignore[reportUnknownMemberType]
        return device, memory
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    bound = Path("/sys/fs/cgroup/memory.max")  # the limit of a container
    if bound.is_file() and (text := bound.read_text().strip()).isdecimal():
        size = min(size, int(text))
    return device, size


def check(recipe: Recipe, model: Shape | None = None, *, available: tuple[str, int] | None = None) -> Need:
    """The memory that a run needs, after a check that the device has it.

    Args:
        recipe: the run's recipe.
        model: the model's shape; None computes the shape.
        available: name and bytes of the device; None looks them up.

    Raises:
        UsageError: the run does not fit; the message names the smallest change with which it fits.
    """
    model = model or shape(recipe)
    required = need(recipe, model)
    device, size = available or device_bytes(recipe.weights.device)
    sharing = 1 if device.startswith("cuda") else recipe.scale.ranks  # a GPU belongs to one rank
    if sharing * required.total <= USABLE * size:
        return required
    head = f"the run needs {sharing * required.total / GB:.1f} GB and {device} has {size / GB:.1f} GB"
    for change, smaller in _smaller(recipe):
        total = sharing * need(smaller, model).total
        if total <= USABLE * size:
            raise UsageError(f"{head}: set {change}, and it needs {total / GB:.1f} GB")
    raise UsageError(
        f"{head}: even with adapters and small batches it does not fit, so use a smaller model or a larger device"
    )


def _smaller(recipe: Recipe) -> Iterator[tuple[str, Recipe]]:
    """Recipes that need less memory, each with the options that lead to it.

    Options that change no results come first, one after the other. Adapters follow, alone and then with those options.
    """
    row = recipe.prompt.limit + recipe.sampling.max_tokens
    cheap: list[tuple[str, Callable[[Recipe], Recipe]]] = []
    if not recipe.weights.checkpointing:
        cheap.append(("--weights.checkpointing", lambda r: replace(r, weights=replace(r.weights, checkpointing=True))))
    if recipe.optimizer.token_budget > row:
        fewer = f"--optimizer.token-budget {row}"
        cheap.append((fewer, lambda r: replace(r, optimizer=replace(r.optimizer, token_budget=row))))
    if isinstance(recipe.engine, Local | Vllm) and recipe.engine.cache_gb > 1:
        engine = replace(recipe.engine, cache_gb=1.0)
        cheap.append(("--engine.cache-gb 1", lambda r: replace(r, engine=engine)))
    starts = [("", recipe)]
    if not recipe.weights.lora_rank:
        starts.append((f"--weights.lora-rank 32{INSTEAD}", replace(recipe, weights=replace(recipe.weights, lora_rank=32))))
    for words, smaller in starts:
        if words:
            yield words, smaller
        for word, change in cheap:
            words, smaller = f"{words} {word}".strip(), change(smaller)
            yield words, smaller
