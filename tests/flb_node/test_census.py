# SPDX-License-Identifier: Apache-2.0
"""Every finding of a dataset check, with its places."""

from collections.abc import Iterator

import pytest

from flb.errors import DatasetError
from flb_node.census import KINDS, SHOWN, Census, take
from flb_node.data import Found
from flb_node.examples import Example, Message
from flb_node.forms import Unusable
from flb_node.rows import Place

pytestmark = pytest.mark.unit


def pairs(*said: tuple[str, str] | Unusable, file: str = "train") -> Iterator[Found]:
    for number, one in enumerate(said, start=1):
        example = one if isinstance(one, Unusable) else Example((Message("user", one[0]), Message("assistant", one[1])))
        yield Found(Place(file, "line", number), example)


def counts(census: Census) -> dict[str, int]:
    return {kind: finding.count for kind, finding in census.findings.items() if finding.count}


def places(census: Census, kind: str) -> list[str]:
    return census.findings[kind].places


def test_take__clean_data__nothing_to_say() -> None:
    census = take(pairs(("a", "b"), ("c", "d")), pairs(("e", "f"), file="held"))
    assert census.clean and (census.records, census.held_out, counts(census)) == (2, 1, {})
    assert not take([]).clean


def test_take__repeats__exact_and_normalized_apart() -> None:
    census = take(pairs(("Hi", "Yes"), ("hi", " yes "), ("Hi", "Yes"), ("HI", "yes"), ("HI", "yes")))
    assert counts(census) == {"duplicates": 2, "near_duplicates": 2}
    assert places(census, "duplicates") == ["train, line 3", "train, line 5"]
    assert places(census, "near_duplicates") == ["train, line 2", "train, line 4"]


def test_take__held_out__same_nearly_the_same_and_same_prompt() -> None:
    train = pairs(("Hi", "Yes"), ("Who?", "me"), ("Why", "so"), ("new", "new"))
    census = take(train, pairs(("Hi", "Yes"), ("who?", "Me"), ("why ", "other"), ("Hi", "Yes"), file="held"))
    assert counts(census) == {"in_held_out": 1, "near_in_held_out": 1, "prompt_in_held_out": 1}
    assert [places(census, kind)[0][-1] for kind in ("in_held_out", "near_in_held_out", "prompt_in_held_out")] == list(
        "123"
    )


def test_take__same_texts_in_other_roles_or_forms__no_repeat() -> None:
    examples = (
        Example((), text="a"),
        Example((Message("user", "a"), Message("assistant", "b"))),
        Example((Message("user", "a"), Message("assistant", "b")), rejected=Message("assistant", "c")),
        Example((Message("system", "a"), Message("assistant", "b"))),
    )
    assert take(Found(Place("x", "line", 1), example) for example in examples).clean


def test_take__rows_that_are_no_records__counted_on_to_the_end() -> None:
    bad = Unusable("is not JSON", "x"), Unusable("column 'prompt' is empty", "x", "empty")
    census = take(pairs(*bad, ("a\x00", "b"), ("a", "\ufffd"), ("tab\tnew\nline", "\x0c\x85")))
    assert counts(census) == {"malformed": 1, "empty": 1, "not_text": 2} and census.records == 3
    assert places(census, "malformed") == ["train, line 1, is not JSON"]
    assert places(census, "not_text") == ["train, line 3, has U+0000", "train, line 4, has U+FFFD"]


def test_take__long_records__by_what_counts_their_tokens() -> None:
    def length(example: Example) -> int:
        if example.messages[0].content == "refused":
            raise DatasetError("the chat template refuses a conversation")
        return len(example.messages[0].content)

    census = take(pairs(("abc", "1"), ("abcd", "2"), ("refused", "3")), length=length, limit=3)
    assert counts(census) == {"malformed": 1, "too_long": 1}
    assert places(census, "too_long") == ["train, line 2, 4 tokens of 3"]


def test_take__many_findings__the_first_places() -> None:
    census = take(pairs(*[("same", "same")] * 500))
    assert counts(census) == {"duplicates": 499}
    assert places(census, "duplicates") == [f"train, line {number}" for number in range(2, 2 + SHOWN)]
    assert set(census.findings) == set(KINDS)
