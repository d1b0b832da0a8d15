# SPDX-License-Identifier: Apache-2.0
"""What is wrong with a dataset before a node commits to it: a walk through all rows that stops at none of them.

Memory stays flat: counts and the first few places of each finding are kept, digests of records go to temporary files
(`flb_node.duplicates`).
"""

import heapq
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from flb.errors import DatasetError
from flb_node.data import Found
from flb_node.duplicates import Duplicates
from flb_node.examples import Example, texts
from flb_node.forms import Unusable
from flb_node.rows import Place

SHOWN = 10
"""Places of each finding that are kept."""
HELD_OUT = 1 << 63
"""Set in the mark of a held-out record; below it stand 23 bits of the file and 40 of the line."""
NO_TEXT = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufffd\ufffe\uffff]")
"""Control characters, and what decoders put where bytes were no text."""

KINDS = {
    "malformed": "cannot be read as records",
    "empty": "have an empty text",
    "not_text": "hold control or replacement characters",
    "too_long": "are longer than the context and would be cut or left out",
    "duplicates": "repeat an earlier record",
    "near_duplicates": "repeat an earlier record up to case and white space",
    "in_held_out": "stand in the held-out data too",
    "near_in_held_out": "stand in the held-out data too up to case and white space",
    "prompt_in_held_out": "have a prompt of the held-out data, with another answer",
}
"""Every finding, with the rest of a sentence about records that begins with their number."""

Length = Callable[[Example], int]
"""Tokens of a whole record; raises DatasetError for one that the chat template refuses."""


@dataclass(slots=True)
class Finding:
    """How many records, and the first places, each with a reason where there is one."""

    count: int = 0
    places: list[str] = field(default_factory=list)

    def add(self, place: Place, why: str = "") -> None:
        """One more."""
        self.count += 1
        if len(self.places) < SHOWN:
            self.places.append(f"{place}{', ' if why else ''}{why}")


@dataclass(slots=True)
class Census:
    """What a walk found: records that can be used, those of the held-out data, and every finding by its kind."""

    records: int = 0
    held_out: int = 0
    findings: dict[str, Finding] = field(default_factory=lambda: {kind: Finding() for kind in KINDS})

    @property
    def clean(self) -> bool:
        """Whether there is a record, and nothing to say about any."""
        return self.records > 0 and not any(finding.count for finding in self.findings.values())


def take(
    train: Iterable[Found], held_out: Iterable[Found] = (), length: Length | None = None, limit: int | None = None
) -> Census:
    """Walk through both datasets once. `limit` is the largest number of tokens that `length` may say."""
    census, files = Census(), dict[tuple[str, str], int]()
    with Duplicates() as records, Duplicates() as prompts:
        for side, found in ((0, train), (HELD_OUT, held_out)):
            for place, what in found:
                if isinstance(what, Unusable):
                    census.findings[what.kind].add(place, what.what)
                    continue
                _one(census, place, what, length, limit)
                if side:
                    census.held_out += 1
                else:
                    census.records += 1
                mark = side | files.setdefault((place.file, place.unit), len(files)) << 40 | place.number
                said = texts(what)
                roles = " ".join([message.role for message in what.messages])
                folded = [" ".join(text.casefold().split()) for text in said]
                normalized = _joined(roles, folded)
                records.add(normalized, _joined(roles, said), mark)
                if what.messages:
                    prompts.add(_joined(roles, folded[: len(what.messages) - 1]), normalized, mark)
        _Repeats(census, [Place(*name, 0) for name in files]).report(records, prompts)
    return census


class _Repeats:
    """Turns groups of marks into findings, with the earliest places of each."""

    def __init__(self, census: Census, files: list[Place]) -> None:
        self._census, self._files = census, files
        self._first: dict[str, list[int]] = {}

    def report(self, records: Duplicates, prompts: Duplicates) -> None:
        """Add what repeats: `records` by their normalized texts, tagged by their bytes; `prompts` tagged by records."""
        for group in records.groups():
            hidden = {tag for tag, mark in group if mark & HELD_OUT}
            seen: set[int] = set()
            for tag, mark in group:
                if mark & HELD_OUT:
                    continue
                if seen:
                    self._add("duplicates" if tag in seen else "near_duplicates", mark)
                if hidden:
                    self._add("in_held_out" if tag in hidden else "near_in_held_out", mark)
                seen.add(tag)
        for group in prompts.groups():
            hidden = {tag for tag, mark in group if mark & HELD_OUT}
            for tag, mark in group:
                if hidden and not mark & HELD_OUT and tag not in hidden:
                    self._add("prompt_in_held_out", mark)
        for kind, first in self._first.items():
            self._census.findings[kind].places = [self._place(-mark) for mark in sorted(first, reverse=True)]

    def _add(self, kind: str, mark: int) -> None:
        self._census.findings[kind].count += 1
        first = self._first.setdefault(kind, [])
        if len(first) < SHOWN:
            heapq.heappush(first, -mark)
        else:
            heapq.heappushpop(first, -mark)

    def _place(self, mark: int) -> str:
        return str(self._files[mark >> 40]._replace(number=mark & (1 << 40) - 1))


def _one(census: Census, place: Place, example: Example, length: Length | None, limit: int | None) -> None:
    """What one record says about itself."""
    if found := next((match for text in texts(example) if (match := NO_TEXT.search(text))), None):
        census.findings["not_text"].add(place, f"has U+{ord(found.group()):04X}")
    if length is None or limit is None:
        return
    try:
        tokens = length(example)
    except DatasetError as error:
        census.findings["malformed"].add(place, error.what)
        return
    if tokens > limit:
        census.findings["too_long"].add(place, f"{tokens} tokens of {limit}")


def _joined(roles: str, parts: Sequence[str]) -> bytes:
    """A key for what a record says; faster than its canonical bytes, and as distinct."""
    return json.dumps([roles, parts]).encode()
