# SPDX-License-Identifier: Apache-2.0
"""The evaluator process, as the demo talks to it."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from flb.errors import DatasetError, ModelMissing
from flb.spec import LoraSpec
from flb_node import trainer
from flb_node.base import load_model, load_tokenizer
from flb_node.data import read
from flb_node.devices import CPU
from flb_node.held_out import measure
from flb_node.tokens import encode_all
from tests import tiny_model
from tests.flb_node.test_trainer import tensors_of

pytestmark = pytest.mark.model

LORA = LoraSpec("factors", 2, 4, 0.0, ("q_proj",))


def command(base: Path, data: Path) -> list[str]:
    return [sys.executable, "-m", "flb_node.evaluate", "--base", str(base), "--data", str(data), "--max-length", "90"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.build(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "held-out.jsonl"
    path.write_text('{"prompt": "Hi", "completion": "Hello"}\n{"prompt": "Who?", "completion": "Me."}\n')
    return path


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that changes the model a lot."""
    local = trainer.load(base, LORA, tensors_of(base, LORA), device_map="cpu", dtype="float32", seed=0)
    for weight in local.weights.values():
        torch.nn.init.ones_(weight)
    folder = tmp_path_factory.mktemp("adapter")
    local.model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def process(base: Path, data: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command(base, data), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        yield started
        started.terminate()
        assert started.wait(timeout=30) == 0, "SIGTERM ends it with exit code 0"


def ask(process: subprocess.Popen[str], line: str) -> dict[str, object]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    answer: dict[str, object] = json.loads(process.stdout.readline())
    return answer


def test_evaluate__base_adapter_base__the_base_is_itself_again(
    process: subprocess.Popen[str], base: Path, data: Path, adapter: Path
) -> None:
    plain, tuned, again = (
        ask(process, json.dumps({"adapter": name, "prompts": ["Hi", "Who?"]})) for name in (None, str(adapter), None)
    )
    rows = encode_all(load_tokenizer(base), read(data), 90)
    expected = measure(load_model(base, torch.float32, CPU), rows).loss
    assert plain["loss"] == pytest.approx(expected, rel=1e-6)
    assert tuned["loss"] != pytest.approx(expected, rel=1e-3)
    assert (again["loss"], again["answers"]) == (plain["loss"], plain["answers"])
    assert len(plain["answers"]) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("{", "not JSON"),
        ("[]", "not an object"),
        ('{"prompts": "Hi"}', "not a list of texts"),
        ('{"adapter": 3}', "not the name of a folder"),
        ('{"adapter": "/nowhere", "prompts": []}', "holds no adapter_config.json"),
    ],
)
def test_evaluate__bad_request__one_sentence_and_it_goes_on(
    process: subprocess.Popen[str], line: str, named: str
) -> None:
    assert named in str(ask(process, line)["error"])
    assert "loss" in ask(process, "{}")


def test_evaluate__end_of_stdin__exit_0(base: Path, data: Path) -> None:
    done = subprocess.run(command(base, data), input='{"adapter": null}\n', check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["answers"] == []


def test_evaluate__missing_input__one_sentence_and_its_exit_code(base: Path, data: Path, tmp_path: Path) -> None:
    for arguments, error in ((command(base, tmp_path / "x"), DatasetError), (command(tmp_path, data), ModelMissing)):
        done = subprocess.run(arguments, input="", check=False, capture_output=True, text=True)
        assert done.returncode == error.exit_code
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1


def test_evaluate__no_example_fits__one_sentence_before_a_request(base: Path, data: Path) -> None:
    done = subprocess.run([*command(base, data)[:-1], "3"], input="", check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (DatasetError.exit_code, "")
    assert "each of the 2 examples has a prompt of 3 tokens or more" in done.stderr


def test_evaluate__sigterm_while_loading__exit_0(base: Path, data: Path) -> None:
    with subprocess.Popen(command(base, data), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        try:
            started.wait(timeout=1.5)
        except subprocess.TimeoutExpired:
            started.send_signal(signal.SIGTERM)
        assert started.wait(timeout=30) == 0
