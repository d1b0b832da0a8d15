# SPDX-License-Identifier: Apache-2.0
"""Server optimizers in the aggregator's pass: exact over steps, in any order and number of threads, and kept for good."""

import dataclasses
import math
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from flb import moments
from flb.admission import layout_of
from flb.errors import CorruptStore, Fatal
from flb.server_optimizer import OPTIMIZERS
from flb.spec import AggregationSpec, RunSpec, ServerOptimizerSpec
from flb.store import BlobStore
from flb.types import ZERO_DIGEST, Address, Digest, Step
from flb_aggregator.moments import Moments
from flb_aggregator.outcome import Blobs, Left, blobs_of
from flb_aggregator.pipeline import Input, combine
from flb_aggregator.publish import make_adapter_zero
from tests.coded import decoded
from tests.optimizing import ADAPTIVE, slow_steps
from tests.sim import TENSORS, members, small_spec, update_bytes, write_blob

pytestmark = pytest.mark.unit

RUN = Address(b"\x0f" * 20)
KEEPING = tuple(name for name, optimizer in OPTIMIZERS.items() if optimizer.moments)


def spec_of(name: str, mode: str = "factors", down: str = "f32", **settings: float) -> RunSpec:
    optimizer = ServerOptimizerSpec(name, **{"learning_rate": 0.3, "tau": 1e-3, **settings})
    return dataclasses.replace(small_spec(mode, down=down), server_optimizer=optimizer)


def inputs(spec: RunSpec, step: int, folder: Path, base: Digest) -> list[Input]:
    blobs = [update_bytes(spec, Step(step), member, base, scale=1e-3 / step) for member in members(3)]
    return [Input(weight, write_blob(folder, blob)) for weight, blob in zip((100, 7, 65536), blobs, strict=True)]


def one(spec: RunSpec, folder: Path, step: int, before: Blobs | None) -> Blobs:
    """A step in `folder`, from what the one before made."""
    store = BlobStore(folder / "blobs")
    base = before.adapter if before else make_adapter_zero(spec.tensors, 0, store)
    left = Left()
    if before:
        remainder = store.path(before.remainder) if spec.encodes_steps else None
        left = Left(remainder, store.path(before.optimizer_state) if moments.keeps_moments(spec) else None)
    return blobs_of(spec, RUN, Step(step), base, store.path(base), left, inputs(spec, step, folder / "u", base), store)


def run(spec: RunSpec, folder: Path, count: int) -> list[Blobs]:
    made: list[Blobs] = []
    for step in range(1, count + 1):
        made.append(one(spec, folder, step, made[-1] if made else None))
    return made


def means_of(spec: RunSpec, items: list[Input], step: int, name: str) -> np.ndarray | None:
    """The mean of a tensor by its definition, None where the step does not send it."""
    layout = layout_of(spec, Step(step))
    tensor = next(tensor for tensor in spec.tensors if tensor.name == name)
    if tensor not in layout.tensors:
        return None
    entries = layout.parts[layout.tensors.index(tensor)]
    total, weights = np.zeros(tensor.size, dtype=object), 0
    for item in items:
        data = item.path.read_bytes()[layout.header_size :]
        values = decoded(spec.wire_codec, [data[e.start : e.end] for e in entries], tensor.size)
        total += np.rint(values.astype(np.float64) * 2.0**32).astype(np.int64).astype(object) * item.weight
        weights += item.weight
    return np.array([float(number) / float(weights) * 2.0**-32 for number in total])


