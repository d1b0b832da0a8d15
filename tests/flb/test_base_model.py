# SPDX-License-Identifier: Apache-2.0
"""The identity of the base model, and a refusal that names the difference."""

import json
from pathlib import Path

import pytest

from flb import base_model
from flb.errors import WrongBaseModel
from flb.spec import BaseSpec

pytestmark = pytest.mark.unit

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
COMMIT, OTHER = "a1" * 20, "b2" * 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (ONE, TWO):
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def note(folder: Path, repo: str, revision: str) -> None:
    (folder / base_model.SOURCE).write_text(json.dumps({"repo": repo, "revision": revision, "code": {}}))


def test_check__the_runs_weights__pass_whatever_else_is_there(folder: Path) -> None:
    expected = BaseSpec("tiny", base_model.digest(folder), "acme/tiny", COMMIT)
    (folder / "config.json").write_text("{}")
    base_model.check(folder, expected)


def test_check__one_file_changed_since__is_named(folder: Path) -> None:
    expected = BaseSpec("tiny", base_model.digest(folder))
    base_model.check(folder, expected)
    (folder / TWO).write_bytes(b"cut")
    with pytest.raises(WrongBaseModel, match=f"; {TWO} changed since this folder was") as caught:
        base_model.check(folder, expected)
    assert ONE not in str(caught.value) and expected.digest[:12] in str(caught.value)


def test_check__file_missing_since__is_named(folder: Path) -> None:
    expected = BaseSpec("tiny", base_model.digest(folder))
    (folder / ONE).unlink()
    with pytest.raises(WrongBaseModel, match=f"; {ONE} changed"):
        base_model.check(folder, expected)


def test_check__another_revision__both_are_named(folder: Path) -> None:
    note(folder, "acme/tiny", OTHER)
    with pytest.raises(WrongBaseModel, match=r"it holds acme/tiny at b2b2b2b2b2b2.*\(acme/tiny at a1a1a1a1a1a1\)"):
        base_model.check(folder, BaseSpec("tiny", "00" * 32, "acme/tiny", COMMIT))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"repo": 1, "revision": 2}', "[" * 5000])
def test_source__damaged_note__is_unknown(folder: Path, text: str) -> None:
    (folder / base_model.SOURCE).write_text(text)
    assert base_model.source(folder) == ("", "")
    note(folder, "acme/tiny", COMMIT)
    assert base_model.source(folder) == ("acme/tiny", COMMIT)
