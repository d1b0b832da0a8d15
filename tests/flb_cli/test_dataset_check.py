# SPDX-License-Identifier: Apache-2.0
"""`flb dataset check`, end to end on files."""

import json
from pathlib import Path

import pytest

from flb_cli.main import main
from tests import tiny_model


def write(path: Path, *records: object) -> str:
    path.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in records))
    return str(path)


def pair(prompt: str, completion: str) -> dict[str, str]:
    return {"prompt": prompt, "completion": completion}


@pytest.mark.unit
def test_check__clean__exit_code_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "a.jsonl", pair("a", "b"), pair("c", "d"))
    assert main(["dataset", "check", data]) == 0
    assert capsys.readouterr().out == f"{data}: 2 records\nnothing to say about any of them\n"


@pytest.mark.unit
def test_check__findings__exit_code_1_and_places(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "a.jsonl", pair("a", "b"), "{", pair("A", "B"), pair("c", "d"))
    held = write(tmp_path / "held.jsonl", pair("c", "d"))
    assert main(["dataset", "check", data, "--held-out", held]) == 1
    out = capsys.readouterr().out
    assert out.startswith(
        f"{data}: 3 records, 1 held out\n1 cannot be read as records:\n  {data}, line 2, is not JSON\n"
    )
    assert f"case and white space:\n  {data}, line 3\n" in out and f"held-out data too:\n  {data}, line 4\n" in out


@pytest.mark.unit
def test_check__json__every_finding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write(tmp_path / "a.jsonl", {"q": "a", "completion": ""})
    assert main(["dataset", "check", data, "--column", "prompt=q", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["records"], found["clean"], found["findings"]["empty"]["count"]) == (0, False, 1)
    assert found["findings"]["duplicates"] == {"count": 0, "places": []}


@pytest.mark.unit
def test_check__no_dataset__one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dataset", "check", str(tmp_path / "none.jsonl")]) == 12
    assert "does not exist: set dataset_name to" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["dataset", "check", "x", "--column", "prmpt=q"])
    assert "maps no column" in capsys.readouterr().err


@pytest.mark.model
def test_check__model__records_over_its_context(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_model.build(tmp_path / "base")  # sees 512 tokens of one byte each
    data = write(tmp_path / "a.jsonl", pair("a", "b"), pair("c", "d" * 100), pair("e", "f" * 600))
    template = tmp_path / "template.jinja"
    template.write_text("{% for message in messages %}{{ message['content'] }}{% endfor %}")
    command = ["dataset", "check", data, "--model", str(model), "--chat-template", str(template)]
    assert main([*command, "--max-length", "100"]) == 1
    out = capsys.readouterr().out
    assert f"{data}, line 2, 101 tokens of 100\n  {data}, line 3, 601 tokens of 100\n" in out
    assert main([*command, "--max-length", "9999"]) == 1
    assert "1 are longer than the context" in (out := capsys.readouterr().out) and "601 tokens of 512" in out
