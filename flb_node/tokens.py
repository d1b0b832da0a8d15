# SPDX-License-Identifier: Apache-2.0
"""From records to token ids: the chat template, and where the completion begins.

The same rule as trl's SFTTrainer for prompt and completion (tests compare them): the whole conversation is rendered
and cut to `max_length` at the end; the loss counts the tokens after the rendered prompt. Plain text has no template:
its tokens, then the end-of-sequence token, all of them learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jinja2 import TemplateError

from flb import base_model
from flb.errors import DatasetError
from flb_node.examples import Example, Message

IGNORED = -100
"""The label of a token that the loss leaves out (torch's `ignore_index`)."""


class ChatTokenizer(Protocol):
    """What is used here of a Hugging Face tokenizer."""

    chat_template: Any
    eos_token_id: Any

    def apply_chat_template(self, conversation: list[dict[str, str]], **options: Any) -> Any: ...

    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Tokens:
    """One tokenized example: the completion is `ids[start:]`, at least one token, and start is at least 1."""

    ids: tuple[int, ...]
    start: int

    @property
    def labels(self) -> tuple[int, ...]:
        """The ids with everything before the completion ignored."""
        return (IGNORED,) * self.start + self.ids[self.start :]


def use_template(tokenizer: ChatTokenizer, file: Path | None) -> None:
    """Let the tokenizer render with the template in `file`; None keeps its own. Raises DatasetError."""
    if file is None:
        return
    try:
        tokenizer.chat_template = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(
            f"the chat template {file} can't be read", "set dataset.chat_template to a Jinja file in UTF-8"
        ) from error


def prompt_ids(tokenizer: ChatTokenizer, messages: Sequence[Message]) -> list[int]:
    """The prompt as the model sees it just before it answers. Raises DatasetError if the template refuses it."""
    return _render(tokenizer, messages, opens_answer=True)


def encode(tokenizer: ChatTokenizer, example: Example, max_length: int) -> Tokens | None:
    """Token ids of at most `max_length`; None if the prompt alone fills them, since nothing is left to learn. Of a
    preference it is the better conversation.

    Raises DatasetError if the chat template refuses the conversation.
    """
    start, whole = _whole(tokenizer, example)
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


def length(tokenizer: ChatTokenizer, example: Example) -> tuple[int, int]:
    """Tokens of the prompt, and of the whole record before it is cut; of a preference the longer conversation.

    Raises DatasetError if the chat template refuses the conversation.
    """
    start, whole = _whole(tokenizer, example)
    if example.rejected is None:
        return start, len(whole)
    worse = _render(tokenizer, (*example.messages[:-1], example.rejected), opens_answer=False)
    return start, max(len(whole), len(worse))


def context(model: Path) -> int:
    """Tokens that the model in a folder can see at once, by its config.json; 2^63 where that does not say.

    Raises WrongBaseModel for a damaged one.
    """
    config = base_model.configuration(model)
    parts = (config, config.get("text_config"))
    sizes = (part.get("max_position_embeddings") for part in parts if isinstance(part, dict))
    found = next(filter(None, sizes), None)
    return found if type(found) is int and found > 0 else 2**63


def check_context(model: Path, max_length: int) -> None:
    """Raise DatasetError if the run's records may be longer than what the model can see."""
    if max_length > (limit := context(model)):
        raise DatasetError(
            f"the run cuts records at {max_length} tokens, but the base model in {model} sees {limit} at most",
            f"the operator sets training.max_length to {limit} or less",
        )


def _whole(tokenizer: ChatTokenizer, example: Example) -> tuple[int, list[int]]:
    """Where the completion begins, and all token ids of a record."""
    if example.text is not None:
        ids = [int(token) for token in tokenizer.encode(example.text)]
        if tokenizer.eos_token_id is not None and ids[-1:] != [tokenizer.eos_token_id]:
            ids.append(int(tokenizer.eos_token_id))
        return 1, ids
    prompt = prompt_ids(tokenizer, example.messages[:-1])
    whole = _render(tokenizer, example.messages, opens_answer=False)
    # Some templates render a prompt alone in another way than inside a conversation: the completion begins where the
    # two renderings part.
    return max(min(_shared(prompt, whole), len(whole)), 1), whole


def _shared(prompt: Sequence[int], whole: Sequence[int]) -> int:
    """How many tokens both begin with."""
    parted = (i for i, pair in enumerate(zip(prompt, whole, strict=False)) if pair[0] != pair[1])
    return next(parted, min(len(prompt), len(whole)))


def _render(tokenizer: ChatTokenizer, messages: Sequence[Message], *, opens_answer: bool) -> list[int]:
    if not tokenizer.chat_template:
        raise DatasetError(
            "the base model has no chat template, which conversations need",
            "set dataset.chat_template to a Jinja file, choose an instruction-tuned model, or train on plain text",
        )
    conversation = [{"role": message.role, "content": message.content} for message in messages]
    try:
        ids = tokenizer.apply_chat_template(
            conversation, tokenize=True, add_generation_prompt=opens_answer, return_dict=False
        )
    except TemplateError as error:
        raise DatasetError(
            f"the chat template refuses a conversation ({error})",
            "keep to the roles and the order that the model knows",
        ) from error
    return [int(token) for token in ids]