@pytest.mark.parametrize("mode", ["factors", "alternate"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_blobs_of__steps_in_a_row__are_the_formula_bit_for_bit(name: str, mode: str, tmp_path: Path) -> None:
    spec, store = spec_of(name, mode), BlobStore(tmp_path / "blobs")
    made = run(spec, tmp_path, 4)
    constants = moments.constants_of(spec, 1e-3)
    for tensor in TENSORS:
        places = range(0, tensor.size, max(1, tensor.size // 53))
        history: list[np.ndarray] = []
        base = make_adapter_zero(spec.tensors, 0, store)
        for step, blobs in enumerate(made, 1):
            before, after = (safetensors.numpy.load(store.get(d))[tensor.name].ravel() for d in (base, blobs.adapter))
            mean = means_of(spec, inputs(spec, step, tmp_path / "u", base), step, tensor.name)
            if mean is None:
                assert np.array_equal(before, after)
            else:
                history.append(mean)
                for place in places:
                    moved = slow_steps(name, [float(mean[place]) for mean in history], constants)[-1]
                    assert after[place] == np.float32(np.float64(before[place]) + moved)
            base = blobs.adapter


@pytest.mark.parametrize("name", KEEPING)
def test_blobs_of__tensor_that_is_not_sent__keeps_its_moments(name: str, tmp_path: Path) -> None:
    spec, store = spec_of(name, "alternate"), BlobStore(tmp_path / "blobs")
    before = {t.name: np.empty((t.size, OPTIMIZERS[name].moments)) for t in TENSORS}
    for held in before.values():
        moments.start(spec, 1e-3, held)
    for step, blobs in enumerate(run(spec, tmp_path, 3), 1):
        after = safetensors.numpy.load(store.get(blobs.optimizer_state))
        sent = {tensor.name for tensor in layout_of(spec, Step(step)).tensors}
        assert len(sent) == 1
        for tensor in TENSORS:
            now = after[tensor.name].reshape(before[tensor.name].shape)
            assert np.array_equal(before[tensor.name], now) == (tensor.name not in sent)
            before[tensor.name] = now


@pytest.mark.parametrize(("tau", "rule"), [(1e-3, "mean"), (0.0, "mean"), (0.0, "median")])
@pytest.mark.parametrize("name", KEEPING)
def test_combine__any_order_and_number_of_threads__gives_the_same_moments(
    name: str, tau: float, rule: str, tmp_path: Path
) -> None:
    tensors = (dataclasses.replace(TENSORS[0], shape=(9, 40_001)), TENSORS[1])
    aggregation = AggregationSpec(rule, weights="equal")
    spec = dataclasses.replace(spec_of(name, tau=tau), tensors=tensors, aggregation=aggregation)
    store = BlobStore(tmp_path / "blobs")
    base = make_adapter_zero(spec.tensors, 0, store)
    items, results = inputs(spec, 1, tmp_path / "u", base), set()
    for threads, order in ((1, 1), (2, -1), (5, 1)):
        adapter, state = bytearray(), bytearray()
        to = Moments(None, state.extend)
        combine(spec, Step(1), store.path(base), items[::order], adapter.extend, threads, moments=to)
        results.add((bytes(adapter), bytes(state)))
    assert len(results) == 1


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("mode", ["factors", "alternate"])
def test_blobs_of__tau_auto__is_the_share_of_the_first_mean_and_stays(name: str, mode: str, tmp_path: Path) -> None:
    spec, store = spec_of(name, mode, tau=0.0, tau_scale=0.25), BlobStore(tmp_path / "blobs")
    base = make_adapter_zero(spec.tensors, 0, store)
    means = [means_of(spec, inputs(spec, 1, tmp_path / "u", base), 1, tensor.name) for tensor in TENSORS]
    sent = [float(value) for mean in means if mean is not None for value in mean]
    squares = sum(round(Fraction(value) * 2**26 / spec.ring.norm_bound) ** 2 for value in sent)
    root = math.sqrt(float(squares) / float(len(sent)))
    wanted = round(0.25 * root * (spec.ring.norm_bound / 2**26) * 2**32) / 2**32
    assert 1e-5 < wanted < 1e-3
    for step, blobs in enumerate(run(spec, tmp_path, 2), 1):
        held = store.get(blobs.optimizer_state)[: moments.header_size(spec, Step(step))]
        assert moments.read_header(held, spec, Step(step)) == wanted


@pytest.mark.parametrize("name", KEEPING)
@pytest.mark.parametrize("down", ["f32", "mxint8"])
def test_blobs_of__in_another_folder_from_the_blobs_alone__goes_on_to_the_same_digests(
    name: str, down: str, tmp_path: Path
) -> None:
    """A restart, a reorg, another aggregator: nothing but the blobs that the record names goes on."""
    spec = spec_of(name, down=down, tau=0.0)
    first, second, third = run(spec, tmp_path / "one", 3)
    theirs, ours = BlobStore(tmp_path / "one/blobs"), BlobStore(tmp_path / "two/blobs")
    for digest in (second.adapter, second.optimizer_state, second.down, second.remainder):
        if digest != ZERO_DIGEST:
            ours.put(theirs.get(digest))
    assert one(spec, tmp_path / "two", 3, second) == third
    assert len({first.optimizer_state, second.optimizer_state, third.optimizer_state}) == 3


def test_blobs_of__encoded_step__encodes_the_optimizers_step(tmp_path: Path) -> None:
    """The moments see the mean, not what encoding makes of the step."""
    exact, coded = (run(spec_of("adam", down=down), tmp_path / down, 1)[0] for down in ("f32", "mxint8"))
    assert exact.optimizer_state == coded.optimizer_state and exact.adapter != coded.adapter
    one, two = (
        safetensors.numpy.load((tmp_path / down / "blobs" / blobs.adapter.hex()).read_bytes())
        for down, blobs in (("f32", exact), ("mxint8", coded))
    )
    assert all(np.max(np.abs(one[tensor.name] - two[tensor.name])) < 1e-3 for tensor in TENSORS), "steps are of 1e-2"


def test_blobs_of__sgd__leaves_no_moments(tmp_path: Path) -> None:
    assert run(spec_of("sgd"), tmp_path, 1)[0].optimizer_state == ZERO_DIGEST
    assert len(list((tmp_path / "blobs").iterdir())) == 2


@pytest.mark.parametrize("name", ["momentum", "nesterov"])
def test_blobs_of__rate_one_and_no_momentum__is_fedavg_bit_for_bit(name: str, tmp_path: Path) -> None:
    plain = run(spec_of("sgd", learning_rate=1.0), tmp_path / "sgd", 3)
    smoothed = run(spec_of(name, learning_rate=1.0, momentum=0.0), tmp_path / name, 3)
    assert [blobs.adapter for blobs in plain] == [blobs.adapter for blobs in smoothed]


def test_blobs_of__moments_of_another_step__are_refused(tmp_path: Path) -> None:
    spec, store = spec_of("adam"), BlobStore(tmp_path / "blobs")
    first, second = run(spec, tmp_path, 2)
    items = inputs(spec, 3, tmp_path / "u", second.adapter)
    for wrong in (first.optimizer_state, second.adapter):
        with pytest.raises(CorruptStore, match="is not what the step before left"):
            blobs_of(spec, RUN, Step(3), second.adapter, store.path(second.adapter), Left(None, store.path(wrong)), items,
                     store)  # fmt: skip


def test_blobs_of__moments_that_were_cut__are_refused(tmp_path: Path) -> None:
    spec, store = spec_of("yogi"), BlobStore(tmp_path / "blobs")
    made = one(spec, tmp_path, 1, None)
    path = store.path(made.optimizer_state)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptStore, match=f"{path.name} is shorter than it was"):
        one(spec, tmp_path, 2, made)


def test_blobs_of__second_step_without_moments__is_refused_and_not_begun_anew(tmp_path: Path) -> None:
    spec, store = spec_of("momentum"), BlobStore(tmp_path / "blobs")
    made = one(spec, tmp_path, 1, None)
    items = inputs(spec, 2, tmp_path / "u", made.adapter)
    with pytest.raises(CorruptStore, match="step 2 lacks the moments"):
        blobs_of(spec, RUN, Step(2), made.adapter, store.path(made.adapter), Left(), items, store)


def test_combine__no_place_for_moments__is_a_defect(tmp_path: Path) -> None:
    spec, store = spec_of("momentum"), BlobStore(tmp_path / "blobs")
    base = make_adapter_zero(spec.tensors, 0, store)
    with pytest.raises(Fatal, match="without a place"):
        combine(spec, Step(1), store.path(base), inputs(spec, 1, tmp_path / "u", base), lambda data: None)


def test_combine__memory__does_not_grow_with_the_adapter(tmp_path: Path) -> None:
    peaks = []
    for rows in (8, 32):  # both have spans of full length
        tensors = (dataclasses.replace(TENSORS[0], shape=(rows, 40_000)), TENSORS[1])
        spec = dataclasses.replace(spec_of("adam", tau=0.0), tensors=tensors)
        store = BlobStore(tmp_path / f"blobs{rows}")
        base = make_adapter_zero(spec.tensors, 0, store)
        items = inputs(spec, 1, tmp_path / f"u{rows}", base)
        tracemalloc.start()
        combine(spec, Step(1), store.path(base), items, lambda data: None, 1, moments=Moments(None, lambda data: None))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + (64 << 10), "one span's moments, whatever the adapter"
