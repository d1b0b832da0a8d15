# SPDX-License-Identifier: Apache-2.0
"""What a round leaves where the step travels encoded: three blobs that belong together, in any number of threads."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from flb import down
from flb.errors import CorruptStore
from flb.spec import RunSpec
from flb.store import BlobStore
from flb.types import Address, Codec, Digest, Step, TensorSpec
from flb_aggregator.encoded_step import Down
from flb_aggregator.outcome import Left, blobs_of
from flb_aggregator.pipeline import Input, combine
from flb_aggregator.publish import make_adapter_zero
from tests.coded import decoded
from tests.sim import TENSORS, members, small_spec, update_bytes, write_blob

pytestmark = pytest.mark.unit

RUN = Address(b"\x0f" * 20)
LARGE = (dataclasses.replace(TENSORS[0], shape=(9, 40_001)), TENSORS[1])
"""A spans two spans, and its size is no multiple of 32 or of 8."""
NESTED = (TensorSpec("a", (5, 7)), TensorSpec("a.b", (3, 11)))
"""Of which the file order is a, a.b, a.b.scale, a.scale."""


def wide(mode: str = "factors", tensors: tuple[TensorSpec, ...] = LARGE) -> RunSpec:
    return dataclasses.replace(small_spec(mode, down="mxint8"), tensors=tensors)


def inputs(spec: RunSpec, step: int, folder: Path, base: Digest) -> list[Input]:
    blobs = [update_bytes(spec, Step(step), member, base, scale=1e-3 * step) for member in members(3)]
    return [Input(100, write_blob(folder, blob)) for blob in blobs]


def steps(spec: RunSpec, folder: Path, count: int) -> list[tuple[Digest, Digest, Digest]]:
    """(adapter, remainder, encoded step) of some steps in a row, in `folder`/blobs."""
    store, made = BlobStore(folder / "blobs"), list[tuple[Digest, Digest, Digest]]()
    adapter = make_adapter_zero(spec.tensors, 0, store)
    for number in range(1, count + 1):
        state = store.path(made[-1][1]) if made else None
        items = inputs(spec, number, folder / "updates", adapter)
        blobs = blobs_of(spec, RUN, Step(number), adapter, store.path(adapter), Left(state), items, store)
        made.append((blobs.adapter, blobs.remainder, blobs.down))
        adapter = made[-1][0]
    return made


def values_of(spec: RunSpec, step: int, blob: bytes, base: Digest) -> dict[str, np.ndarray]:
    """The step of a blob."""
    layout = down.step_layout(spec, Step(step), base)
    data = blob[layout.header_size :]
    return {
        tensor.name: decoded(Codec.MXINT8, [data[e.start : e.end] for e in parts], tensor.size).reshape(tensor.shape)
        for tensor, parts in zip(layout.tensors, layout.parts, strict=True)
    }


@pytest.mark.parametrize(
    ("mode", "tensors"), [("factors", LARGE), ("alternate", LARGE), ("factors", NESTED)], ids=["all", "turns", "nested"]
)
def test_combine__two_steps__adapter_step_and_remainder_belong_together(
    mode: str, tensors: tuple[TensorSpec, ...], tmp_path: Path
) -> None:
    spec = wide(mode, tensors)
    store = BlobStore(tmp_path / "blobs")
    before = make_adapter_zero(spec.tensors, 0, store)
    left = {tensor.name: np.zeros(tensor.shape, np.float32) for tensor in tensors}
    for number, (adapter, state, step) in enumerate(steps(spec, tmp_path, 2), 1):
        blob = store.get(step)
        assert set(safetensors.numpy.load(blob)) == {e.name for e in down.step_layout(spec, number, before).entries}
        moved = values_of(spec, number, blob, before)
        old, new = (safetensors.numpy.load(store.get(digest)) for digest in (before, adapter))
        now = safetensors.numpy.load(store.get(state))
        whole = bytearray()
        combine(dataclasses.replace(spec, down="f32"), Step(number), store.path(before),
                inputs(spec, number, tmp_path / "updates", before), whole.extend)  # fmt: skip
        exact = safetensors.numpy.load(bytes(whole))
        for name, values in old.items():
            if name not in moved:
                assert np.array_equal(values, new[name]) and np.array_equal(left[name], now[name])
                continue
            assert np.array_equal(new[name], (values.astype(np.float64) + moved[name]).astype(np.float32))
            assert np.allclose(exact[name] - values + left[name], moved[name] + now[name], rtol=0, atol=1e-7)
            assert np.any(now[name])
        before, left = adapter, now


def test_combine__any_number_of_threads__gives_the_same_three_blobs(tmp_path: Path) -> None:
    spec, store = wide(), BlobStore(tmp_path / "blobs")
    base = make_adapter_zero(spec.tensors, 0, store)
    items, results = inputs(spec, 1, tmp_path / "updates", base), set()
    for threads in (1, 2, 5):
        adapter, step, state = bytearray(), bytearray(), bytearray()
        to = Down(RUN, base, None, step.extend, state.extend)
        combine(spec, Step(1), store.path(base), items, adapter.extend, threads, to)
        results.add((bytes(adapter), bytes(step), bytes(state)))
    assert len(results) == 1


def test_combine__remainder_of_another_step__is_refused(tmp_path: Path) -> None:
    spec, store = wide(), BlobStore(tmp_path / "blobs")
    (adapter, state, step), _ = steps(spec, tmp_path, 2)
    items = inputs(spec, 3, tmp_path / "updates", adapter)
    for wrong in (state, step, adapter):
        with pytest.raises(CorruptStore, match="is not what the step before left"):
            blobs_of(spec, RUN, Step(3), adapter, store.path(adapter), Left(store.path(wrong)), items, store)


def test_blobs_of__adapter_travels_whole__makes_no_step_and_no_remainder(tmp_path: Path) -> None:
    spec = dataclasses.replace(wide(), down="f32")
    adapter, state, step = steps(spec, tmp_path, 1)[0]
    assert not any(state) and not any(step) and BlobStore(tmp_path / "blobs").has(adapter)
