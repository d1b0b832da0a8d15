# SPDX-License-Identifier: Apache-2.0
"""Local datasets for fine-tuning: JSON lines in, conversations out; nothing here needs torch.

A dataset is a .jsonl file, or a folder of them (taken by name). A line is {"messages": [{"role", "content"}, ...]},
whose last message is the assistant's and is what the model learns, or {"prompt": str, "completion": str}; other fields
are ignored. Every problem is a DatasetError that names file and line: one bad line stops the node, since a dataset
that is silently shorter than its commitment would be worse.
"""

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import rfc8785

from flb.errors import DatasetError

ROLES = ("system", "user", "assistant")
FORM = 'write {"prompt": "...", "completion": "..."} or {"messages": [...]}'


@dataclass(frozen=True, slots=True)
class Message:
    """One turn: `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation. The last message is the assistant's: the completion; all before it is the prompt."""

    messages: tuple[Message, ...]


def record_bytes(example: Example) -> bytes:
    """The canonical bytes (RFC 8785) of one record, as the dataset commitment hashes them: the list of messages."""
    return rfc8785.dumps([{"role": message.role, "content": message.content} for message in example.messages])


def read(path: Path) -> tuple[Example, ...]:
    """All examples of a .jsonl file, or of the .jsonl files of a folder in the order of their names.

    Raises DatasetError: missing, not .jsonl, unreadable, without an example, or with a malformed line.
    """
    examples = tuple(example for file in _files(path) for example in _examples(file))
    if not examples:
        raise DatasetError(f"{path} holds no example", FORM)
    return examples


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise DatasetError(
            f"the dataset {path} does not exist", "set dataset_name to a .jsonl file or a folder of them"
        )
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix == ".jsonl" and file.is_file())
        if not files:
            raise DatasetError(
                f"the folder {path} holds no .jsonl file", "put the dataset there, one JSON object a line"
            )
        return files
    if path.suffix != ".jsonl":
        raise DatasetError(f"the dataset {path} is not a .jsonl file", "convert it to JSON lines, one object a line")
    return [path]


def _examples(file: Path) -> Iterator[Example]:
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                # Editors on Windows begin a file with a byte order mark, which JSON forbids.
                text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                if text.strip():
                    yield _example(text, f"{file}, line {number}")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DatasetError(f"the dataset {file} can't be read ({reason})", "check its owner and permissions") from error


def _example(line: bytes, where: str) -> Example:
    try:
        value = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DatasetError(f"{where}, is not UTF-8", "save the file in UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{where}, is not JSON", FORM) from error
    if not isinstance(value, dict):
        raise DatasetError(f"{where}, is not a JSON object", FORM)
    if "messages" in value:
        return Example(_messages(value["messages"], where))
    for field in ("prompt", "completion"):
        if field not in value:
            raise DatasetError(f"{where}, has no field {field!r}", FORM)
    prompt, completion = (_text(value[field], f"field {field!r}", where) for field in ("prompt", "completion"))
    return Example((Message("user", prompt), Message("assistant", completion)))


def _messages(value: object, where: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or len(value) < 2:
        raise DatasetError(f"{where}, 'messages' is not a list of at least two messages", FORM)
    messages = []
    for index, item in enumerate(value, start=1):
        if not isinstance(item, dict):
            raise DatasetError(f"{where}, message {index} is not an object", 'write {"role": "...", "content": "..."}')
        for field in ("role", "content"):
            if field not in item:
                raise DatasetError(f"{where}, message {index} has no field {field!r}", "add it")
        if item["role"] not in ROLES:
            raise DatasetError(f"{where}, message {index} has an unknown role", f"choose one of {', '.join(ROLES)}")
        messages.append(Message(item["role"], _text(item["content"], f"the content of message {index}", where)))
    if messages[-1].role != "assistant":
        raise DatasetError(f"{where}, the last message is not the assistant's", "end with what the model should say")
    return tuple(messages)


def _text(value: object, what: str, where: str) -> str:
    if not isinstance(value, str):
        raise DatasetError(f"{where}, {what} is not a string", FORM)
    if not value.strip():
        raise DatasetError(f"{where}, {what} is empty", "fill it in or remove the line")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair, which no encoding can write.
        raise DatasetError(f"{where}, {what} is not valid Unicode", "repair or remove the line") from error
    return value
