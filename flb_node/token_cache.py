# SPDX-License-Identifier: Apache-2.0
"""Tokenized records on disk, so that a second start does not tokenize again.

A file is named by the SHA-256 over everything that decides the tokens: the records, the tokenizer's files, the chat
template, `max_length` and the form. Packing is not in it: it is made from the tokens in milliseconds. A damaged file is
made again; the newest few are kept.
"""

import hashlib
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from flb.store import digest_of_file, write_atomic
from flb.types import Digest
from flb_node import preference_tokens, tokens
from flb_node.examples import Example, record_bytes
from flb_node.tokens import ChatTokenizer, Tokens

Row = tuple[Sequence[int], ...]
VERSION = 1
"""Of the rules of `flb_node.tokens` and of the file: another number makes every file anew."""
HEADER = struct.Struct("<QQQ")
"""How many integers and ends of lists follow, and of how many rows; SHA-256 over all of it goes before."""
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
        hashed.update(file.name.encode() + b"\x00" + digest_of_file(file))
    return Digest(hashed.digest())


def key(examples: Iterable[Example], tokenizer: Digest, template: object, max_length: int, kind: str) -> str:
    """The name of a file, in hex; `template` is the tokenizer's `chat_template`, `kind` is sft or dpo."""
    hashed = hashlib.sha256(f"flb tokens {VERSION} {kind} {max_length}\x00{template!r}\x00".encode() + tokenizer)
    for example in examples:
        record = record_bytes(example)
        hashed.update(len(record).to_bytes(8, "big") + record)
    return hashed.hexdigest()


@dataclass(frozen=True, slots=True)
class TokenCache:
    """Where tokens are kept, and the digest of the tokenizer's files that make them."""

    folder: Path
    tokenizer: Digest

    def encode_all(self, tokenizer: ChatTokenizer, examples: Sequence[Example], max_length: int) -> list[Tokens]:
        """`flb_node.tokens.encode_all`, from a file if there is one. Raises DatasetError if no example fits."""

        def make() -> list[Row]:
            return [(row.ids, (row.start,)) for row in tokens.encode_all(tokenizer, examples, max_length)]

        rows = self.rows(examples, tokenizer.chat_template, max_length, "sft", make)
        return [Tokens(tuple(ids), start) for ids, (start,) in rows]

    def encode_pairs(
        self, tokenizer: ChatTokenizer, examples: Sequence[Example], max_length: int
    ) -> list[preference_tokens.Row]:
        """The same for `flb_node.preference_tokens.encode_all`."""

        def make() -> list[Row]:
            pairs = preference_tokens.encode_all(tokenizer, examples, max_length)
            return [tuple(pair[name] for name in preference_tokens.COLUMNS) for pair in pairs]

        rows = self.rows(examples, tokenizer.chat_template, max_length, "dpo", make)
        return [dict(zip(preference_tokens.COLUMNS, map(list, row), strict=True)) for row in rows]

    def rows(
        self, examples: Sequence[Example], template: object, max_length: int, kind: str, make: Callable[[], list[Row]]
    ) -> list[Row]:
        """What `make` returned at the first call with the same arguments: rows of equally many lists of integers."""
        path = self.folder / f"{key(examples, self.tokenizer, template, max_length, kind)}.tokens"
        found = _load(path)
        if found is None:
            found = make()
            _save(path, found)
        return found


def _save(path: Path, rows: Sequence[Row]) -> None:
    """All integers in one line, and where each list ends."""
    lists = [part for row in rows for part in row]
    values = np.fromiter((value for part in lists for value in part), "<i4")
    ends = np.cumsum([len(part) for part in lists], dtype="<i8")
    payload = HEADER.pack(len(values), len(lists), len(rows)) + values.tobytes() + ends.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, hashlib.sha256(payload).digest() + payload)
    files = sorted(path.parent.glob("*.tokens"), key=lambda file: file.stat().st_mtime, reverse=True)
    for old in [file for file in files if file != path][KEPT - 1 :]:
        old.unlink(missing_ok=True)


def _load(path: Path) -> list[Row] | None:
    """The rows; None without a file, or with a damaged one."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, payload = content[:32], memoryview(content)[32:]
    if len(payload) < HEADER.size or hashlib.sha256(payload).digest() != digest:
        return None
    count, lists, rows = HEADER.unpack_from(payload)
    values = np.frombuffer(payload, "<i4", count, HEADER.size)
    ends = np.frombuffer(payload, "<i8", lists, HEADER.size + values.nbytes)
    numbers = values.tolist()
    parts = [numbers[begin:end] for begin, end in pairwise([0, *ends.tolist()])]
    width = lists // max(rows, 1)
    return [tuple(parts[at : at + width]) for at in range(0, lists, width)]
