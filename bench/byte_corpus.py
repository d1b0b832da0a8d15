# SPDX-License-Identifier: Apache-2.0
"""Text of four kinds for the byte model: Python, C headers, package metadata with licences, HTML with JSON.

The files are those of installed packages that constraints.txt pins, each with its SHA-256 in byte_corpus.json. A file
that is missing or different is refused: figures from another corpus could not be compared.

    python -m bench.byte_corpus    # prints the bytes of each kind
"""

import hashlib
import json
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flb.errors import DatasetError

LISTING = Path(__file__).with_name("byte_corpus.json")
BLOCK = 2048
MOST = 32 << 10
"""Bytes of one file that count, so that no file is most of its kind."""
PUBLIC, HELD_OUT, PERIOD = (1, 5), (7,), 8
"""Of eight blocks in a row two are public, one is held out, and five are the node's own."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Text:
    """One kind of text in blocks of `BLOCK` bytes, uint8: what the base model learned from, what a node has, and what
    nobody trains on."""

    public: Bytes
    own: Bytes
    held_out: Bytes


def read(folder: Path | None = None) -> dict[str, Text]:
    """Every kind by name, each of the same number of blocks. `folder` holds the packages (default: this Python's).

    Raises DatasetError for a file that is not there, or not the one that was listed.
    """
    root = folder or Path(sysconfig.get_path("purelib"))
    listing: dict[str, dict[str, str]] = json.loads(LISTING.read_text())
    whole = {kind: _blocks([_checked(root / name, digest) for name, digest in files.items()])
             for kind, files in listing.items()}  # fmt: skip
    count = min(map(len, whole.values())) // PERIOD * PERIOD
    return {kind: _parted(blocks[:count]) for kind, blocks in whole.items()}


def _checked(path: Path, digest: str) -> bytes:
    remedy = "install the versions that constraints.txt pins: make setup"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"the corpus file {path} can't be read", remedy) from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise DatasetError(f"the corpus file {path} is another one than was listed", remedy)
    return content


def _blocks(contents: list[bytes]) -> Bytes:
    """Whole blocks of each file, the files in turn, so that a cut at the end cuts all of them."""
    cut = [np.frombuffer(content[: min(len(content), MOST) // BLOCK * BLOCK], np.uint8).reshape(-1, BLOCK)
           for content in contents]  # fmt: skip
    order = sorted((place / len(blocks), number, place) for number, blocks in enumerate(cut)
                   for place in range(len(blocks)))  # fmt: skip
    return np.stack([cut[number][place] for _, number, place in order])


def _parted(blocks: Bytes) -> Text:
    place = np.arange(len(blocks)) % PERIOD
    public, held_out = np.isin(place, PUBLIC), np.isin(place, HELD_OUT)
    return Text(blocks[public], blocks[~public & ~held_out], blocks[held_out])


if __name__ == "__main__":
    for kind, text in read().items():
        print(kind, {part: getattr(text, part).size for part in Text.__slots__})
