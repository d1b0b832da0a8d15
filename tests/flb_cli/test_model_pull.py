# SPDX-License-Identifier: Apache-2.0
"""`flb model pull` against a hub on loopback: what comes, what goes on, and a sentence for each refusal."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from flb_cli.main import main
from flb_node import remote_code
from tests import hub
from tests.hub import COMMIT, Hub

pytestmark = pytest.mark.e2e

FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": bytes(range(256)) * 2000,
    "model-q4.gguf": b"GGUF",
    "modeling.py": b"x = 1\n",
}


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of nodes take this process offline, as a node does."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub.serve(dict(FILES)) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def pull(folder: Path, *more: str, repo: str = "owner/model") -> int:
    return main(["model", "pull", repo, "--local-dir", str(folder), "--json", *more])


def test_pull__repository__comes_whole_but_for_what_is_ignored(
    served: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    assert pull(folder, "--ignore", "*.gguf") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["repo"], result["revision"]) == ("owner/model", COMMIT)
    assert {path.name for path in folder.iterdir() if path.is_file()} >= set(FILES) - {"model-q4.gguf"}
    assert not (folder / "model-q4.gguf").exists()
    assert (folder / "model.safetensors").read_bytes() == FILES["model.safetensors"]
    note = json.loads((folder / remote_code.NOTE).read_bytes())
    assert (note["repo"], note["revision"], list(note["code"])) == ("owner/model", COMMIT, ["modeling.py"])


def test_pull__broken_off__goes_on_when_asked_again(served: Hub, tmp_path: Path) -> None:
    served.files["model.safetensors"] = bytes(range(256)) * (24 << 12)
    served.cut = 15 << 20
    while pull(tmp_path):
        assert served.cut is None, "the connection was cut, which is a reason to ask again"
    assert (tmp_path / "model.safetensors").read_bytes() == served.files["model.safetensors"]
    assert served.ranges == [f"bytes={10 << 20}-"], "whole chunks that had come are not asked for again"
    before = len([line for line in served.seen if line.startswith("GET") and "resolve" in line])
    assert pull(tmp_path) == 0
    assert len([line for line in served.seen if line.startswith("GET") and "resolve" in line]) == before


@pytest.mark.parametrize(
    ("repo", "more", "code", "what"),
    [
        ("gated/model", (), "model-missing", "gated/model is gated: its owner asks you to accept a licence"),
        ("missing/model", (), "model-missing", "the hub has no model missing/model, or it is private: check the spell"),
        ("owner/model", ("--revision", "v9"), "model-missing", "owner/model has no revision v9"),
        ("broken/model", (), "unavailable", "does not answer: try again when you are online"),
        ("a//b", (), "refused", "'a//b' is no name of a repository: write owner/name"),
    ],
)
def test_pull__refusals__are_one_sentence(
    served: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], repo: str, more: tuple[str, ...], code: str,
    what: str,
) -> None:  # fmt: skip
    assert pull(tmp_path / "model", *more, repo=repo) != 0
    result = json.loads(capsys.readouterr().out)
    assert result["code"] == code and what in result["error"] and "\n" not in result["error"]
    assert not (tmp_path / "model" / remote_code.NOTE).exists()


def test_pull__offline__is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with hub.serve({}) as gone:
        monkeypatch.setenv("HF_ENDPOINT", gone.url)
    assert pull(tmp_path) == 60
    assert (
        "does not answer: try again when you are online, it goes on where"
        in json.loads(capsys.readouterr().out)["error"]
    )


def test_pull__taken_offline_by_the_environment__names_the_variable(
    served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pull(tmp_path) == 60
    assert "HF_HUB_OFFLINE forbids downloads: unset it" in json.loads(capsys.readouterr().out)["error"]
