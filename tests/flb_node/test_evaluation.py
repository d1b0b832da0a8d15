# SPDX-License-Identifier: Apache-2.0
"""What is held out, which adapter is best, and a record that survives restarts and crashes."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.config import ClientConfig
from flb.delta import Float32
from flb.errors import DatasetError
from flb.store import BlobStore
from flb.types import Digest, Step
from flb_aggregator.publish import make_adapter_zero
from flb_node import evaluation
from flb_node.data import Example, Message
from flb_node.evaluation import Evaluation, Figures, HeldOut
from tests.sim import small_spec

pytestmark = pytest.mark.unit

SPEC = small_spec()


def example(number: int) -> Example:
    return Example((Message("user", f"{number}?"), Message("assistant", f"{number}")))


@given(st.lists(st.integers(0, 30), min_size=2, max_size=40), st.floats(0.01, 0.99))
def test_split__any_dataset__sides_are_disjoint_complete_and_stable(numbers: list[int], share: float) -> None:
    examples = tuple(map(example, numbers))
    try:
        train, held = evaluation.split(examples, share)
    except DatasetError:
        assert len(set(numbers)) == 1
        return
    assert held and train and not set(train) & set(held)
    assert sorted(map(str, train + held)) == sorted(map(str, examples))
    assert train == tuple(one for one in examples if one not in held)
    again = evaluation.split(tuple(reversed(examples)), share)
    assert (set(again[0]), set(again[1])) == (set(train), set(held))


def test_read__share__the_bound_cuts_what_is_measured_and_not_what_is_held_out() -> None:
    examples = tuple(map(example, range(100)))
    train, held_out = evaluation.read(ClientConfig(held_out=0.3, eval_examples=5), examples)
    assert (len(train), len(held_out.own)) == (70, 5)


def write(path: Path, *numbers: int) -> Path:
    path.write_text("".join(json.dumps({"prompt": f"{n}?", "completion": f"{n}"}) + "\n" for n in numbers))
    return path


def test_read__files__whole_dataset_is_trained(tmp_path: Path) -> None:
    examples = (example(1), example(2))
    client = ClientConfig(
        held_out=write(tmp_path / "own.jsonl", 3), shared_held_out=write(tmp_path / "all.jsonl", 4, 5)
    )
    train, held_out = evaluation.read(client, examples)
    assert (train, held_out.own, held_out.shared) == (examples, (example(3),), (example(4), example(5)))
    assert len(held_out.shared_digest) == 64


def test_read__columns_of_the_dataset__hold_for_the_nodes_own_file_alone(tmp_path: Path) -> None:
    own = tmp_path / "own.csv"
    own.write_text("question,answer\n3?,3\n")
    client = ClientConfig(held_out=own, shared_held_out=write(tmp_path / "all.jsonl", 4))
    _, held_out = evaluation.read(client, (example(1),), {"prompt": "question", "completion": "answer"})
    assert (held_out.own, held_out.shared) == ((example(3),), (example(4),))


def test_read__held_out_example_that_is_trained__refused(tmp_path: Path) -> None:
    client = ClientConfig(held_out=write(tmp_path / "own.jsonl", 3, 1))
    with pytest.raises(DatasetError, match=r"an example of client.held_out .*own.jsonl\) is in the dataset too"):
        evaluation.read(client, (example(1), example(2)))


def test_read__shared_example_that_is_trained__refused_unless_it_is_held_out_here_too(tmp_path: Path) -> None:
    examples = tuple(map(example, range(10)))
    train, held = evaluation.split(examples, 0.2)
    number = {one: index for index, one in enumerate(examples)}
    client = ClientConfig(held_out=0.2, shared_held_out=write(tmp_path / "all.jsonl", number[held[0]]))
    assert evaluation.read(client, examples)[0] == train
    client = ClientConfig(held_out=0.2, shared_held_out=write(tmp_path / "all.jsonl", 77, number[train[0]]))
    with pytest.raises(
        DatasetError, match=r"of client.shared_held_out .*\) is in the dataset too: remove it from the da"
    ):
        evaluation.read(client, examples)


class Node:
    """An evaluation over real blobs, whose losses are given."""

    def __init__(self, folder: Path, losses: Mapping[bytes, Figures], run: str = "0x11") -> None:
        self.lines: list[str] = []
        self.shown: list[Figures] = []
        self.reported: list[tuple[Mapping[str, float], int]] = []
        self.measured = self.pieces = 0
        self.losses = losses
        self.blobs = BlobStore(folder / "blobs")
        self.evaluation = Evaluation(folder, self.blobs, HeldOut(), self.lines.append, self.shown.append, run=run)
        self.evaluation.measure = self.measure
        self.evaluation.report = lambda figures, step: self.reported.append((figures, step))
        self.current = b""

    def measure(self, adapter: Mapping[str, Float32]) -> Iterator[Figures | None]:
        self.measured += 1
        found = self.losses[self.current]
        for _ in range(3):
            self.pieces += 1
            yield None
        yield found

    def add(self, step: int, adapter: Digest) -> None:
        self.current = adapter
        self.evaluation.add(SPEC, Step(step), adapter)

    def __call__(self, step: int, adapter: Digest) -> None:
        self.add(step, adapter)
        assert not self.evaluation.advance(lambda: False, math.inf)


def figures(loss: float, shared: float | None = None) -> Figures:
    one = {"loss": loss, "perplexity": 2.0, "accuracy": 0.5, "tokens": 9}
    return {"held_out": one, "seconds": 0.1} | ({} if shared is None else {"shared": {**one, "loss": shared}})


@pytest.fixture
def adapters(tmp_path: Path) -> list[Digest]:
    """Three adapters in the blobs of a node."""
    blobs = BlobStore(tmp_path / "blobs")
    return [make_adapter_zero(SPEC.tensors, seed, blobs) for seed in range(3)]


def test_evaluation__three_rounds__the_best_is_named_and_kept(tmp_path: Path, adapters: list[Digest]) -> None:
    node = Node(tmp_path, dict(zip(adapters, map(figures, (3.0, 1.0, 2.0)), strict=True)))
    for step, adapter in enumerate(adapters):
        node(step, adapter)
    best = json.loads((tmp_path / "best.json").read_text())
    assert best == {"run": "0x11", "step": 1, "adapter": adapters[1].hex(), "loss": 1.0}
    node.blobs.delete_others(set(), float("inf"))
    kept = tmp_path / "best" / "adapter_model.safetensors"
    assert hashlib.sha256(kept.read_bytes()).digest() == adapters[1]
    assert json.loads((tmp_path / "best" / "adapter_config.json").read_text())["r"] == SPEC.lora.r
    assert node.shown[-1]["held_out"] == {"step": 2, "loss": 2.0, "best_step": 1, "best_loss": 1.0}
    assert [step for _, step in node.reported] == [0, 2, 4]
    assert node.reported[1][0]["held_out/loss"] == 1.0 and "seconds" not in node.reported[1][0]
    assert "step 1: held out loss 1.0000, accuracy 0.500, perplexity 2 over 9 tokens" in node.lines


def test_evaluation__shared_examples__they_decide(tmp_path: Path, adapters: list[Digest]) -> None:
    node = Node(tmp_path, {adapters[0]: figures(1.0, shared=4.0), adapters[1]: figures(2.0, shared=3.0)})
    node(0, adapters[0])
    node(1, adapters[1])
    assert json.loads((tmp_path / "best.json").read_text())["step"] == 1


def test_evaluation__restart__nothing_twice_and_the_best_stays(tmp_path: Path, adapters: list[Digest]) -> None:
    losses = dict(zip(adapters, map(figures, (3.0, 1.0, 2.0)), strict=True))
    first = Node(tmp_path, losses)
    first(0, adapters[0])
    first(1, adapters[1])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "adap')  # a crash in the middle of a line
    second = Node(tmp_path, losses)
    for step, adapter in enumerate(adapters):
        second(step, adapter)
    assert second.measured == 1
    assert json.loads((tmp_path / "best.json").read_text())["step"] == 1
    third = Node(tmp_path, losses)
    third(2, adapters[2])
    assert third.measured == 0, "a line after a broken one counts"


def test_evaluation__next_run_in_the_same_folder__has_a_best_step_of_its_own(
    tmp_path: Path, adapters: list[Digest]
) -> None:
    losses = {adapters[0]: figures(1.0), adapters[1]: figures(2.0)}
    Node(tmp_path, losses)(0, adapters[0])
    node = Node(tmp_path, losses, run="0x22")
    node(1, adapters[1])
    assert json.loads((tmp_path / "best.json").read_text())["adapter"] == adapters[1].hex()
    node(0, adapters[0])
    assert node.measured == 2, "what the run before measured counts for that one alone"


def test_evaluation__measuring_fails__told_and_goes_on(tmp_path: Path, adapters: list[Digest]) -> None:
    node = Node(tmp_path, {})

    def fail(adapter: Mapping[str, Float32]) -> Iterator[Figures | None]:
        yield None
        raise DatasetError("lm-eval can't run x", "check it")

    node.evaluation.measure = fail
    node(0, adapters[0])
    assert node.lines == ["step 0: the adapter was not measured: lm-eval can't run x: check it"]
    assert not (tmp_path / "metrics.jsonl").exists()


def test_advance__busy__one_piece_at_a_time_and_none_twice(tmp_path: Path, adapters: list[Digest]) -> None:
    node = Node(tmp_path, dict(zip(adapters, map(figures, (3.0, 1.0, 2.0)), strict=True)))
    node.add(0, adapters[0])
    node.add(0, adapters[0])
    for done in (1, 2, 3):
        assert node.evaluation.advance(lambda: True, math.inf) and node.pieces == done
    assert not node.evaluation.advance(lambda: True, math.inf)
    assert (node.measured, node.pieces) == (1, 3)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_add__more_than_there_is_time_for__the_newest_and_the_half_measured_stay(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    many = [make_adapter_zero(SPEC.tensors, seed, blobs) for seed in range(7)]
    node = Node(tmp_path, dict(zip(many, map(figures, map(float, range(1, 8))), strict=True)))
    for step, adapter in enumerate(many):
        node.add(step, adapter)
        node.evaluation.advance(lambda: True, math.inf) if step == 0 else None
    node.evaluation.advance(lambda: False, math.inf)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [0, 4, 5, 6]
    assert sum("no time between rounds" in line for line in node.lines) == 3


def test_waiting__adapters_that_are_still_to_be_measured__named(tmp_path: Path, adapters: list[Digest]) -> None:
    node = Node(tmp_path, dict.fromkeys(adapters, figures(1.0)))
    for step, adapter in enumerate(adapters):
        node.add(step, adapter)
    assert node.evaluation.waiting() == set(adapters)
    for _ in range(4):
        node.evaluation.advance(lambda: True, math.inf)
    assert node.evaluation.waiting() == set(adapters[1:]) and evaluation.NoEvaluation().waiting() == set()


def test_advance__blob_gone__told_and_goes_on(tmp_path: Path, adapters: list[Digest]) -> None:
    node = Node(tmp_path, dict.fromkeys(adapters, figures(1.0)))
    for step, adapter in enumerate(adapters[:2]):
        node.add(step, adapter)
    node.evaluation.advance(lambda: True, math.inf)
    node.blobs.delete_others(set(), math.inf)  # the first is half measured, the second waits
    assert not node.evaluation.advance(lambda: False, math.inf)
    told = [line for line in node.lines if "was not measured" in line]
    assert [line.split(":")[0] for line in told] == ["step 0", "step 1"]
    assert not (tmp_path / "metrics.jsonl").exists() and not (tmp_path / "best.json").exists()


def test_evaluation__no_model_loaded__nothing(tmp_path: Path, adapters: list[Digest]) -> None:
    node = Node(tmp_path, {})
    node.evaluation.measure = None
    node(0, adapters[0])
    assert node.lines == [] and not (tmp_path / "metrics.jsonl").exists()


def test_keep__base_with_a_repository__the_adapter_names_it(tmp_path: Path, adapters: list[Digest]) -> None:
    node = Node(tmp_path, {})
    spec = dataclasses.replace(SPEC, base=dataclasses.replace(SPEC.base, repo="acme/tiny"))
    node.evaluation.keep(spec, Step(1), adapters[0], 1.0)
    config = json.loads((tmp_path / "best" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "acme/tiny"
