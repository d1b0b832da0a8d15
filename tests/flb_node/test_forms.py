# SPDX-License-Identifier: Apache-2.0
"""Every form of a record, and what is said where none fits or two do."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb_node.examples import Example, Message
from flb_node.forms import COLUMNS, FORMS, Unusable, find, record

pytestmark = pytest.mark.unit

USER, GOOD, BAD = Message("user", "Hi"), Message("assistant", "Hello"), Message("assistant", "Go away")


def of(row: dict[str, Any], columns: dict[str, str] | None = None) -> Example:
    return record(find(row, columns or {}), row, columns or {})


def turn(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ({"prompt": "Hi", "completion": "Hello", "id": 3}, Example((USER, GOOD))),
        ({"prompt": [turn(USER)], "completion": [turn(GOOD)]}, Example((USER, GOOD))),
        ({"messages": [turn(USER), turn(GOOD)]}, Example((USER, GOOD))),
        ({"instruction": "Hi", "output": "Hello"}, Example((USER, GOOD))),
        ({"instruction": "Hi", "input": " ", "output": "Hello"}, Example((USER, GOOD))),
        ({"instruction": "Hi", "input": None, "output": "Hello"}, Example((USER, GOOD))),
        ({"instruction": "Add", "input": "1 2", "output": "3"},
         Example((Message("user", "Add\n\n1 2"), Message("assistant", "3")))),
        ({"text": "Once upon"}, Example((), text="Once upon")),
        ({"prompt": "Hi", "chosen": "Hello", "rejected": "Go away"}, Example((USER, GOOD), rejected=BAD)),
        ({"prompt": "Hi", "chosen": [turn(USER), turn(GOOD)], "rejected": [turn(USER), turn(BAD)]},
         Example((USER, GOOD), rejected=BAD)),
    ],
)  # fmt: skip
def test_record__form__found_from_the_columns(row: dict[str, Any], found: Example) -> None:
    assert of(row) == found


@pytest.mark.parametrize(
    ("row", "columns", "words"),
    [
        ({"prompt": "a", "completion": "b", "text": "c"}, {}, "columns of 2 forms (prompt, completion; text)"),
        ({"prompt": "a", "completion": "b", "chosen": "c", "rejected": "d"}, {}, "prompt, chosen, rejected"),
        ({"prompt": "a", "complection": "b"}, {}, "has no column 'completion' among 'prompt', 'complection'"),
        ({"instruction": "a", "response": "b"}, {}, "has no column 'output'"),
        ({}, {}, "has no column that is known here"),
        ({"a": 1, "b": 2}, {}, "known here among 'a', 'b'"),
        ({"prompt": "a", "chosen": "b"}, {"prompt": "prompt", "rejected": "bad"}, "has no column 'bad'"),
        ({"message": []}, {}, "has no column 'messages'"),
        ({"prompt": "a"}, {"text": "a", "messages": "b"}, "which no form has together"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, {}, "are the same"),
        (
            {"prompt": "a", "chosen": [turn(Message("user", "other")), turn(GOOD)], "rejected": "b"},
            {},
            "another conversation",
        ),
        ({"prompt": "a", "chosen": "b", "rejected": [turn(USER)]}, {}, "is not the assistant's"),
        ({"instruction": "a", "input": 3, "output": "b"}, {}, "'input' is not a string"),
    ],
)
def test_find__no_form_or_two__said_by_name(row: dict[str, Any], columns: dict[str, str], words: str) -> None:
    with pytest.raises(Unusable) as caught:
        of(row, columns)
    assert words in caught.value.what and caught.value.remedy


def test_find__misspelt_column__nearest_name_and_how_to_map_it() -> None:
    with pytest.raises(Unusable) as caught:
        find(["prompt", "completions"], {})
    assert caught.value.remedy == "did you mean 'completions'? then set dataset.columns: {completion: completions}"


def test_find__two_forms_and_a_mapping__the_mapped_one() -> None:
    assert find(["messages", "text"], {"messages": "messages"}).name == "messages"
    assert find(["text", "body"], {"text": "body"}).columns == ("text",)


values = st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
                      | st.dictionaries(st.sampled_from(["role", "content"]), inner | st.just("user"), max_size=2))  # fmt: skip


@given(st.dictionaries(st.sampled_from(COLUMNS), values, max_size=4))
def test_record__any_row__a_record_or_one_sentence(row: dict[str, Any]) -> None:
    try:
        found: Example | Unusable = of(row)
    except Unusable as error:
        found = error
    if isinstance(found, Unusable):
        assert found.what and found.remedy and found.kind in ("malformed", "empty")
    else:
        assert (found.text is None) == bool(found.messages)
        assert any(set(form.columns) <= set(row) for form in FORMS)
