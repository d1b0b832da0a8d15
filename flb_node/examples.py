# SPDX-License-Identifier: Apache-2.0
"""What a node learns from: one record of a dataset, in the form that training knows, and its canonical bytes."""

from dataclasses import dataclass

import rfc8785

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One record: a conversation, a preference, or plain text.

    A conversation has `messages`, of which the last is the assistant's: the completion; all before it is the prompt. A
    preference has `rejected` too, the answer that is worse than the last message. Plain text has `text`, and no
    messages.
    """

    messages: tuple[Message, ...]
    rejected: Message | None = None
    text: str | None = None


def record_bytes(example: Example) -> bytes:
    """The canonical bytes (RFC 8785) of one record, as the dataset commitment hashes them (docs/data.md).

    A conversation is the list of its messages, plain text {"text"}, a preference {"chosen", "prompt", "rejected"} with
    a list of messages each. No record of one form has the bytes of another.
    """
    if example.text is not None:
        return rfc8785.dumps({"text": example.text})
    if example.rejected is not None:
        prompt, chosen = example.messages[:-1], example.messages[-1:]
        return rfc8785.dumps({
            "prompt": _listed(prompt), "chosen": _listed(chosen), "rejected": _listed((example.rejected,)),
        })  # fmt: skip
    return rfc8785.dumps(_listed(example.messages))


def _listed(messages: tuple[Message, ...]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def texts(example: Example) -> tuple[str, ...]:
    """All that a record says, in its order."""
    if example.text is not None:
        return (example.text,)
    rejected = () if example.rejected is None else (example.rejected.content,)
    return tuple(message.content for message in example.messages) + rejected
