# SPDX-License-Identifier: Apache-2.0
"""The combination: exact, bit for bit, in blocks, and in flat memory."""

import dataclasses
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from flb.admission import layout_of, update_metadata
from flb.errors import CorruptStore
from flb.spec import RunSpec
from flb.store import BlobStore
from flb.types import Step, TensorSpec
from flb.wire import container
from flb_aggregator import files
from flb_aggregator.pipeline import Input, combine
from flb_aggregator.publish import make_adapter_zero
from tests.coded import decoded
from tests.sim import TENSORS, members, small_spec, update_bytes, write_blob

pytestmark = pytest.mark.unit

WEIGHTS = (100, 7, 65536)


def inputs(spec: RunSpec, step: int, folder: Path, base: bytes, count: int = 3) -> list[Input]:
    blobs = [update_bytes(spec, Step(step), member, base) for member in members(count)]  # type: ignore[arg-type]
    return [Input(weight, write_blob(folder, blob)) for weight, blob in zip(WEIGHTS * count, blobs, strict=False)]


def run(spec: RunSpec, step: int, tmp_path: Path, order: int = 1) -> tuple[bytes, bytes, list[Input]]:
    store = BlobStore(tmp_path / "blobs")
    base = make_adapter_zero(spec.tensors, 0, store)
    items = inputs(spec, step, tmp_path / "updates", base)[::order]
    out = bytearray()
    combine(spec, Step(step), store.path(base), items, out.extend)
    return bytes(out), store.get(base), items


