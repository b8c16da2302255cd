"""A tokenizer's own chat template, reduced to what prompts need."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from spark_rl.errors import UsageError
from spark_rl.types import Message

__all__ = ["ChatEncoder", "ChatTokenizer"]


class ChatTokenizer(Protocol):
    """The methods of a `transformers` tokenizer that prompts need; the types that `transformers` declares are wider."""

    @property
    def eos_token_id(self) -> int:
        """Id of the token that ends a turn."""
        ...

    def apply_chat_template(self, conversation: Sequence[Message], /, *, tokenize: bool, add_generation_prompt: bool) -> str:
        """The messages as one text; with `add_generation_prompt`, up to where the assistant starts to answer."""
        ...

    def __call__(self, text: str, /, *, add_special_tokens: bool, verbose: bool) -> Mapping[str, Sequence[int]]:
        """The ids of a text, under `input_ids`."""
        ...

    def decode(self, ids: Sequence[int], /) -> str:
        """The text of ids."""
        ...


@dataclass(frozen=True)
class ChatEncoder:
    """A tokenizer with a chat template, reduced to the three methods that prompts need."""

    tokenizer: ChatTokenizer
    _turn: Callable[[str], tuple[int, ...]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Turns repeat from step to step and tree to tree, so most are in this cache.
        object.__setattr__(self, "_turn", lru_cache(maxsize=65536)(self._encode_turn))

    @property
    def end(self) -> int:
        """Id of the token that ends a turn."""
        return self.tokenizer.eos_token_id

    def conversation(self, messages: Sequence[Message]) -> tuple[int, ...]:
        """Ids of the messages through the chat template, up to where the assistant starts to answer."""
        return self._ids(self._render(messages, generate=True))

    def completion(self, text: str) -> tuple[int, ...]:
        """Ids of a whole answer, with the end of the turn, as a demonstration trains them."""
        return (*self._ids(text), self.end)

    def extend(self, ids: Sequence[int], content: str) -> tuple[int, ...]:
        """Ids of a conversation `ids` (prompt and completion) continued by a user's turn `content`."""
        turn = self._turn(content)
        # A completion that was cut at the token limit lacks the end of its turn; the suffix then provides it.
        return (*ids, *(turn[1:] if ids and ids[-1] == turn[0] else turn))

    def _encode_turn(self, content: str) -> tuple[int, ...]:
        opening: list[Message] = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
        before = self._render(opening, generate=False)
        after = self._render([*opening, {"role": "user", "content": content}], generate=True)
        end = self.tokenizer.decode([self.end])
        answer = before.rfind("b" + end) + 1
        if answer == 0 or not after.startswith(before[:answer]):
            raise UsageError(
                "prompt.context continues a conversation (as Transcript does), but this tokenizer's chat template rewrites "
                "earlier turns or does not close them with its end-of-sequence token; use --prompt.context Window"
            )
        return self._ids(after[answer:])

    def _render(self, messages: Sequence[Message], *, generate: bool) -> str:
        return self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate)

    def _ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
