# SPDX-License-Identifier: Apache-2.0
"""Stacking: the exact mean of the products, in bytes that depend on the updates alone."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from flb import admission
from flb.admission import in_file_order, layout_of, rank_of_size, update_metadata
from flb.codec import CODINGS, Raw, dither
from flb.errors import BadContainer, CorruptStore, Refused, TooLarge
from flb.lora import adapter_zero
from flb.lora.shape import at_rank
from flb.spec import AggregationSpec, RunSpec, ServerOptimizerSpec
from flb.store import BlobStore
from flb.types import Digest, Member, Step, TensorSpec
from flb.wire import container
from flb_aggregator import stack
from flb_aggregator.encoded_step import Down
from flb_aggregator.moments import Moments
from flb_aggregator.pipeline import Input, combine
from flb_aggregator.publish import make_adapter_zero
from tests.coded import decoded
from tests.sim import DOMAIN, manifest_for, members, opening, reader, signed, small_spec, write_blob

pytestmark = pytest.mark.unit

R, D, K = 4, 70, 90  # d != k
M = "base_model.model.model.layers.0.mlp.{}_proj"
TENSORS = tuple(
    TensorSpec(f"{M.format(name)}.lora_{factor}.weight", shape)
    for name, d, k in (("down", D, K), ("up", K + 3, D))
    for factor, shape in (("A", (R, k)), ("B", (d, R)))
)
RANKS = (1, 3, 4)
WEIGHTS = (100, 7, 65536)
Arrays = dict[str, np.ndarray]


def spec_of(codec: str = "f32", rate: float = 1.0, max_rank: int = 100) -> RunSpec:
    spec = small_spec("stack", codec)
    return replace(
        spec, tensors=TENSORS, lora=replace(spec.lora, r=R, alpha=8, ranks=RANKS, max_rank=max_rank),
        server_optimizer=replace(spec.server_optimizer, learning_rate=rate),
    )  # fmt: skip


def update(spec: RunSpec, step: int, member: Member, base: Digest, rank: int) -> bytes:
    """A legal update of random values at a rank."""
    layout = layout_of(spec, Step(step), rank)
    random = np.random.default_rng([int.from_bytes(member.node[:4], "big"), step])
    draw = dither.stream(dither.key_of(DOMAIN.run, Step(step), member.node))

    def coded(tensor: TensorSpec) -> Sequence[Raw]:
        return CODINGS[spec.wire_codec].encode((random.standard_normal(tensor.size) * 0.02).astype("f4"), draw)

    salt = hashlib.sha256(member.node).digest()
    blob = container.header_of(layout.entries, update_metadata(salt, member.node, base))
    return blob + b"".join(in_file_order(layout, coded))


def inputs(spec: RunSpec, step: int, base: Digest, folder: Path) -> list[Input]:
    """One update of each rank, the largest first."""
    return [
        Input(weight, write_blob(folder, update(spec, step, member, base, rank)))
        for member, rank, weight in zip(members(3), RANKS[::-1], WEIGHTS, strict=True)
    ]


def rank_of(spec: RunSpec, item: Input) -> int:
    """The rank that an update was trained at."""
    return rank_of_size(spec, Step(1), item.path.stat().st_size)


def made(spec: RunSpec, step: int, base: Path, items: Sequence[Input], threads: int = 1) -> bytes:
    out = bytearray()
    combine(spec, Step(step), base, items, out.extend, threads)
    return bytes(out)


def rounds(spec: RunSpec, tmp_path: Path) -> tuple[bytes, bytes, list[Input], list[Input]]:
    """Adapters 1 and 2, and the updates that made them."""
    store = BlobStore(tmp_path / "blobs")
    zero = make_adapter_zero(spec.tensors, spec.training.seed, store)
    first_inputs = inputs(spec, 1, zero, tmp_path / "1")
    first = made(spec, 1, store.path(zero), first_inputs)
    second_inputs = inputs(spec, 2, Digest(hashlib.sha256(first).digest()), tmp_path / "2")
    return first, made(spec, 2, write_blob(tmp_path, first), second_inputs), first_inputs, second_inputs


def trained(spec: RunSpec, step: int, item: Input) -> Arrays:
    """What the node of an update had trained: its fresh start and the update, in float64."""
    layout, raw = layout_of(spec, Step(step), rank_of(spec, item)), item.path.read_bytes()
    found = {}
    for tensor, entries in zip(layout.tensors, layout.parts, strict=True):
        data = raw[layout.header_size :]
        values = decoded(spec.wire_codec, [data[e.start : e.end] for e in entries], tensor.size)
        moved = np.rint(values.astype(np.float64) * 2.0**32) * 2.0**-32
        began = np.concatenate(list(adapter_zero.blocks(tensor, spec.training.seed, step)))
        found[tensor.name] = (began.astype(np.float64) + moved).reshape(tensor.shape)
    return found


def products(arrays: Arrays) -> Arrays:
    """B·A of each module, dense."""
    return {
        name.removesuffix(".lora_A.weight"): arrays[name.replace("_A.", "_B.")].astype(np.float64) @ arrays[name]
        for name in arrays
        if name.endswith(".lora_A.weight")
    }


@pytest.mark.parametrize("codec", ["f32", "bf16", "mxint8", "mxint4"])
def test_combine__two_steps__is_the_dense_mean_of_the_products_on_top_of_the_first(codec: str, tmp_path: Path) -> None:
    spec = spec_of(codec)
    first, second, *items = rounds(spec, tmp_path)
    before = {path: np.zeros(value.shape) for path, value in products(safetensors.numpy.load(first)).items()}
    for step, (adapter, step_inputs) in enumerate(zip((first, second), items, strict=True), start=1):
        total = sum(item.weight for item in step_inputs)
        for item in step_inputs:
            for path, dense in products(trained(spec, step, item)).items():
                before[path] = before[path] + item.weight / total * dense
        after = products(safetensors.numpy.load(adapter))
        for path, dense in before.items():
            assert after[path].shape == dense.shape and dense.shape[0] != dense.shape[1]
            assert np.linalg.norm(after[path] - dense) <= 2e-7 * np.linalg.norm(dense)


def test_combine__every_value__is_one_rounding_of_the_exact_one(tmp_path: Path) -> None:
    spec = spec_of("mxint8", rate=0.5)
    first, _, items, _ = rounds(spec, tmp_path)
    adapter, total = safetensors.numpy.load(first), sum(WEIGHTS)
    column = 0
    for item in sorted(items, key=node_of):
        own = trained(spec, 1, item)
        for name, value in own.items():
            if name.endswith("_A.weight"):
                assert np.array_equal(adapter[name][column : column + rank_of(spec, item)], value.astype("f4"))
            else:
                columns = adapter[name][:, column : column + rank_of(spec, item)]
                for at in ((0, 0), (31, rank_of(spec, item) - 1), (value.shape[0] - 1, 0)):
                    whole = int(Fraction(float(value[at])) * 2**32) * item.weight
                    assert columns[at] == np.float32(float(whole) / float(total) * 2.0**-32 * 0.5)
        column += rank_of(spec, item)
    assert column == sum(RANKS)


def node_of(item: Input) -> str:
    with safetensors.safe_open(item.path, "np") as file:
        return str(file.metadata()["node"])


def test_combine__growth__is_the_sum_of_the_ranks_without_adapter_zero(tmp_path: Path) -> None:
    first, second, *_ = rounds(spec_of(), tmp_path)
    one, two = safetensors.numpy.load(first), safetensors.numpy.load(second)
    for name, value in two.items():
        axis = 0 if name.endswith("_A.weight") else 1
        assert (one[name].shape[axis], value.shape[axis]) == (8, 16)
        assert np.array_equal(np.take(value, range(8), axis), one[name]), "what was stacked stays as it was"


def test_combine__any_order_of_arrival_and_number_of_threads__gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = spec_of("mxint4")
    first, second, _, items = rounds(spec, tmp_path)
    base = write_blob(tmp_path, first)
    assert made(spec, 2, base, items[::-1]) == made(spec, 2, base, items[1:] + items[:1], threads=3) == second
    monkeypatch.setattr(stack, "PIECE", 64)  # pieces of a few rows
    assert made(spec, 2, base, items, threads=3) == second


def test_combine__weight_zero__leaves_no_trace(tmp_path: Path) -> None:
    spec = spec_of()
    first, _, _, items = rounds(spec, tmp_path)
    base = write_blob(tmp_path, first)
    assert made(spec, 2, base, [items[0], replace(items[1], weight=0), items[2]]) == made(
        spec, 2, base, [items[0], items[2]]
    )


def test_combine__one_node__is_its_own_adapter(tmp_path: Path) -> None:
    spec = spec_of()
    first, *_ = rounds(spec, tmp_path)
    item = inputs(spec, 2, Digest(hashlib.sha256(first).digest()), tmp_path / "one")[0]
    after = safetensors.numpy.load(made(spec, 2, write_blob(tmp_path, first), [item]))
    for name, value in trained(spec, 2, item).items():
        part = after[name][8:] if name.endswith("_A.weight") else after[name][:, 8:]
        assert np.array_equal(part, value.astype("f4"))


def test_combine__bound_passed__is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="step 2 would grow the adapter to rank 16, lora.max_rank is 15"):
        rounds(spec_of(max_rank=15), tmp_path)


def test_combine__encoded_steps__are_refused(tmp_path: Path) -> None:
    spec = spec_of()
    first, _, _, items = rounds(spec, tmp_path)
    to = Down(DOMAIN.run, Digest(bytes(32)), None, lambda data: None, lambda data: None)
    with pytest.raises(Refused, match="set run.down to f32"):
        combine(spec, Step(2), write_blob(tmp_path, first), items, lambda data: None, 1, to)


def test_combine__a_rule_without_weights_or_an_optimizer_with_moments__is_refused(tmp_path: Path) -> None:
    spec = spec_of()
    first, _, _, items = rounds(spec, tmp_path)
    base = write_blob(tmp_path, first)
    with pytest.raises(Refused, match="median cannot compare the updates of mode stack"):
        made(replace(spec, aggregation=AggregationSpec("median", weights="equal")), 2, base, items)
    adam = replace(spec, server_optimizer=ServerOptimizerSpec("adam", 1.0))
    with pytest.raises(Refused, match="adam keeps moments.*set run.server_optimizer.name to sgd"):
        combine(adam, Step(1), base, items, lambda data: None, 1, moments=Moments(None, lambda data: None))


@pytest.mark.parametrize("what", ["base", "cut", "header"])
def test_combine__a_file_that_was_altered__is_named(what: str, tmp_path: Path) -> None:
    spec = spec_of()
    first, _, _, items = rounds(spec, tmp_path)
    base = write_blob(tmp_path, first)
    path, raw = (base, first) if what == "base" else (items[1].path, items[1].path.read_bytes())
    path.write_bytes(raw[:-4] if what == "cut" else raw[:20] + b"!" + raw[21:])
    with pytest.raises(CorruptStore, match=path.name):
        made(spec, 2, base, items)


@pytest.mark.parametrize("codec", ["f32", "bf16", "mxint8", "mxint4"])
@pytest.mark.parametrize("mode", ["product", "stack"])
def test_sizes_of__ranks__grow_strictly_with_the_rank(codec: str, mode: str) -> None:
    spec = spec_of(codec)
    spec = replace(spec, lora=replace(spec.lora, mode=mode, ranks=tuple(range(1, 65))))
    sizes = list(admission.sizes_of(spec, Step(1)))
    assert sizes == sorted(set(sizes)) and len(sizes) == 64
    assert [rank_of_size(spec, Step(1), size) for size in sizes] == list(range(1, 65))


@pytest.mark.parametrize("rank", RANKS)
def test_check__an_update_of_each_rank__passes_admission(rank: int) -> None:
    spec, opened = spec_of("mxint8"), opening()
    blob = update(spec, 1, members(3)[0], opened.base, rank)
    manifest = manifest_for(spec, opened, members(3)[0], blob)
    member = admission.check_manifest(
        manifest, signed(manifest, key(manifest.node)), spec=spec, spec_digest=manifest.spec, domain=DOMAIN,
        opening=opened, admitted=None,
    )  # fmt: skip
    assert member.node == manifest.node and admission.check_update(reader(blob), manifest, spec, Step(1)) > 0


@pytest.mark.parametrize(("rank", "error"), [(2, BadContainer), (5, TooLarge)])
def test_check__an_update_of_a_rank_that_the_run_does_not_allow__is_refused(rank: int, error: type[Exception]) -> None:
    spec, opened = spec_of("mxint8"), opening()
    other = replace(spec, tensors=at_rank(spec.tensors, rank), lora=replace(spec.lora, r=rank))
    blob = update(other, 1, members(3)[0], opened.base, rank)
    manifest = manifest_for(spec, opened, members(3)[0], blob)
    with pytest.raises(error, match=r"the run spec gives \d+ or \d+ or \d+"):
        admission.check_manifest(
            manifest, signed(manifest, key(manifest.node)), spec=spec, spec_digest=manifest.spec, domain=DOMAIN,
            opening=opened, admitted=None,
        )  # fmt: skip
    with pytest.raises(BadContainer):
        admission.check_update(reader(blob), manifest, spec, Step(1))


def key(node: bytes) -> bytes:
    from tests.sim import key_for

    return key_for(next(member for member in members(3) if member.node == node))
