# SPDX-License-Identifier: Apache-2.0
"""The combination: exact, bit for bit, in blocks, and in flat memory."""

import dataclasses
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from flb.admission import layout_of
from flb.codec import CODINGS
from flb.errors import CorruptStore
from flb.spec import RunSpec
from flb.store import BlobStore
from flb.types import Step
from flb_aggregator.pipeline import Input, combine
from flb_aggregator.publish import make_adapter_zero
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


@pytest.mark.parametrize("codec", ["f32", "bf16"])
@pytest.mark.parametrize(("mode", "step"), [("factors", 1), ("alternate", 1), ("alternate", 2)])
def test_combine__every_value__is_the_exact_weighted_mean(codec: str, mode: str, step: int, tmp_path: Path) -> None:
    spec = small_spec(mode, codec)
    result, base, items = run(spec, step, tmp_path)
    before, after = safetensors.numpy.load(base), safetensors.numpy.load(result)
    layout, coding = layout_of(spec, Step(step)), CODINGS[spec.wire_codec]
    start = layout.header_size
    for tensor in TENSORS:
        name = tensor.name
        if tensor not in layout.tensors:
            assert np.array_equal(before[name], after[name])
            continue
        end = start + tensor.size * coding.item_size
        updates = [coding.decode(memoryview(item.path.read_bytes()[start:end])) for item in items]
        start = end
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
    for count, rows in ((2, 1), (24, 8)):
        tensors = (dataclasses.replace(TENSORS[0], shape=(2 * rows, 40_000)), TENSORS[1])
        spec = dataclasses.replace(small_spec(), tensors=tensors)
        store = BlobStore(tmp_path / f"blobs{rows}")
        base = make_adapter_zero(spec.tensors, 0, store)
        items = inputs(spec, 1, tmp_path / f"updates{rows}", base, count)
        tracemalloc.start()
        combine(spec, Step(1), store.path(base), items, lambda data: None)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 24 * (132 << 10), "one read buffer a node, nothing else"
