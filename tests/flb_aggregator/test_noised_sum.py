# SPDX-License-Identifier: Apache-2.0
"""The clipped and noised sum: what one update can move it by, how the noise is spread, and the way back from the blob."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flb.errors import CorruptStore, Fatal
from flb.privacy.clip import ring_norm
from flb.types import Step, TensorSpec
from flb_aggregator import noised_sum
from flb_aggregator.files import Files
from flb_aggregator.noised_sum import ClippedUpdates
from flb_aggregator.pipeline import Input, combine
from tests.central_rounds import Run, blob_of, central_spec
from tests.sim import write_blob

pytestmark = pytest.mark.unit

TENSORS = (TensorSpec("t.lora_A.weight", (1, 7)), TensorSpec("t.lora_B.weight", (5, 1)))
FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)


def clipped_sum(updates: list[np.ndarray], clip_norm: float, folder: Path) -> list[int]:
    spec = central_spec(tensors=TENSORS)
    paths = [write_blob(folder, blob_of(spec, Step(1), values)) for values in updates]
    with Files(paths) as files:
        clipped, total = ClippedUpdates(spec, Step(1), files, clip_norm), []
        for number, tensor in enumerate(TENSORS):
            part = np.zeros(tensor.size, dtype=np.int64)
            clipped.add(number, 0, part)
            total += part.tolist()
    return total


@settings(deadline=None, max_examples=150)
@given(
    honest=st.lists(st.lists(st.floats(-4, 4, width=32), min_size=12, max_size=12), max_size=3),
    hostile=st.lists(FLOATS, min_size=12, max_size=12),
    clip_norm=st.floats(1e-6, 100),
)
def test_clipped_updates__whatever_one_node_sends__the_sum_moves_by_at_most_the_clip_norm(
    tmp_path_factory: pytest.TempPathFactory, honest: list[list[float]], hostile: list[float], clip_norm: float
) -> None:
    folder = tmp_path_factory.mktemp("updates")
    others = [np.array(values, dtype=np.float32) for values in honest]
    without = clipped_sum(others, clip_norm, folder)
    within = clipped_sum([*others, np.array(hostile, dtype=np.float32)], clip_norm, folder)
    moved = sum((one - other) ** 2 for one, other in zip(within, without, strict=True))
    assert moved <= ring_norm(clip_norm, 32) ** 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30, 4.1])
def test_clipped_updates__an_update_that_nobody_may_send__counts_as_zeros(value: float, tmp_path: Path) -> None:
    one, bad = np.full(12, 0.01, dtype=np.float32), np.full(12, 0.01, dtype=np.float32)
    bad[11] = value
    assert clipped_sum([one, bad], 1.0, tmp_path) == clipped_sum([one], 1.0, tmp_path)


def test_clipped_updates__updates_within_the_norm__are_added_as_they_are(tmp_path: Path) -> None:
    updates = [np.full(12, value, dtype=np.float32) for value in (0.25, -0.125, 0.0)]
    assert clipped_sum(updates, 1.0, tmp_path) == [1 << 29] * 12


def test_make__noise_of_the_real_path__has_the_deviation_of_the_record_and_passes_chi_square(tmp_path: Path) -> None:
    tensors = (TensorSpec("t.lora_A.weight", (2, 150_000)), TensorSpec("t.lora_B.weight", (50_000, 2)))
    run = Run(central_spec(tensors=tensors, clip_norm=0.25, multiplier=0.5), tmp_path)
    record = run.make(1, [np.zeros(run.size, dtype=np.float32)] * 3)
    assert record.noise is not None and record.noise.sigma == 0.125
    drawn = run.noised(record) / (record.noise.sigma * 2.0**32)
    assert abs(float(np.mean(drawn**2)) - 1) < 6 * math.sqrt(2 / run.size)
    assert abs(float(np.mean(drawn))) < 6 / math.sqrt(run.size)
    edges = np.linspace(-3, 3, 61)
    counts = np.histogram(drawn, np.concatenate([[-np.inf], edges, [np.inf]]))[0]
    below = [0.0, *(math.erfc(-edge / math.sqrt(2)) / 2 for edge in edges), 1.0]
    expected = np.diff(below) * run.size
    freedom = len(counts) - 1
    assert float(np.sum((counts - expected) ** 2 / expected)) < freedom + 6 * math.sqrt(2 * freedom)


@pytest.mark.parametrize("mode", ["factors", "alternate", "freeze_a"])
def test_combine__noised_sum__divides_by_the_denominator_of_the_spec(mode: str, tmp_path: Path) -> None:
    run = Run(central_spec(mode=mode, denominator=5, multiplier=1e-4), tmp_path)
    record = run.make(1, [np.full(run.size, 0.001, dtype=np.float32)] * 2)
    before, after = run.blobs.get(run.base), run.blobs.get(run.made.adapter_digest)
    moved = np.frombuffer(after[-4 * 256 :], dtype="<f4") - np.frombuffer(before[-4 * 256 :], dtype="<f4")
    mean = run.noised(record).astype(np.float64) / 5 * 2.0**-32
    sent = moved[-run.size :] if mode == "freeze_a" else moved[: run.size] if mode == "alternate" else moved
    if not np.allclose(sent, mean, atol=1e-6):  # alternate begins with B
        sent = moved[-run.size :]
    assert np.allclose(sent, mean, atol=1e-6)
    assert abs(float(np.mean(mean)) - 0.002 / 5) < 1e-4


def test_combine__updates_in_place_of_the_sum__is_a_defect(tmp_path: Path) -> None:
    run = Run(central_spec(), tmp_path)
    paths = [write_blob(tmp_path, blob_of(run.spec, Step(1), np.full(run.size, v, dtype=np.float32))) for v in (0, 1)]
    with pytest.raises(Fatal, match="noised sum"):
        combine(run.spec, Step(1), run.blobs.path(run.base), [Input(1, path) for path in paths], lambda data: None)
    with pytest.raises(CorruptStore, match="no noised sum of step 1"):
        combine(run.spec, Step(1), run.blobs.path(run.base), [Input(1, paths[0])], lambda data: None)


def test_write__memory_and_bytes__follow_from_key_alone(tmp_path: Path) -> None:
    spec, made = central_spec(), []
    paths = [write_blob(tmp_path, blob_of(spec, Step(1), np.full(256, 0.01, dtype=np.float32)))]
    for key in (bytes(32), bytes(32), b"\x01" * 32):
        out = bytearray()
        assert noised_sum.write(spec, Step(1), 0.5, paths, key, out.extend) == 1
        made.append(bytes(out))
    assert made[0] == made[1] != made[2]