@pytest.mark.parametrize("codec", ["f32", "bf16", "mxint8", "mxint4"])
@pytest.mark.parametrize(("mode", "step"), [("factors", 1), ("alternate", 1), ("alternate", 2)])
def test_combine__every_value__is_the_exact_weighted_mean(codec: str, mode: str, step: int, tmp_path: Path) -> None:
    spec = small_spec(mode, codec)
    result, base, items = run(spec, step, tmp_path)
    before, after = safetensors.numpy.load(base), safetensors.numpy.load(result)
    layout = layout_of(spec, Step(step))
    for tensor in TENSORS:
        name = tensor.name
        if tensor not in layout.tensors:
            assert np.array_equal(before[name], after[name])
            continue
        entries = layout.parts[layout.tensors.index(tensor)]
        files = [item.path.read_bytes()[layout.header_size :] for item in items]
        updates = [decoded(spec.wire_codec, [f[e.start : e.end] for e in entries], tensor.size) for f in files]
        for index in range(0, tensor.size, max(1, tensor.size // 97)):
            total = sum(
                w.weight * round(Fraction(float(u[index])) * 2**32) for w, u in zip(items, updates, strict=True)
            )
            mean = float(total) / float(sum(item.weight for item in items)) * 2.0**-32
            expected = np.float32(np.float64(before[name].flat[index]) + mean)
            assert after[name].flat[index] == expected


def test_combine__any_order_of_updates__gives_the_same_bytes(tmp_path: Path) -> None:
    assert run(small_spec(), 1, tmp_path)[0] == run(small_spec(), 1, tmp_path, order=-1)[0]


def test_combine__server_learning_rate_zero__is_the_base(tmp_path: Path) -> None:
    still = dataclasses.replace(small_spec().server_optimizer, learning_rate=0.0)
    result, base, _ = run(dataclasses.replace(small_spec(), server_optimizer=still), 1, tmp_path)
    assert result == base


def test_combine__a_blob_that_was_cut__is_named(tmp_path: Path) -> None:
    spec = small_spec()
    store = BlobStore(tmp_path / "blobs")
    base = make_adapter_zero(spec.tensors, 0, store)
    items = inputs(spec, 1, tmp_path / "updates", base)
    items[1].path.write_bytes(items[1].path.read_bytes()[:-1])
    with pytest.raises(CorruptStore, match=items[1].path.name):
        combine(spec, Step(1), store.path(base), items, lambda data: None)


def test_combine__memory__does_not_grow_with_cohort_or_adapter(tmp_path: Path) -> None:
    peaks = []
    for count, rows in ((2, 4), (24, 16)):  # both have spans of full length
        tensors = (dataclasses.replace(TENSORS[0], shape=(2 * rows, 40_000)), TENSORS[1])
        spec = dataclasses.replace(small_spec(), tensors=tensors)
        store = BlobStore(tmp_path / f"blobs{rows}")
        base = make_adapter_zero(spec.tensors, 0, store)
        items = inputs(spec, 1, tmp_path / f"updates{rows}", base, count)
        tracemalloc.start()
        combine(spec, Step(1), store.path(base), items, lambda data: None, threads=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + (64 << 10), "no buffer for each node, only its name"


ADVERSARIAL = [
    0.0, -0.0, 4.0, -4.0, 2.0**-33, -(2.0**-33), 3 * 2.0**-33, 2.0**-34, -(2.0**-34), 2.0**-149, -(2.0**-149),
    float(np.nextafter(np.float32(4), np.float32(0))), float(np.nextafter(np.float32(2.0**-9), np.float32(0))),
]  # fmt: skip


def old_definition(adapter: np.ndarray, updates: list[np.ndarray], weights: list[int]) -> np.ndarray:
    """docs/arithmetic.md 1, all in int64 and one array at a time."""
    total = np.zeros(adapter.size, dtype=np.int64)
    for weight, values in zip(weights, updates, strict=True):
        total += np.rint(values.astype(np.float64) * 2.0**32).astype(np.int64) * weight
    mean = total.astype(np.float64) / np.float64(sum(weights)) * 2.0**-32
    return (adapter.astype(np.float64) + mean).astype("<f4")


@pytest.mark.parametrize("weights", [[1], [3, 2**16, 77], [2**16] * 8, [2**16] * 8 + [1], [2**16 - 1] * 40])
@pytest.mark.parametrize("threads", [1, 3])
def test_combine__adversarial_values__equals_the_old_definition(
    weights: list[int], threads: int, tmp_path: Path
) -> None:
    """Sums of at most 2^53 are added in float64, others in int64: eight full weights are the last that fit."""
    spec = dataclasses.replace(small_spec(codec="f32"), tensors=(TensorSpec("t", (600_001,)),))
    random, layout = np.random.default_rng(len(weights)), layout_of(spec, Step(1))
    updates = [random.standard_normal(600_001).astype("<f4") * np.float32(1e-3) for _ in weights]
    for index, update in enumerate(updates):
        update[: len(ADVERSARIAL)] = ADVERSARIAL  # every node the same
        update[1000:2000] = random.choice(np.array(ADVERSARIAL, dtype="<f4"), 1000)
        update[300_000:] *= np.float32(2.0 ** -(index % 30))
    adapter = random.standard_normal(600_001).astype("<f4")
    adapter[:2000:2] = -0.0
    base = write_blob(tmp_path, container.adapter_header(spec.tensors) + adapter.tobytes())
    header = container.header_of(layout.entries, update_metadata(bytes(32), bytes(20), bytes(32)))
    items = [Input(w, write_blob(tmp_path, header + u.tobytes())) for w, u in zip(weights, updates, strict=True)]
    out = bytearray()
    combine(spec, Step(1), base, items, out.extend, threads)
    assert bytes(out[-4 * 600_001 :]) == old_definition(adapter, updates, weights).tobytes()


@pytest.mark.parametrize("codec", ["f32", "mxint8"])
def test_combine__any_number_of_threads__gives_the_same_bytes(codec: str, tmp_path: Path) -> None:
    tensors = (dataclasses.replace(TENSORS[0], shape=(20, 40_000)), TENSORS[1])
    spec = dataclasses.replace(small_spec(codec=codec), tensors=tensors)
    store = BlobStore(tmp_path / "blobs")
    base = store.path(make_adapter_zero(spec.tensors, 0, store))
    items = inputs(spec, 1, tmp_path / "updates", bytes(32))
    results = []
    for threads in (1, 2, 5):
        out = bytearray()
        combine(spec, Step(1), base, items, out.extend, threads)
        results.append(bytes(out))
    assert results[0] == results[1] == results[2]


def test_combine__more_updates_than_files_stay_open__gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, base, items = run(small_spec(), 1, tmp_path)
    monkeypatch.setattr(files, "KEPT_OPEN", 2)
    out = bytearray()
    combine(small_spec(), Step(1), write_blob(tmp_path, base), items, out.extend)
    assert bytes(out) == whole
    items[2].path.unlink()
    with pytest.raises(CorruptStore, match=f"{items[2].path.name} cannot be read"):
        combine(small_spec(), Step(1), write_blob(tmp_path, base), items, out.extend)


def test_combine__a_blob_that_no_encoder_writes__is_named(tmp_path: Path) -> None:
    spec = small_spec()
    store = BlobStore(tmp_path / "blobs")
    base = make_adapter_zero(spec.tensors, 0, store)
    items = inputs(spec, 1, tmp_path / "updates", base)
    altered = bytearray(items[1].path.read_bytes())
    altered[layout_of(spec, Step(1)).header_size] = 0x80
    items[1].path.write_bytes(altered)
    with pytest.raises(CorruptStore, match=f"{items[1].path.name} was altered since it was admitted"):
        combine(spec, Step(1), store.path(base), items, lambda data: None)
