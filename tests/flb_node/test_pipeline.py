# SPDX-License-Identifier: Apache-2.0
"""The node's path: what is sealed is legal, durable, made once, and the same after a crash."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from flb import admission
from flb.adapter_blob import form_at
from flb.errors import BadContainer, ConfigError, CorruptStore, NotFinite
from flb.lora.shape import at_rank
from flb.spec import RunSpec
from flb.store import BlobStore
from flb.types import Address, Digest, Step
from flb_aggregator.publish import make_adapter_zero
from flb_node import pipeline
from tests.coded import decoded
from tests.sim import DOMAIN, manifest_for, members, opening, reader, small_spec

pytestmark = pytest.mark.unit

NODE = members(1)[0]
SECRET = b"\x05" * 32


class Trainer:
    """Adds 0.25 to what it may train; counts how often it is asked."""

    def __init__(self, change: Callable[[np.ndarray], np.ndarray] = lambda value: value + np.float32(0.25)) -> None:
        self.calls: list[tuple[frozenset[str], int]] = []
        self.change = change

    def __call__(self, adapter: pipeline.Tensors, names: frozenset[str], seed: int, step: Step) -> pipeline.Tensors:
        self.calls.append((names, seed))
        return {name: self.change(value) if name in names else value for name, value in adapter.items()}


def seal(folder: Path, spec: RunSpec, train: Trainer, step: int = 1, secret: bytes = SECRET) -> pipeline.Sealed:
    blobs = BlobStore(folder / "blobs")
    base = make_adapter_zero(spec.tensors, 0, blobs)
    return pipeline.seal_update(
        spec, Step(step), base, run=DOMAIN.run, node=NODE.node, secret=secret, blobs=blobs, folder=folder, train=train
    )


@pytest.mark.parametrize("codec", ["f32", "bf16", "mxint8", "mxint4"])
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
    sealed = seal(tmp_path, small_spec(codec="f32"), Trainer())
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


def at(mode: str, **more: object) -> RunSpec:
    spec = small_spec(mode, "f32")
    return dataclasses.replace(spec, lora=dataclasses.replace(spec.lora, **more))  # type: ignore[arg-type]


@pytest.mark.parametrize(("mode", "rank"), [("product", 1), ("stack", 1), ("stack", 2)])
def test_seal_update__rank_of_the_node__is_what_is_trained_sent_and_told_from_the_size(
    tmp_path: Path, mode: str, rank: int
) -> None:
    spec, train = at(mode, ranks=(1, 2), max_rank=9), Trainer(lambda value: value + np.float32(2.0**-8))
    blobs = BlobStore(tmp_path / "blobs")
    base = make_adapter_zero(spec.tensors, 0, blobs)
    sealed = pipeline.seal_update(
        spec, Step(1), base, run=DOMAIN.run, node=NODE.node, secret=SECRET, blobs=blobs, folder=tmp_path, train=train,
        rank=rank,
    )  # fmt: skip
    blob = sealed.path.read_bytes()
    manifest = manifest_for(spec, opening(count=1, base=base), NODE, blob)
    admission.check_update(reader(blob), manifest, spec, Step(1))
    assert admission.rank_of_size(spec, Step(1), sealed.size) == rank
    assert {value.shape for value in safetensors.numpy.load(blob).values()} == {(rank, 40_000), (8, rank)}


@pytest.mark.parametrize(("mode", "held", "frozen"), [("stack", 5, 5), ("factors", 5, 3)])
def test_seal_update__adapter_of_a_larger_rank__is_trained_in_part_and_the_rest_frozen(
    tmp_path: Path, mode: str, held: int, frozen: int
) -> None:
    spec = at(mode, max_rank=9) if mode == "stack" else at(mode, residual_rank=3)
    form, seen = form_at(spec, held), {}
    values = np.random.default_rng(0).standard_normal((form.size - len(form.header)) // 4).astype("<f4")
    blobs = BlobStore(tmp_path / "blobs")
    base = blobs.put(form.header + values.tobytes())

    def train(adapter: pipeline.Tensors, names: frozenset[str], seed: int, step: Step) -> pipeline.Tensors:
        seen.update(adapter)
        return {name: adapter[name] + np.float32(0.25) for name in names}

    sealed = pipeline.seal_update(
        spec, Step(2), base, run=DOMAIN.run, node=NODE.node, secret=SECRET, blobs=blobs, folder=tmp_path, train=train
    )
    shapes = {value.shape for name, value in seen.items() if name.endswith(".frozen.weight")}
    assert shapes == {(8, frozen), (frozen, 40_000)}
    update = safetensors.numpy.load_file(sealed.path)
    assert {value.shape for value in update.values()} == {(2, 40_000), (8, 2)}
    assert all(np.allclose(value, 0.25, atol=1e-6) for value in update.values()), "the update is the trained part's"


def test_load_adapter__an_adapter_of_another_run__is_refused(tmp_path: Path) -> None:
    spec, blobs = small_spec(), BlobStore(tmp_path)
    other = dataclasses.replace(spec, lora=dataclasses.replace(spec.lora, r=3))
    base = make_adapter_zero(at_rank(spec.tensors, 3), 0, blobs)
    assert pipeline.load_adapter(dataclasses.replace(other, tensors=at_rank(spec.tensors, 3)), blobs, base)
    with pytest.raises(BadContainer, match="rank 3, which no adapter of this run has"):
        pipeline.load_adapter(spec, blobs, base)


@pytest.mark.parametrize(
    ("ranks", "wanted", "what"),
    [((), 3, "client.rank is 3"), ((1,), 2, "client.rank is 2"), ((1,), None, "client.rank is not set, lora.r is 2")],
)
def test_node_rank__a_rank_that_the_run_does_not_allow__is_named(
    ranks: tuple[int, ...], wanted: int | None, what: str
) -> None:
    lora = at("stack", ranks=ranks).lora
    with pytest.raises(ConfigError, match=f"{what}, and nodes of this run train at rank {lora.node_ranks[0]}"):
        pipeline.node_rank(lora, wanted)
    assert pipeline.node_rank(lora, lora.node_ranks[0]) == lora.node_ranks[0]


@pytest.mark.parametrize("codec", ["f32", "bf16", "mxint8", "mxint4"])
def test_seal_update__codec_error__is_the_relative_norm_of_what_was_lost(tmp_path: Path, codec: str) -> None:
    random = np.random.default_rng(3)
    spec = small_spec(codec=codec)
    train = Trainer(lambda value: value + (random.standard_normal(value.shape) * 1e-3).astype(np.float32))
    seen = {}

    def kept(adapter: pipeline.Tensors, names: frozenset[str], seed: int, step: Step) -> pipeline.Tensors:
        seen["before"], seen["after"] = adapter, train(adapter, names, seed, step)
        return seen["after"]

    blobs = BlobStore(tmp_path / "blobs")
    base = make_adapter_zero(spec.tensors, 0, blobs)
    sealed = pipeline.seal_update(
        spec, Step(1), base, run=DOMAIN.run, node=NODE.node, secret=SECRET, blobs=blobs, folder=tmp_path, train=kept
    )
    layout, data = admission.layout_of(spec, Step(1)), sealed.path.read_bytes()
    lost = whole = 0.0
    for tensor, parts in zip(layout.tensors, layout.parts, strict=True):
        raw = [data[layout.header_size :][part.start : part.end] for part in parts]
        update = (seen["after"][tensor.name] - seen["before"][tensor.name]).reshape(-1)
        out = decoded(spec.wire_codec, raw, tensor.size)
        lost += float(((update.astype(np.float64) - out) ** 2).sum())
        whole += float((update.astype(np.float64) ** 2).sum())
    assert sealed.codec_error == pytest.approx((lost / whole) ** 0.5, rel=1e-9)
    assert (sealed.codec_error == 0) == (codec == "f32")
    assert pipeline.find_sealed(tmp_path, Step(1), base, blobs) == sealed, "the note has it"


def test_seal_update__nothing_changed__has_no_codec_error(tmp_path: Path) -> None:
    assert seal(tmp_path, small_spec(), Trainer(lambda value: value)).codec_error == 0.0


def test_seal_update__dither__follows_from_run_step_and_node(tmp_path: Path) -> None:
    digests = set()
    for number, run in enumerate((DOMAIN.run, Address(b"\x01" * 20), DOMAIN.run)):
        folder = tmp_path / str(number)
        folder.mkdir()
        blobs = BlobStore(folder / "blobs")
        base = make_adapter_zero(small_spec().tensors, 0, blobs)
        train = Trainer(lambda value: value + np.float32(0.01) * np.cos(value * 1000))
        sealed = pipeline.seal_update(
            small_spec(), Step(1), base, run=run, node=NODE.node, secret=SECRET, blobs=blobs, folder=folder, train=train
        )
        digests.add(sealed.digest)
    assert len(digests) == 2
