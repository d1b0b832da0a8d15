# SPDX-License-Identifier: Apache-2.0
"""Mode factors with a residual from files: the trained part bit for bit, the frozen part adds what it misses."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from flb.errors import Refused
from flb.lora.shape import A, B
from flb.types import Step
from flb_aggregator.encoded_step import Down
from flb_aggregator.pipeline import combine
from tests.product_rounds import MODULES, Played, product_of, product_spec
from tests.sim import DOMAIN

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("codec", ["f32", "mxint8"])
def test_combine__trained_ranks__are_the_bytes_without_a_residual(codec: str, tmp_path: Path) -> None:
    plain = safetensors.numpy.load(Played(product_spec("factors", codec), tmp_path / "plain").combined())
    whole = safetensors.numpy.load(
        Played(product_spec("factors", codec, residual_rank=3), tmp_path / "whole").combined()
    )
    for module in MODULES:
        assert whole[module + A].shape[0] == whole[module + B].shape[1] == 7
        assert np.array_equal(whole[module + A][:4], plain[module + A])
        assert np.array_equal(whole[module + B][:, :4], plain[module + B])


def test_combine__two_rounds_at_full_rank__add_up_to_the_ideal_mean(tmp_path: Path) -> None:
    """(3 - 1)·4 = 8 ranks hold one round's residual whole, 16 those of two."""
    spec = product_spec("factors", residual_rank=16)
    first = Played(spec, tmp_path / "first")
    adapter = first.combined()
    for module in MODULES:
        assert np.allclose(product_of(adapter, module), first.ideal(module), rtol=0, atol=1e-7)
    second = Played(spec, tmp_path / "second", base=adapter)
    after = second.combined()
    for module in MODULES:
        b, a = second.before(module)
        wanted = second.ideal(module) + b[:, 4:] @ a[4:]
        assert np.allclose(product_of(after, module), wanted, rtol=0, atol=1e-7)


def test_combine__small_rank__keeps_the_best_of_it(tmp_path: Path) -> None:
    played = Played(product_spec("factors", residual_rank=2), tmp_path)
    held = safetensors.numpy.load(played.combined())
    for module in MODULES:
        b, a = held[module + B].astype(np.float64), held[module + A].astype(np.float64)
        rest = played.ideal(module) - b[:, :4] @ a[:4]
        u, s, vt = np.linalg.svd(rest)
        assert np.allclose(b[:, 4:] @ a[4:], (u[:, :2] * s[:2]) @ vt[:2], rtol=0, atol=1e-7)


def test_combine__one_node__has_no_residual(tmp_path: Path) -> None:
    held = safetensors.numpy.load(Played(product_spec("factors", residual_rank=2), tmp_path, weights=(9,)).combined())
    for module in MODULES:
        assert not held[module + B][:, 4:].any() and not held[module + A][4:].any()


def test_combine__encoded_step__is_refused(tmp_path: Path) -> None:
    played = Played(product_spec("factors", residual_rank=2), tmp_path)
    to = Down(DOMAIN.run, bytes(32), None, lambda data: None, lambda data: None)  # type: ignore[arg-type]
    with pytest.raises(Refused, match="residual"):
        combine(played.spec, Step(1), played.base, played.inputs, lambda data: None, to=to)


def test_combine__optimizer_with_moments__is_refused(tmp_path: Path) -> None:
    spec = product_spec("factors", residual_rank=2)
    adam = dataclasses.replace(spec, server_optimizer=dataclasses.replace(spec.server_optimizer, name="adam"))
    with pytest.raises(Refused, match="moments"):
        Played(adam, tmp_path).combined()
