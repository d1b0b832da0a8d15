# SPDX-License-Identifier: Apache-2.0
"""The items of a JSON list in a file, one at a time: the json module alone would hold the whole file in memory."""

import codecs
import json
from collections.abc import Callable, Iterator
from pathlib import Path

CHUNK = 1 << 20
"""Bytes read at once; an item that is longer makes the next read twice as long."""
LARGEST = 1 << 28
"""Characters of one item at most; a list that is never closed is found before it fills the memory."""
SPACE = " \t\r\n"


def items(file: Path, on_bytes: Callable[[int], None], chunk: int = CHUNK) -> Iterator[object]:
    """The items of the list that is the whole of `file`; `on_bytes` hears how many bytes were read.

    Raises ValueError for text that is no JSON list (UnicodeDecodeError, which is one, for bytes that are no UTF-8) and
    RecursionError for one that is nested too deeply.
    """
    decoder, utf8 = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8-sig")()
    with file.open("rb") as opened:
        text, at, ended, step = "", 0, False, chunk

        def more() -> None:
            nonlocal text, at, ended, step
            if len(text) - at > LARGEST:
                raise ValueError("an item is too long")
            read = opened.read(step)
            on_bytes(len(read))
            ended = not read
            text, at = text[at:] + utf8.decode(read, final=ended), 0

        def sign() -> str:
            nonlocal at
            while True:
                while at < len(text) and text[at] in SPACE:
                    at += 1
                if at < len(text) or ended:
                    return text[at : at + 1]
                more()

        if sign() != "[":
            raise ValueError("it is no list")
        at += 1
        if sign() == "]":
            at += 1
        else:
            while True:
                sign()
                while True:
                    try:
                        value, end = decoder.raw_decode(text, at)
                    except ValueError:
                        if ended:
                            raise
                        step *= 2
                    else:
                        goes_on = type(value) in (int, float) and text[end : end + 1] not in (*SPACE, ",", "]")
                        if ended or (end < len(text) and not goes_on):
                            break
                    more()
                at, step = end, chunk
                yield value
                follows = sign()
                at += 1
                if follows == "]":
                    break
                if follows != ",":
                    raise ValueError("a comma is missing")
        if sign():
            raise ValueError("text follows the list")
