"""The paper's settings in vLLM: Qwen2.5's shapes, cut to two layers, with random weights."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from spark_rl.contracts import ModelSource
from spark_rl.engines.vllm.settings import Vllm
from spark_rl.recipes import load_recipe
from spark_rl.types import Completion, Observation, Request, Task

pytest.importorskip("vllm", reason="vLLM needs an environment of its own: make vllm && make test-vllm")
pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]

SHAPES: dict[str, dict[str, Any]] = {
    "1-5b": {"hidden_size": 1536, "intermediate_size": 8960, "num_attention_heads": 12, "num_key_value_heads": 2},
    "7b": {"hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28, "num_key_value_heads": 4},
}
VOCABULARY = 151_936


class Numbers:
    """A tokenizer reduced to what the engine asks of it."""

    eos_token_id, pad_token_id, chat_template = 151_645, 151_643, ""

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        return " ".join(map(str, ids))

    def __len__(self) -> int:
        return VOCABULARY

    def save_pretrained(self, save_directory: object) -> None: ...


@pytest.mark.parametrize(
    ("recipe", "temperature"),
    [("alfworld-qwen-1-5b", 0.4), ("scienceworld-qwen-1-5b", 1.0), ("webshop-qwen-1-5b", 0.4), ("webshop-qwen-7b", 1.0)],
)
def test_a_recipe_of_the_paper_samples(recipe: str, temperature: float) -> None:
    settings = load_recipe(recipe)
    torch.manual_seed(0)
    config = Qwen2Config(
        **SHAPES[recipe.partition("qwen-")[2]], vocab_size=VOCABULARY, num_hidden_layers=2, max_position_embeddings=32_768,
        tie_word_embeddings=recipe.endswith("1-5b"), eos_token_id=151_645, bos_token_id=None, dtype="bfloat16",
    )  # fmt: skip
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    engine = replace(cast(Vllm, settings.engine), cache_gb=0.5)
    limit = settings.prompt.limit
    asked = [
        Request(
            Task("none", f"none/{n}", "nothing"), (), Observation(""), seeds=(n, n + 10), temperature=temperature,
            prompt=tuple((7 * n + 13 * i) % VOCABULARY for i in range(limit)), max_tokens=4,
        )
        for n in range(2)
    ]  # fmt: skip

    async def run() -> list[list[Completion]]:
        async with engine.open(ModelSource(loaded=(model, cast(Any, Numbers())))) as opened:
            return await opened.sample(asked)

    for request, answers in zip(asked, asyncio.run(run()), strict=True):
        for answer in answers:
            ids = torch.tensor([[*(request.prompt or ()), *(answer.ids or ())]])
            with torch.no_grad():
                logits = model(input_ids=ids, logits_to_keep=len(answer.ids or ()) + 1).logits[0, :-1].float()
            own = (logits / temperature).log_softmax(-1).gather(1, ids[0, limit:, None])[:, 0]
            assert float((own - torch.tensor(answer.logprobs)).abs().max()) < 0.2
