# SPDX-License-Identifier: Apache-2.0
"""Code in a model's folder: what the config allows by name and revision runs, and nothing else."""

import json
import threading
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from flb import base_model
from flb.config import Config, ModelConfig, RemoteCode
from flb.errors import ConfigError, Refused, WrongBaseModel
from flb_node import remote_code
from flb_node.app import make_trainer
from flb_node.status import StatusFile
from tests.sim import small_spec

pytestmark = pytest.mark.unit

REPO, COMMIT = "owner/model", "ab" * 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with code, as flb model pull leaves it."""
    (tmp_path / "config.json").write_text(json.dumps({"auto_map": {"AutoModelForCausalLM": "modeling.Model"}}))
    (tmp_path / "modeling.py").write_text("class Model: ...\n")
    remote_code.write_note(tmp_path, REPO, COMMIT)
    return tmp_path


def test_allowed__named_by_repository_and_commit__is_true(folder: Path) -> None:
    assert remote_code.allowed(folder, REPO, COMMIT)


def test_allowed__nothing_named__is_false(folder: Path) -> None:
    assert not remote_code.allowed(folder, None, None)


def test_allowed__a_folder_without_code__is_false(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llama"}')
    assert not remote_code.allowed(folder, REPO, COMMIT)


@pytest.mark.parametrize(("name", "revision"), [("other/model", COMMIT), (REPO, "cd" * 20)])
def test_allowed__another_repository_or_commit__is_refused_with_both(folder: Path, name: str, revision: str) -> None:
    with pytest.raises(Refused, match=f"allows {name} at {revision}, but .* holds {REPO} at {COMMIT}"):
        remote_code.allowed(folder, name, revision)


def test_allowed__a_file_changed_or_added__is_refused_by_name(folder: Path) -> None:
    (folder / "more.py").write_text("import os\n")
    with pytest.raises(Refused, match=r"more\.py is not what owner/model holds"):
        remote_code.allowed(folder, REPO, COMMIT)
    (folder / "more.py").unlink()
    (folder / "modeling.py").write_text("import os\n")
    with pytest.raises(Refused, match=r"modeling\.py is not what owner/model holds"):
        remote_code.allowed(folder, REPO, COMMIT)


@pytest.mark.parametrize(
    ("name", "place"), [("config.json", "x/y--modeling.Model"), ("tokenizer_config.json", ["x/y--tok.Tokenizer", None])]
)
def test_allowed__code_of_a_third_repository__is_refused(folder: Path, name: str, place: object) -> None:
    (folder / name).write_text(json.dumps({"auto_map": {"AutoClass": place}}))
    with pytest.raises(Refused, match="takes code from another repository"):
        remote_code.allowed(folder, REPO, COMMIT)


def test_allowed__no_note__is_refused_with_the_command(folder: Path) -> None:
    (folder / remote_code.NOTE).unlink()
    with pytest.raises(Refused, match=f"does not say where .* flb model pull {REPO} --revision {COMMIT}"):
        remote_code.allowed(folder, REPO, COMMIT)


@pytest.mark.parametrize("note", ["{", "[]", '{"repo": "owner/model", "revision": "x", "code": 3}'])
def test_allowed__damaged_note__is_one_sentence(folder: Path, note: str) -> None:
    (folder / remote_code.NOTE).write_text(note)
    with pytest.raises(WrongBaseModel, match="is damaged"):
        remote_code.allowed(folder, REPO, COMMIT)


@pytest.mark.parametrize("text", ["owner/model", "@" + COMMIT, "owner/model@", ""])
def test_allowed_by_argument__another_form__is_refused(folder: Path, text: str) -> None:
    assert remote_code.allowed_by_argument(folder, f"{REPO}@{COMMIT}") and not remote_code.allowed_by_argument(
        folder, None
    )
    with pytest.raises(ConfigError, match="give REPO@COMMIT"):
        remote_code.allowed_by_argument(folder, text)


def test_make_trainer__config_allows_other_code__is_refused_before_anything_loads(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weights")
    plan = small_spec()
    spec = replace(plan, base=replace(plan.base, digest=base_model.digest(folder)))
    config = Config(model=ModelConfig(model_path=folder, trust_remote_code=RemoteCode(name=REPO, revision="cd" * 20)))
    with pytest.raises(Refused, match=f"allows {REPO} at {'cd' * 20}"):
        make_trainer(config, spec, (), StatusFile(folder / "status.json", print), threading.Event(), None, ExitStack())
