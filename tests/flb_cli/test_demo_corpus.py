# SPDX-License-Identifier: Apache-2.0
"""The demo's text: exact counts, and nothing held out leaks into training."""

import json
from pathlib import Path

import pytest

from flb.errors import MissingTool, Refused
from flb_cli.demo_corpus import Pair, normalized, one_answer, pairs, split, write
from flb_node import data

pytestmark = pytest.mark.unit

TOPICS = 21


def messages(path: Path) -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(line["prompt"], line["completion"]) for line in lines]


def test_pairs__the_package__exact_counts() -> None:
    found = pairs()
    assert len(found) == 2306
    assert len({pair.topic for pair in found}) == TOPICS
    assert sum(pair.topic == "tech_support" for pair in found) == 1050
    assert len(one_answer(found)) == 1010


def test_pairs__malformed_conversation__left_out() -> None:
    # One entry of the trivia file is a string; read as a list of turns it would be pairs of letters.
    assert min(len(pair.prompt) for pair in pairs()) > 1


def test_pairs__package_missing__named_with_remedy() -> None:
    with pytest.raises(MissingTool, match=r"no-such-corpus.*pip install"):
        pairs("no-such-corpus")


def test_one_answer__same_question_spelled_twice__first_kept() -> None:
    found = [Pair("a", "Who are you?", "1"), Pair("b", "who are  YOU", "2"), Pair("b", "?!", "3")]
    assert one_answer(found) == found[:1]


@pytest.mark.parametrize("nodes", [1, 2, 3, TOPICS])
def test_write__any_number_of_nodes__no_held_out_question_in_training(nodes: int, tmp_path: Path) -> None:
    write(tmp_path, nodes)
    hidden = {normalized(prompt) for prompt, _ in messages(tmp_path / "held-out.jsonl")}
    shown = {
        normalized(text)
        for number in range(1, nodes + 1)
        for pair in messages(tmp_path / f"node-{number}.jsonl")
        for text in pair
    }
    assert len(hidden) == 102
    assert not hidden & shown


def test_write__three_nodes__exact_counts_and_readable(tmp_path: Path) -> None:
    write(tmp_path, 3)
    assert [len(data.read(tmp_path / f"node-{number}.jsonl")) for number in (1, 2, 3)] == [304, 302, 302]
    assert len(data.read(tmp_path / "held-out.jsonl")) == 102
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "held-out.jsonl",
        "node-1.jsonl",
        "node-2.jsonl",
        "node-3.jsonl",
    ]


def test_write__again__same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "one", 3)
    write(tmp_path / "two", 3)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


@pytest.mark.parametrize("nodes", [2, 3, 7, TOPICS])
def test_split__topics__each_at_one_node_and_none_lost(nodes: int) -> None:
    parted = split(one_answer(pairs()), nodes)
    topics = [topic for part in parted.parts for topic in part.topics]
    assert len(topics) == len(set(topics)) == TOPICS
    assert sum(len(part.pairs) for part in parted.parts) + len(parted.held_out) == 1010
    for part in parted.parts:
        assert {pair.topic for pair in part.pairs} == set(part.topics)


def test_split__three_nodes__alike_in_size() -> None:
    sizes = [len(part.pairs) for part in split(one_answer(pairs()), 3).parts]
    assert max(sizes) - min(sizes) <= 2


@pytest.mark.parametrize("nodes", [0, TOPICS + 1])
def test_split__more_nodes_than_topics__refused(nodes: int) -> None:
    with pytest.raises(Refused, match="21 topics"):
        split(one_answer(pairs()), nodes)
