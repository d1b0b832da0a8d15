# SPDX-License-Identifier: Apache-2.0
"""The demo's text: the English conversations of the PyPI package chatterbot-corpus, split over nodes by topic.

Topics differ in subject and style, so the split is non-IID by nature. The corpus repeats itself (one file holds ten
pairs a hundred times over), so a question is kept once, with its first answer, and a held-out question occurs in no
training file, neither as a question nor as an answer.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import pairwise
from pathlib import Path

import yaml

from flb.errors import MissingTool, Refused
from flb.partition import by_column
from flb.store import write_atomic

PACKAGE = "chatterbot-corpus"
REMEDY = "run: pip install chatterbot-corpus==1.3.3"
FOLDER = "chatterbot_corpus/data/english"
HELD_OUT = "held-out.jsonl"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two consecutive turns of a conversation."""

    topic: str
    prompt: str
    completion: str


@dataclass(frozen=True, slots=True)
class Part:
    """What one node gets."""

    topics: tuple[str, ...]
    pairs: tuple[Pair, ...]


@dataclass(frozen=True, slots=True)
class Split:
    """The whole text: one part a node, and the pairs that none of them sees."""

    parts: tuple[Part, ...]
    held_out: tuple[Pair, ...]


def write(folder: Path, nodes: int) -> Split:
    """Write node-1.jsonl to node-N.jsonl and held-out.jsonl; the same bytes each time.

    Raises MissingTool without the package, Refused if there are more nodes than topics.
    """
    parted = split(one_answer(pairs()), nodes)
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(parted.parts, start=1):
        write_atomic(folder / f"node-{number}.jsonl", _lines(part.pairs))
    write_atomic(folder / HELD_OUT, _lines(parted.held_out))
    return parted


def pairs(package: str = PACKAGE) -> list[Pair]:
    """All consecutive turns, file by file in the order of names; malformed conversations are left out.

    The files are found through the package's metadata; the package itself is not imported.
    """
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError as error:
        raise MissingTool(f"the package {package}, which holds the demo's text, is not installed", REMEDY) from error
    sources = sorted((file for file in files if str(file.parent) == FOLDER and file.suffix == ".yml"), key=str)
    if not sources:
        raise MissingTool(f"the package {package} holds no English conversations", REMEDY)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml is ten times faster, where it was built in
    found = []
    for source in sources:
        content = yaml.load(Path(str(source.locate())).read_text(encoding="utf-8"), loader)  # noqa: S506  (a safe one)
        for conversation in content["conversations"]:
            if isinstance(conversation, list) and all(isinstance(turn, str) and turn.strip() for turn in conversation):
                turns = [turn.strip() for turn in conversation]
                found += [Pair(source.stem, *two) for two in pairwise(turns)]
    return found


def normalized(text: str) -> str:
    """Letters and digits alone, case folded: what makes two questions the same one."""
    return "".join(char for char in text.casefold() if char.isalnum())


def one_answer(found: Iterable[Pair]) -> list[Pair]:
    """The first pair of each question."""
    first: dict[str, Pair] = {}
    for pair in found:
        if key := normalized(pair.prompt):
            first.setdefault(key, pair)
    return list(first.values())


def split(found: Sequence[Pair], nodes: int) -> Split:
    """Hold out a tenth of each topic, then give whole topics to nodes, the largest first to the least laden.

    Which questions are held out is decided by their SHA-256, among those that are nobody's answer.
    """
    topics: dict[str, list[Pair]] = {}
    for pair in found:
        topics.setdefault(pair.topic, []).append(pair)
    if not 1 <= nodes <= len(topics):
        raise Refused(f"the demo's text has {len(topics)} topics, too few for {nodes} nodes", "choose fewer nodes")
    answers = {normalized(pair.completion) for pair in found}
    held_out: list[Pair] = []
    for members in topics.values():
        free = sorted((pair for pair in members if normalized(pair.prompt) not in answers), key=_rank)
        held_out += free[: (len(members) + 5) // 10]
    hidden = set(held_out)
    rest = [pair for pair in found if pair not in hidden]
    parts = []
    for part in by_column.partition([pair.topic for pair in rest], nodes):
        mine = sorted((rest[index] for index in part), key=lambda pair: pair.topic)
        parts.append(Part(tuple(sorted({pair.topic for pair in mine})), tuple(mine)))
    return Split(tuple(parts), tuple(held_out))


def _rank(pair: Pair) -> bytes:
    return hashlib.sha256(normalized(pair.prompt).encode()).digest()


def _lines(found: Iterable[Pair]) -> bytes:
    lines = [json.dumps({"prompt": pair.prompt, "completion": pair.completion}, ensure_ascii=False) for pair in found]
    return "".join(f"{line}\n" for line in lines).encode()
