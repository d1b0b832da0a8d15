# SPDX-License-Identifier: Apache-2.0
"""`flb model chat`: one answer, a conversation, and refusals."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from flb.errors import BadMessage, DatasetError, WrongBaseModel
from flb_cli.main import main
from flb_cli.model_chat import Conversation, load
from flb_cli.model_merge import merge
from flb_node import tokens
from tests import tiny_model
from tests.flb_cli.test_model_merge import make_adapter, make_stack

pytestmark = pytest.mark.model


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("base"))


def test_say__answer__is_streamed_in_pieces_and_remembered(base: Path) -> None:
    model, tokenizer = load(base, None, "cpu")
    talk, pieces = Conversation(model, tokenizer, max_tokens=12), list[str]()
    answer = talk.say("Hello", pieces.append)
    assert "".join(pieces).strip() == answer and talk.made == 12
    talk.say("And now?", pieces.append)
    assert [message.role for message in talk.messages] == ["user", "assistant"] * 2


def test_load__adapter__changes_the_answer(base: Path, tmp_path: Path) -> None:
    said = []
    for adapter in (None, make_adapter(base, tmp_path / "adapter")):
        model, tokenizer = load(base, adapter, "cpu")
        said.append(Conversation(model, tokenizer, max_tokens=24).say("Hello", lambda text: None))
    assert said[0] != said[1]


def test_load__adapter_of_a_larger_rank__is_the_merged_model(base: Path, tmp_path: Path) -> None:
    adapter = make_stack(base, tmp_path / "adapter")
    merge(base, adapter, tmp_path / "merged")
    found = []
    for folder, worn in ((base, adapter), (tmp_path / "merged", None), (base, None)):
        model, tokenizer = load(folder, worn, "cpu")
        with torch.no_grad():
            found.append(model(**tokenizer("Hello", return_tensors="pt")).logits)
    assert torch.allclose(found[0], found[1], atol=1e-5) and not torch.allclose(found[0], found[2], atol=1e-2)


def test_chat__command__answers_one_prompt_as_json(base: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "flb_cli.main",
        "model",
        "chat",
        "--base",
        str(base),
        "--json",
        "--max-tokens",
        "5",
    ]
    done = subprocess.run([*command, "--prompt", "Hello"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"answer", "tokens", "seconds"} == set(json.loads(done.stdout))
    done = subprocess.run(
        [*command, "--prompt", "x", "--adapter", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 13 and "holds no adapter_config.json" in json.loads(done.stdout)["error"]
    assert "Traceback" not in done.stderr


def test_say__longer_than_the_context_or_refused_by_the_template__one_sentence_and_not_remembered(base: Path) -> None:
    model, tokenizer = load(base, None, "cpu")
    talk = Conversation(model, tokenizer, max_tokens=400)
    talk.say("a" * 400, lambda text: None)
    assert talk.made < 112, "the context ends the answer"
    with pytest.raises(BadMessage, match="tokens, and the model sees 512: begin a new and shorter one"):
        talk.say("b" * 100, lambda text: None)
    tokenizer.chat_template = "{{ raise_exception('no') }}"
    with pytest.raises(DatasetError, match="the chat template refuses"):
        talk.say("c", lambda text: None)
    assert len(talk.messages) == 2


@pytest.mark.parametrize("given", ["-1", "nan", "inf"])
def test_chat__temperature_that_is_none__is_refused(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "chat", "--base", "x", "--temperature", given, "--prompt", "x"]) != 0
    assert f"--temperature is {given}: give 0 or more" in capsys.readouterr().err


def test_load__tokenizer_without_a_chat_template__is_refused(base: Path, tmp_path: Path) -> None:
    plain = shutil.copytree(base, tmp_path / "plain")
    (plain / "chat_template.jinja").unlink()
    with pytest.raises(WrongBaseModel, match="no chat template: pass the one .* as --chat-template"):
        load(plain, None)
    with pytest.raises(DatasetError, match="missing.jinja can't be read"):
        load(plain, None, chat_template=tmp_path / "missing.jinja")
    _, tokenizer = load(plain, None, "cpu", chat_template=base / "chat_template.jinja")
    assert tokenizer.chat_template == (base / "chat_template.jinja").read_text()


def test_say__end_that_the_model_names__ends_the_answer(base: Path) -> None:
    model, tokenizer = load(base, None, "cpu")
    talk = Conversation(model, tokenizer, max_tokens=12)
    talk.say("Hello", lambda text: None)
    ids = tokens.prompt_ids(tokenizer, talk.messages[:1])
    first = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
    assert first != tokenizer.eos_token_id and talk.made == 12
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, first]
    talk = Conversation(model, tokenizer, max_tokens=12)
    talk.say("Hello", lambda text: None)
    assert talk.made == 1


def test_chat__conversation_from_a_pipe__ends_with_the_input(base: Path) -> None:
    command = [sys.executable, "-m", "flb_cli.main", "model", "chat", "--base", str(base), "--max-tokens", "3"]
    done = subprocess.run(command, input="one\ntwo\n", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-tokens", "0"], "--max-tokens is 0: give at least 1"),
        (["--temperature", "-1"], "--temperature is -1: give 0 or more"),
        (["--json"], "--json prints one answer: give --prompt too"),
    ],
)
def test_run__option_that_makes_no_sense__is_refused_before_the_model_is_loaded(
    options: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "chat", "--base", "nowhere", *options]) == BadMessage.exit_code
    said = capsys.readouterr()
    assert words in said.err + said.out
