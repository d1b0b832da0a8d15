# SPDX-License-Identifier: Apache-2.0
"""The node's path: what is sealed is legal, durable, made once, and the same after a crash."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from flb import admission
from flb.errors import CorruptStore, NotFinite
from flb.spec import RunSpec
from flb.store import BlobStore
from flb.types import Digest, Step
from flb_aggregator.publish import make_adapter_zero
from flb_node import pipeline
from tests.sim import manifest_for, members, opening, reader, small_spec

pytestmark = pytest.mark.unit

NODE = members(1)[0]
SECRET = b"\x05" * 32


class Trainer:
    """Adds 0.25 to what it may train; counts how often it is asked."""

    def __init__(self, change: Callable[[np.ndarray], np.ndarray] = lambda value: value + np.float32(0.25)) -> None:
        self.calls: list[tuple[frozenset[str], int]] = []
        self.change = change

    def __call__(self, adapter: pipeline.Tensors, names: frozenset[str], seed: int) -> pipeline.Tensors:
        self.calls.append((names, seed))
        return {name: self.change(value) if name in names else value for name, value in adapter.items()}


def seal(folder: Path, spec: RunSpec, train: Trainer, step: int = 1, secret: bytes = SECRET) -> pipeline.Sealed:
    blobs = BlobStore(folder / "blobs")
    base = make_adapter_zero(spec.tensors, 0, blobs)
    return pipeline.seal_update(
        spec, Step(step), base, node=NODE.node, secret=secret, blobs=blobs, folder=folder, train=train
    )


@pytest.mark.parametrize("codec", ["f32", "bf16"])
@pytest.mark.parametrize(("mode", "step", "sent"), [("factors", 1, 2), ("alternate", 1, 1), ("alternate", 2, 1)])
def test_seal_update__result__passes_admission(tmp_path: Path, codec: str, mode: str, step: int, sent: int) -> None:
    spec, train = small_spec(mode, codec), Trainer(lambda value: value + np.float32(2.0**-8))
    sealed = seal(tmp_path, spec, train, step)
    blob = sealed.path.read_bytes()
    opened = opening(count=1, base=sealed.base, step=step)
    manifest = manifest_for(spec, opened, NODE, blob)
    admission.check_update(reader(blob), manifest, spec, Step(step))
    assert len(train.calls[0][0]) == sent
    assert hashlib.sha256(blob).digest() == sealed.digest and len(blob) == sealed.size


def test_seal_update__values__are_the_difference(tmp_path: Path) -> None:
    sealed = seal(tmp_path, small_spec(), Trainer())
    before = safetensors.numpy.load_file(BlobStore(tmp_path / "blobs").path(sealed.base))
    for name, value in safetensors.numpy.load_file(sealed.path).items():
        assert np.array_equal(value, (before[name] + np.float32(0.25)) - before[name])


def test_seal_update__sealed_before__is_never_trained_again(tmp_path: Path) -> None:
    train = Trainer()
    assert seal(tmp_path, small_spec(), train) == seal(tmp_path, small_spec(), train)
    assert len(train.calls) == 1


def test_seal_update__crash_before_the_seal__gives_the_same_bytes(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    assert seal(tmp_path / "a", small_spec(), Trainer()).digest == seal(tmp_path / "b", small_spec(), Trainer()).digest


def test_seal_update__another_secret__hides_equal_content_behind_another_digest(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    one = seal(tmp_path / "a", small_spec(), Trainer())
    two = seal(tmp_path / "b", small_spec(), Trainer(), secret=b"\x06" * 32)
    assert one.digest != two.digest and one.size == two.size


def test_seal_update__diverged_training__seals_nothing(tmp_path: Path) -> None:
    with pytest.raises(NotFinite):
        seal(tmp_path, small_spec(), Trainer(lambda value: value * np.float32("nan")))
    assert len(list((tmp_path / "blobs").iterdir())) == 1, "only the adapter"
    assert list(tmp_path.glob("step-*.json")) == []


def test_find_sealed__damaged_note__is_one_sentence(tmp_path: Path) -> None:
    sealed = seal(tmp_path, small_spec(), Trainer())
    next(tmp_path.glob("step-*.json")).write_text("{")
    with pytest.raises(CorruptStore, match="delete it; the step is trained again"):
        pipeline.find_sealed(tmp_path, Step(1), sealed.base, BlobStore(tmp_path / "blobs"))


def test_training_seed__step_and_node__decide_never_the_round() -> None:
    spec = small_spec()
    two = members(2)[1].node if members(2)[1].node != NODE.node else members(2)[0].node
    seeds = {pipeline.training_seed(spec, Step(step), node) for step in (1, 2) for node in (NODE.node, two)}
    assert len(seeds) == 4 and all(0 <= seed < 2**32 for seed in seeds)


def test_salt_of__step_and_base__decide() -> None:
    base = Digest(b"\x01" * 32)
    salts = {pipeline.salt_of(SECRET, Step(step), Digest(b)) for step in (1, 2) for b in (base, bytes(32))}
    assert len(salts) == 4 and all(len(salt) == 32 for salt in salts)
