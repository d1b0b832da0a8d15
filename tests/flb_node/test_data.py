# SPDX-License-Identifier: Apache-2.0
"""Datasets from JSON lines, and one sentence with file and line for each way to get them wrong."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flb.errors import DatasetError
from flb_node.data import Example, Message, read, record_bytes

pytestmark = pytest.mark.unit

PAIR = Example((Message("user", "Hi"), Message("assistant", "Hello")))


def write(folder: Path, *lines: bytes | str | object, name: str = "data.jsonl") -> Path:
    path = folder / name
    encoded = [
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    path.write_bytes(b"\n".join(encoded) + b"\n")
    return path


def test_read__prompt_and_completion__two_messages(tmp_path: Path) -> None:
    assert read(write(tmp_path, {"prompt": "Hi", "completion": "Hello", "topic": "ignored"})) == (PAIR,)


def test_read__messages__kept_whole(tmp_path: Path) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
    ]
    found = read(write(tmp_path, {"messages": turns, "prompt": "another column"}))
    assert found == (Example((Message("system", "Be brief."), *PAIR.messages)),)


def test_read__folder__files_by_name_and_nothing_else(tmp_path: Path) -> None:
    write(tmp_path, {"prompt": "2", "completion": "b"}, name="b.jsonl")
    write(tmp_path, {"prompt": "1", "completion": "a"}, name="a.jsonl")
    write(tmp_path, "not a dataset", name="notes.txt")
    assert [example.messages[0].content for example in read(tmp_path)] == ["1", "2"]


def test_read__blank_lines_and_byte_order_mark__skipped(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "Hi", "completion": "Hello"}\r\n\r\n')
    assert read(path) == (PAIR,)


BAD_LINES = {
    "not JSON": b'{"prompt": "Hi"',
    "not a JSON object": b'["Hi", "Hello"]',
    "not UTF-8": b'{"prompt": "caf\xe9", "completion": "x"}',
    "no field 'prompt'": {"completion": "x"},
    "no field 'completion'": {"prompt": "x"},
    "'prompt' is empty": {"prompt": " \n", "completion": "x"},
    "'completion' is not a string": {"prompt": "x", "completion": 3},
    "'prompt' is not valid Unicode": b'{"prompt": "\\ud800", "completion": "x"}',
    "'messages' is not a list of at least two": {"messages": [{"role": "assistant", "content": "x"}]},
    "message 1 is not an object": {"messages": ["x", "y"]},
    "message 2 has no field 'content'": {"messages": [{"role": "user", "content": "x"}, {"role": "assistant"}]},
    "message 1 has an unknown role": {"messages": [{"role": ["a"], "content": "x"}, {"role": "user", "content": "y"}]},
    "last message is not the assistant's": {"messages": [{"role": "user", "content": "x"}] * 2},
    "content of message 2 is empty": {
        "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": ""}]
    },
}


@pytest.mark.parametrize("what", BAD_LINES)
def test_read__bad_line__named_with_file_and_line(what: str, tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": "fine", "completion": "fine"}, BAD_LINES[what])
    with pytest.raises(DatasetError, match=re.escape(what)) as caught:
        read(path)
    assert f"{path}, line 2" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy


def test_read__deeply_nested_line__dataset_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="line 1, is not JSON"):
        read(write(tmp_path, b"[" * 100_000))


def test_read__nothing_there__dataset_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist"):
        read(tmp_path / "missing.jsonl")
    with pytest.raises(DatasetError, match=r"holds no \.jsonl file"):
        read(tmp_path)
    with pytest.raises(DatasetError, match=r"is not a \.jsonl file"):
        read(write(tmp_path, "x", name="data.csv"))
    with pytest.raises(DatasetError, match="holds no example"):
        read(write(tmp_path, "", name="empty.jsonl"))


def test_record_bytes__canonical_json__golden() -> None:
    example = Example((Message("user", "Grüße, \u2028"), Message("assistant", '"quoted"\n')))
    golden = '[{"content":"Grüße, \u2028","role":"user"},{"content":"\\"quoted\\"\\n","role":"assistant"}]'
    assert record_bytes(example) == golden.encode()


def test_record_bytes__spelling_of_the_line__does_not_matter(tmp_path: Path) -> None:
    escaped = write(tmp_path, b'{ "completion":"Gr\\u00fc\\u00dfe" , "prompt" : "Hi"}', name="a.jsonl")
    plain = write(tmp_path, '{"prompt": "Hi", "completion": "Grüße"}', name="b.jsonl")
    assert record_bytes(read(escaped)[0]) == record_bytes(read(plain)[0])


def test_import__of_data__needs_no_torch() -> None:
    code = (
        "import sys, flb_node.data, flb_node.tokens, flb_node.threads, flb_node.devices; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
