# SPDX-License-Identifier: Apache-2.0
"""The blob of the moments: canonical, read by the library, and refused unless it is of its run and step."""

import dataclasses
import math

import numpy as np
import pytest
import safetensors.numpy

from flb import moments
from flb.errors import BadContainer
from flb.spec import RunSpec, ServerOptimizerSpec
from flb.types import Step
from tests.sim import TENSORS, small_spec

pytestmark = pytest.mark.unit

TAU = 1e-3


def spec_of(name: str) -> RunSpec:
    return dataclasses.replace(small_spec(), server_optimizer=ServerOptimizerSpec(name, 0.1))


@pytest.mark.parametrize(
    ("name", "count"), [("momentum", 1), ("nesterov", 1), ("adagrad", 1), ("adam", 2), ("yogi", 2)]
)
def test_header__with_the_first_moments__is_a_safetensors_file(name: str, count: int) -> None:
    spec = spec_of(name)
    elements = sum(tensor.size for tensor in TENSORS)
    first = np.empty((elements, count))
    moments.start(spec, TAU, first)
    head = moments.header(spec, Step(3), TAU)
    assert len(head) == moments.header_size(spec, Step(3)) and len(first.tobytes()) == elements * moments.element_size(
        spec
    )
    read = safetensors.numpy.load(head + first.tobytes())
    assert {key: (value.shape, value.dtype) for key, value in read.items()} == {
        tensor.name: ((*tensor.shape, count), np.dtype("f8")) for tensor in TENSORS
    }


@pytest.mark.parametrize("tau", [1e-3, 2.0**-32, 0.1 + 0.2])
def test_read_header__what_the_step_left__gives_tau_exactly(tau: float) -> None:
    spec = spec_of("adam")
    assert moments.read_header(moments.header(spec, Step(12), tau), spec, Step(12)) == tau


@pytest.mark.parametrize(
    ("name", "own", "tau", "legal"),
    [
        ("adam", 0.0, 1e-3, True), ("adam", 1e-3, 1e-3, True), ("momentum", 0.0, 0.0, True), ("momentum", 1e-3, 0.0, True),
        ("adam", 0.0, 0.0, False), ("adam", 1e-3, 2e-3, False), ("adam", 0.0, -1e-3, False), ("adam", 0.0, math.inf, False),
        ("adam", 0.0, math.nan, False), ("momentum", 1e-3, 1e-3, False),
    ],
)  # fmt: skip
def test_read_header__tau_that_the_spec_does_not_allow__is_refused(
    name: str, own: float, tau: float, legal: bool
) -> None:
    spec = dataclasses.replace(spec_of(name), server_optimizer=ServerOptimizerSpec(name, 0.1, tau=own))
    held = moments.header(spec, Step(2), tau)
    if legal:
        assert moments.read_header(held, spec, Step(2)) == tau
    else:
        with pytest.raises(BadContainer, match="not what step 2 left"):
            moments.read_header(held, spec, Step(2))


@pytest.mark.parametrize(
    "held",
    [
        moments.header(spec_of("adam"), Step(4), TAU),
        moments.header(spec_of("yogi"), Step(5), TAU),
        moments.header(dataclasses.replace(spec_of("adam"), tensors=TENSORS[:1]), Step(5), TAU),
        moments.header(spec_of("adam"), Step(5), TAU).replace(b'"version":"1"', b'"version":"2"'),
        moments.header(spec_of("adam"), Step(5), TAU).replace(b'"tau":"3f', b'"tau":"xx'),
        moments.header(spec_of("adam"), Step(5), TAU).replace(b'"tau"', b'"Tau"'),
        moments.header(spec_of("adam"), Step(5), TAU).replace(b'"tau":"3f50', b'"tau":"3F50'),
        moments.header(spec_of("adam"), Step(5), TAU).replace(b'"tau":"3f50', b'"tau":"50'),
        b"",
        bytes(100),
    ],
    ids=["step", "optimizer", "tensors", "version", "no hex", "no tau", "not canonical", "short", "empty", "zeros"],
)
def test_read_header__anything_else__is_refused(held: bytes) -> None:
    with pytest.raises(BadContainer):
        moments.read_header(held, spec_of("adam"), Step(5))


def test_keeps_moments__sgd__has_none() -> None:
    assert not moments.keeps_moments(spec_of("sgd")) and moments.keeps_moments(spec_of("momentum"))
