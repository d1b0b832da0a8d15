# SPDX-License-Identifier: Apache-2.0
"""From conversations to token ids: the chat template, and where the completion begins.

The same rule as trl's SFTTrainer for prompt and completion (tests compare them): the whole conversation is rendered
and cut to `max_length` at the end; the loss counts the tokens after the rendered prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jinja2 import TemplateError

from flb.errors import DatasetError
from flb_node.data import Example, Message

IGNORED = -100
"""The label of a token that the loss leaves out (torch's `ignore_index`)."""


class ChatTokenizer(Protocol):
    """The one method of a Hugging Face tokenizer that is used here."""

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Tokens:
    """One tokenized example: the completion is `ids[start:]`, at least one token, and start is at least 1."""

    ids: tuple[int, ...]
    start: int

    @property
    def labels(self) -> tuple[int, ...]:
        """The ids with everything before the completion ignored."""
        return (IGNORED,) * self.start + self.ids[self.start :]


def prompt_ids(tokenizer: ChatTokenizer, messages: Sequence[Message]) -> list[int]:
    """The prompt as the model sees it just before it answers. Raises DatasetError if the template refuses it."""
    return _render(tokenizer, messages, opens_answer=True)


def encode(tokenizer: ChatTokenizer, example: Example, max_length: int) -> Tokens | None:
    """Token ids of at most `max_length`; None if the prompt alone fills them, since nothing is left to learn.

    Raises DatasetError if the chat template refuses the conversation.
    """
    prompt = prompt_ids(tokenizer, example.messages[:-1])
    whole = _render(tokenizer, example.messages, opens_answer=False)
    # Some templates render a prompt alone in another way than inside a conversation: the completion begins where the
    # two renderings part.
    start = next((i for i, pair in enumerate(zip(prompt, whole, strict=False)) if pair[0] != pair[1]), len(prompt))
    start = max(min(start, len(whole)), 1)
    return Tokens(tuple(whole[:max_length]), start) if start < min(len(whole), max_length) else None


def encode_all(tokenizer: ChatTokenizer, examples: Sequence[Example], max_length: int) -> list[Tokens]:
    """All examples that fit, in their order. Raises DatasetError if none does."""
    encoded = [encode(tokenizer, example, max_length) for example in examples]
    found = [tokens for tokens in encoded if tokens is not None]
    if not found:
        raise DatasetError(
            f"each of the {len(examples)} examples has a prompt of {max_length} tokens or more",
            "shorten the prompts, or join a run with a larger training.max_length",
        )
    return found


def _render(tokenizer: ChatTokenizer, messages: Sequence[Message], *, opens_answer: bool) -> list[int]:
    conversation = [{"role": message.role, "content": message.content} for message in messages]
    try:
        ids = tokenizer.apply_chat_template(
            conversation, tokenize=True, add_generation_prompt=opens_answer, return_dict=False
        )
    except TemplateError as error:
        raise DatasetError(
            f"the base model's chat template refuses a conversation ({error})",
            "keep to the roles and the order that the model knows",
        ) from error
    return [int(token) for token in ids]
