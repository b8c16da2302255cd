"""The learnt tokenizer, the model from scratch, and the files of both."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from spark_rl.errors import StorageError, UsageError
from spark_rl.models.load import load_model, load_tokenizer, save_pretrained_atomically
from spark_rl.models.new import new_model
from spark_rl.models.scratch import ScratchModel
from spark_rl.models.tokenizer import learn_tokenizer

PLACES = ["fridge 1", "cabinet 1", "cabinet 2", "shelf 1"]
TEXTS = [
    text
    for place in PLACES
    for thing in ("egg 1", "mug 1", "mug 2")
    for text in (
        f"You are at {place}. On it you see an {thing}.",
        f"<think>I need it, so I take it.</think><action>take {thing} from {place}</action>",
    )
]
TOKENIZER: Any = learn_tokenizer(TEXTS, vocabulary=400, min_count=3)
SMALL = ScratchModel(hidden=16, layers=1, heads=2, kv_heads=1, intermediate=32, context=64)
TAGS = ["<explore>", "</explore>", "<think>", "</think>", "<action>", "</action>"]
CONTROL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]


def encode(text: str, tokenizer: Any = TOKENIZER) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def pieces(text: str, tokenizer: Any = TOKENIZER) -> list[str]:
    return [tokenizer.decode([i]) for i in encode(text, tokenizer)]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "fresh"
    save_pretrained_atomically(new_model(TOKENIZER, SMALL, seed=3), TOKENIZER, folder)
    return folder


@given(st.text() | st.lists(st.sampled_from([*TEXTS, *TAGS, *CONTROL, " ", "\n", "  fridge 12", "É", "\r\n"])).map("".join))
def test_decoding_gives_back_any_text(text: str) -> None:
    assert TOKENIZER.decode(encode(text), clean_up_tokenization_spaces=False) == text


@given(st.lists(st.sampled_from([*TEXTS, " egg", "1", "You ", "\n", " ", "x"]), min_size=2), st.data())
def test_joining_at_a_tag_or_control_token_joins_the_ids(texts: list[str], data: st.DataObject) -> None:
    expected: list[int] = []
    for i, text in enumerate(texts):
        texts[i] = data.draw(st.sampled_from(TAGS + CONTROL)) + text
        expected += encode(texts[i])
    assert encode("".join(texts)) == expected


def test_names_and_phrases_are_tokens_and_the_rest_falls_back_to_words_and_bytes() -> None:
    assert pieces("You are at fridge 1. On it you see an mug 2.") == [
        "You are at ", "fridge", " 1", ". On it you see an ", "mug", " 2", ".",
    ]  # fmt: skip
    assert pieces("<think>I need it, so I take it.</think><action>take egg 1 from shelf 1</action>") == [
        "<think>", "I need it, so I take it.", "</think>", "<action>", "take ", "egg", " 1", " from ", "shelf", " 1",
        "</action>",
    ]  # fmt: skip
    assert pieces("You take mug 3 at shelf") == ["You ", "take ", "mug", " ", "3", " ", "at ", "shelf"]
    assert pieces("ox") == ["o", "x"]


def test_tags_are_text_and_control_tokens_are_not() -> None:
    ids = encode("<explore>a</explore><|im_end|>")
    assert len(ids) == 4
    assert TOKENIZER.decode(ids, skip_special_tokens=True) == "<explore>a</explore>"
    assert (TOKENIZER.eos_token, TOKENIZER.pad_token) == ("<|im_end|>", "<|endoftext|>")


def test_the_chat_template_is_chatml_without_a_default_system_turn() -> None:
    messages = [{"role": "user", "content": "You are at fridge 1"}, {"role": "assistant", "content": "<think>"}]
    text = TOKENIZER.apply_chat_template(messages, tokenize=False)
    assert text == "<|im_start|>user\nYou are at fridge 1<|im_end|>\n<|im_start|>assistant\n<think><|im_end|>\n"
    asked = TOKENIZER.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert pieces(str(asked)) == [
        "<|im_start|>", "user\n", "You are at ", "fridge", " 1", "<|im_end|>", "\n", "<|im_start|>", "assistant\n",
    ]  # fmt: skip


def test_the_vocabulary_is_bounded() -> None:
    assert len(TOKENIZER) <= 400
    assert len(learn_tokenizer(TEXTS, vocabulary=275, min_count=1)) == 275
    assert len(learn_tokenizer([], vocabulary=400)) == 256 + 3 + 6 + 3
    with pytest.raises(UsageError, match=r"model.vocabulary is 200: .* alone need 268"):
        learn_tokenizer(TEXTS, vocabulary=200)


def test_a_new_model_depends_on_its_seed_alone() -> None:
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = new_model(TOKENIZER, SMALL, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    second, third = new_model(TOKENIZER, SMALL, seed=3), new_model(TOKENIZER, SMALL, seed=4)
    weights = [model.state_dict()["model.layers.0.mlp.up_proj.weight"] for model in (first, second, third)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert first.config.vocab_size == len(TOKENIZER)
    assert first.generation_config
    assert first.generation_config.eos_token_id == [TOKENIZER.eos_token_id, TOKENIZER.pad_token_id]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"layers": 0}, r"model.layers is 0: it must be at least 1"),
        ({"hidden": 100}, r"model.hidden is 100: it must be a multiple of twice model.heads \(4\)"),
        ({"kv_heads": 3}, r"model.heads is 4: it must be a multiple of model.kv_heads \(3\)"),
    ],
)
def test_impossible_sizes_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ScratchModel(**settings)


def test_saved_models_load_with_transformers_alone(saved: Path) -> None:
    """In a process that knows nothing of this package."""
    script = (
        "import sys, torch; from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "ids = tokenizer.apply_chat_template([{'role': 'user', 'content': 'You are at fridge 1'}],"
        " add_generation_prompt=True, return_tensors='pt', return_dict=True)\n"
        "print(type(model).__name__, ids['input_ids'][0].tolist(), model(**ids).logits.sum().item())\n"
        "assert not any(name.startswith('spark_rl') for name in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(saved)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    text = TOKENIZER.apply_chat_template(
        [{"role": "user", "content": "You are at fridge 1"}], tokenize=False, add_generation_prompt=True
    )
    ids = encode(str(text))
    with torch.no_grad():
        total = new_model(TOKENIZER, SMALL, seed=3)(torch.tensor([ids])).logits.sum().item()
    name, *rest = done.stdout.split(" ", 1)
    assert name == "Qwen2ForCausalLM"
    assert json.loads(rest[0][: rest[0].index("]") + 1]) == ids
    assert float(rest[0].rsplit(" ", 1)[1]) == pytest.approx(total, abs=1e-4)


def test_what_is_loaded_is_what_was_saved(saved: Path) -> None:
    model, tokenizer = load_model(saved, device="cpu"), load_tokenizer(saved)
    for name, weight in new_model(TOKENIZER, SMALL, seed=3).state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    assert not model.training
    assert model.dtype == torch.float32
    assert len(tokenizer) == len(TOKENIZER)
    assert tokenizer.chat_template == TOKENIZER.chat_template
    for text in [*TEXTS, " É \n<think>"]:
        assert encode(text, tokenizer) == encode(text)
    assert (saved / "model.safetensors").is_file()
    assert load_model(str(saved), dtype="bfloat16").dtype == torch.bfloat16


def test_saving_again_replaces_and_a_full_disk_leaves_what_was_there(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    save_pretrained_atomically(new_model(TOKENIZER, SMALL, seed=1), TOKENIZER, folder)
    model = new_model(TOKENIZER, SMALL, seed=2)
    save_pretrained_atomically(model, TOKENIZER, folder)
    before = (folder / "model.safetensors").read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", full)
    with pytest.raises(StorageError, match="No space left on device"):
        save_pretrained_atomically(new_model(TOKENIZER, SMALL, seed=3), TOKENIZER, folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_is_no_model_is_a_sentence(saved: Path, tmp_path: Path) -> None:
    for load in (load_model, load_tokenizer):
        for name in (tmp_path / "nowhere", str(tmp_path / "nowhere"), "./nowhere", "runs/x/model"):
            with pytest.raises(UsageError, match="does not exist; give a model directory or a hub name"):
                load(name)
        with pytest.raises(UsageError, match=r"is a directory without config\.json"):
            load(tmp_path)
    bare = tmp_path / "bare"
    new_model(TOKENIZER, SMALL, seed=0).save_pretrained(bare)
    with pytest.raises(UsageError, match="has no tokenizer that can be loaded"):
        load_tokenizer(bare)
    silent = tmp_path / "silent"
    tokenizer: Any = load_tokenizer(saved)
    tokenizer.chat_template = None
    new_model(tokenizer, SMALL, seed=0).save_pretrained(silent)
    tokenizer.save_pretrained(silent)
    with pytest.raises(UsageError, match="has no chat template"):
        load_tokenizer(silent)
    (silent / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(UsageError, match="cannot be loaded as a causal language model"):
        load_model(silent)
    with pytest.raises(UsageError, match='device "nonsense" cannot hold'):
        load_model(saved, device="nonsense")
    with pytest.raises(UsageError, match="cannot be loaded as a causal language model"):
        load_model("no-such-organisation/no-such-model")  # tests run offline
