# SPDX-License-Identifier: Apache-2.0
"""Datasets from local files, and one sentence with file and line for each way to get them wrong."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flb.errors import DatasetError, MissingTool
from flb_node import rows
from flb_node.data import Example, Message, Source, read, record_bytes, source_of, stream
from flb_node.forms import Unusable

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
    "no column 'prompt'": {"completion": "x"},
    "no column 'completion'": {"prompt": "x"},
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
    bad = BAD_LINES[what]
    turns = [{"role": "user", "content": "fine"}, {"role": "assistant", "content": "fine"}]
    chat = isinstance(bad, dict) and "messages" in bad
    path = write(tmp_path, {"messages": turns} if chat else {"prompt": "fine", "completion": "fine"}, bad)
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
    with pytest.raises(DatasetError, match="holds no dataset"):
        read(tmp_path)
    with pytest.raises(DatasetError, match=r"is not a \.jsonl, \.json, \.csv or"):
        read(write(tmp_path, "x", name="data.txt"))
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
        "import sys, flb_node.data, flb_node.packing, flb_node.tokens, flb_node.threads, flb_node.devices; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_read__bytes_of_conversations__as_before_other_forms() -> None:
    preference = Example(PAIR.messages, rejected=Message("assistant", "Go away"))
    assert record_bytes(preference) == (
        b'{"chosen":[{"content":"Hello","role":"assistant"}],"prompt":[{"content":"Hi","role":"user"}],'
        b'"rejected":[{"content":"Go away","role":"assistant"}]}'
    )
    assert record_bytes(Example((), text="Once\n")) == b'{"text":"Once\\n"}'


def test_read__two_forms_in_one_folder__refused_with_both_places(tmp_path: Path) -> None:
    one = write(tmp_path, {"prompt": "Hi", "completion": "Hello"}, name="a.jsonl")
    two = write(tmp_path, {"text": "Once"}, name="b.jsonl")
    with pytest.raises(DatasetError, match="keep one form") as caught:
        read(tmp_path)
    assert f"{two}, line 1, is of the form text, but {one}, line 1 is of the form prompt" in str(caught.value)


def test_read__same_records_in_four_kinds_of_file__same_examples(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    records = [{"prompt": f'Say {n}, "twice"\nplease', "completion": f"{n} ü {n}"} for n in range(1200)]
    jsonl = write(tmp_path, *records)
    listed, table, columns = (tmp_path / f"data.{kind}" for kind in ("json", "csv", "parquet"))
    listed.write_text(json.dumps(records, indent=1))
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["prompt", "completion"])
        writer.writeheader()
        writer.writerows(records)
    parquet.write_table(pa.Table.from_pylist(records), columns)
    found = read(jsonl)
    assert len(found) == 1200 and read(listed) == read(table) == read(columns) == found


def test_read__json_file_of_lines__as_json_lines(tmp_path: Path) -> None:
    assert read(write(tmp_path, {"prompt": "Hi", "completion": "Hello"}, name="data.json")) == (PAIR,)


BROKEN_FILES = {
    "a.json": (b'[{"prompt": "a", "completion": "b"}, {"prompt": "a"', "record 2, is not JSON"),
    "b.json": (b'[{"prompt": "a", "completion": "b"}, 3]', "record 2, is not a JSON object"),
    "c.json": (b'[{"prompt": "caf\xe9", "completion": "b"}]', "record 1, is not UTF-8"),
    "d.csv": (b"prompt,completion\na,b\na,b,c\n", "line 3, has more than the 2 fields"),
    "e.csv": (b"prompt,completion\na,b\na\n", "line 3, has fewer than the 2 fields"),
    "f.csv": (b"prompt,completion\ncaf\xe9,b\n", "line 2, is not UTF-8"),
    "g.csv": (b'prompt,completion\n"a,b\n', "line 2, is not CSV"),
    "h.csv": (b"prompt,answer\na,b\n", "line 2, has no column 'completion' among 'prompt', 'answer'"),
    "i.parquet": (b"PAR1 not really", "row 1, is not Parquet, or is damaged"),
}


@pytest.mark.parametrize("name", BROKEN_FILES)
def test_read__broken_file__named_with_its_place(name: str, tmp_path: Path) -> None:
    content, words = BROKEN_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match=re.escape(words)) as caught:
        read(tmp_path / name)
    assert caught.value.remedy and "\n" not in str(caught.value)


def test_read__parquet_without_pyarrow__missing_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data.parquet"
    path.write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as if it were not installed
    with pytest.raises(MissingTool, match=r"reading Parquet needs the package pyarrow: pip install 'flb\[node\]'"):
        read(path)


def test_read__parquet_cut_short__dataset_error(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "data.parquet"
    parquet.write_table(pa.Table.from_pylist([{"text": "word " * 50}] * 500), path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(DatasetError, match="is not Parquet"):
        read(path)


def test_read__mapped_columns__their_records(tmp_path: Path) -> None:
    path = write(tmp_path, {"question": "Hi", "answer": "Hello", "text": "unused"})
    source = source_of(path, columns={"prompt": "question", "completion": "answer"})
    assert read(source) == (PAIR,)


def test_stream__bad_rows_between_good_ones__all_answered(tmp_path: Path) -> None:
    fine = {"prompt": "Hi", "completion": "Hello"}
    path = write(tmp_path, fine, "{", fine, {"prompt": " ", "completion": "x"})
    found = list(stream(Source(path)))
    assert [str(item.place).rpartition(" ")[2] for item in found] == ["1", "2", "3", "4"]
    assert [isinstance(item.what, Example) for item in found] == [True, False, True, False]
    assert isinstance(found[3].what, Unusable) and found[3].what.kind == "empty"


def test_source_of__names__local_unless_written_as_owner_and_name(tmp_path: Path) -> None:
    (tmp_path / "here" / "data").mkdir(parents=True)
    for local in ("here/data", "absent.jsonl", "owner/absent.csv", "absent", "a/b/c"):
        assert source_of(tmp_path / local, tmp_path).name == tmp_path / local
    hub = source_of(tmp_path / "owner/name", tmp_path, split="test", revision="main")
    assert hub == Source("owner/name", split="test", revision="main")
    with pytest.raises(DatasetError, match=r"dataset.split is 'test', but .* is a local dataset"):
        source_of(tmp_path / "here/data", tmp_path, split="test")


def test_read__long_texts__in_every_kind_of_file(tmp_path: Path) -> None:
    long = "word " * 60_000
    (tmp_path / "data.csv").write_text(f"text\n{long}\n")
    (tmp_path / "data.json").write_text(json.dumps([{"text": long}]))
    assert read(tmp_path / "data.csv") == read(tmp_path / "data.json") == (Example((), text=long),)


def test_read__line_that_does_not_end__dataset_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "LONGEST_LINE", 64)
    path = write(tmp_path, {"text": "short"}, "x" * 1000)
    with pytest.raises(DatasetError, match="line 2, is too long"):
        read(path)
