# SPDX-License-Identifier: Apache-2.0
"""Tokenized records on disk, so that a second start does not tokenize again.

A file is named by the SHA-256 over everything that decides the tokens: the records, the tokenizer's files, the chat
template, `max_length` and the form. Packing is not in it: it is made from the tokens in milliseconds. A damaged file is
made again; the newest few are kept.
"""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from flb.store import write_atomic
from flb.types import Digest
from flb_node import tokens
from flb_node.examples import Example, record_bytes
from flb_node.tokens import ChatTokenizer, PreferenceTokens, Tokens

VERSION = 1
"""Of the rules of `flb_node.tokens` and of the file: another number makes every file anew."""
HEADER = struct.Struct("<QQQ")
"""Token ids, ends of parts, and rows: how many of each follow; SHA-256 over header and all of them goes before."""
KEPT = 4
"""Files that stay in a folder, the newest first."""
TOKENIZER_FILES = (
    "*token*",
    "vocab*",
    "merges.txt",
    "*.model",
    "chat_template*",
    "*.jinja",
    "*.tiktoken",
    "config.json",
)
"""What transformers builds a tokenizer from; config.json names its class."""


def tokenizer_digest(folder: Path) -> Digest:
    """SHA-256 over names and bytes of the tokenizer's files in a model's folder."""
    hashed = hashlib.sha256(b"flb tokenizer")
    files = {file for pattern in TOKENIZER_FILES for file in folder.glob(pattern) if file.is_file()}
    for file in sorted(files):
        content = hashlib.sha256(file.read_bytes()).digest()
        hashed.update(file.name.encode() + b"\x00" + content)
    return Digest(hashed.digest())


def key(examples: Iterable[Example], tokenizer: Digest, template: object, max_length: int, kind: str) -> str:
    """The name of a file, in hex; `template` is the tokenizer's `chat_template`, `kind` is sft or dpo."""
    hashed = hashlib.sha256(f"flb tokens {VERSION} {kind} {max_length}\x00{template!r}\x00".encode() + tokenizer)
    for example in examples:
        record = record_bytes(example)
        hashed.update(len(record).to_bytes(8, "big") + record)
    return hashed.hexdigest()


def encode_all(
    tokenizer: ChatTokenizer, examples: Sequence[Example], max_length: int, folder: Path, model: Path
) -> list[Tokens]:
    """`flb_node.tokens.encode_all`, from the file in `folder` if there is one. `model` has the tokenizer's files.

    Raises DatasetError if no example fits.
    """
    path = _path(folder, key(examples, tokenizer_digest(model), tokenizer.chat_template, max_length, "sft"))
    if (found := _load(path, 1)) is not None:
        return [Tokens(tuple(ids), start) for (ids,), start in found]
    rows = tokens.encode_all(tokenizer, examples, max_length)
    _save(path, [(row.ids,) for row in rows], [row.start for row in rows])
    return rows


def encode_preferences(
    tokenizer: ChatTokenizer, examples: Sequence[Example], max_length: int, folder: Path, model: Path
) -> list[PreferenceTokens]:
    """`flb_node.tokens.encode_preferences`, from the file in `folder` if there is one. Raises DatasetError."""
    path = _path(folder, key(examples, tokenizer_digest(model), tokenizer.chat_template, max_length, "dpo"))
    if (found := _load(path, 3)) is not None:
        return [PreferenceTokens(*map(tuple, parts)) for parts, _ in found]
    rows = tokens.encode_preferences(tokenizer, examples, max_length)
    _save(path, [(row.prompt, row.chosen, row.rejected) for row in rows], [0] * len(rows))
    return rows


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.tokens"


def _save(path: Path, rows: Sequence[tuple[Sequence[int], ...]], starts: Sequence[int]) -> None:
    """All token ids in one line, where each part ends, and the starts."""
    parts = [part for row in rows for part in row]
    ids = np.fromiter((token for part in parts for token in part), "<i4")
    ends = np.cumsum([len(part) for part in parts], dtype="<i8")
    payload = HEADER.pack(len(ids), len(ends), len(starts)) + ids.tobytes() + ends.tobytes()
    payload += np.array(starts, "<i4").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, hashlib.sha256(payload).digest() + payload)
    files = sorted(path.parent.glob("*.tokens"), key=lambda file: file.stat().st_mtime, reverse=True)
    for old in [file for file in files if file != path][KEPT - 1 :]:
        old.unlink(missing_ok=True)


def _load(path: Path, width: int) -> list[tuple[list[list[int]], int]] | None:
    """The rows of `width` parts each with their starts; None without a file, or with a damaged one."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, payload = content[:32], memoryview(content)[32:]
    if hashlib.sha256(payload).digest() != digest or len(payload) < HEADER.size:
        return None
    id_count, end_count, rows = HEADER.unpack_from(payload)
    at = HEADER.size
    ids = np.frombuffer(payload, "<i4", id_count, at)
    ends = np.frombuffer(payload, "<i8", end_count, at + ids.nbytes)
    starts = np.frombuffer(payload, "<i4", rows, at + ids.nbytes + ends.nbytes)
    values = ids.tolist()
    parts = [values[begin:end] for begin, end in pairwise([0, *ends.tolist()])]
    return [(parts[row * width : (row + 1) * width], start) for row, start in enumerate(starts.tolist())]
