# SPDX-License-Identifier: Apache-2.0
"""Moments that another machine left: rounding passes, and no tensor and no moment hides behind a larger one."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from flb import moments
from flb.spec import RunSpec
from flb.types import Step
from flb_aggregator.certify import near_moments
from tests.product_rounds import product_spec

pytestmark = pytest.mark.unit

STEP = Step(3)


def adam() -> RunSpec:
    spec = product_spec(align=True)
    return dataclasses.replace(spec, server_optimizer=dataclasses.replace(spec.server_optimizer, name="adam"))


def left(spec: RunSpec, first: float = 1e-3) -> list[np.ndarray]:
    """m of about 1e-3 (`first` in the first tensor) and v of about 1e-6 for every tensor, as (P, 2)."""
    random, made = np.random.default_rng(5), []
    for number, tensor in enumerate(spec.tensors):
        m = random.standard_normal(tensor.size) * (1e-3 if number else first)
        made.append(np.stack([m, 1e-8 + m * m], axis=1))
    return made


def written(spec: RunSpec, arrays: list[np.ndarray], path: Path, tau: float = 1e-4) -> Path:
    path.write_bytes(moments.header(spec, STEP, tau) + b"".join(array.astype("<f8").tobytes() for array in arrays))
    return path


def judged(tmp_path: Path, own: list[np.ndarray], published: list[np.ndarray], tau: float = 1e-4) -> list[str]:
    spec = adam()
    paths = written(spec, own, tmp_path / "own"), written(spec, published, tmp_path / "published", tau)
    return near_moments(spec, STEP, *paths)


def test_near_moments__rounding__passes(tmp_path: Path) -> None:
    own = left(adam())
    assert judged(tmp_path, own, [array * (1 + 1e-6) for array in own]) == []


@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("moment", [0, 1])
def test_near_moments__one_moment_of_one_tensor_is_another__is_named(
    moment: int, factor: float, tmp_path: Path
) -> None:
    """v is a thousandth of m in size, so a tolerance for both together would let any v pass."""
    own = left(adam())
    published = [array.copy() for array in own]
    published[2][:, moment] *= factor
    assert judged(tmp_path, own, published) == [adam().tensors[2].name]


def test_near_moments__not_a_number__is_named(tmp_path: Path) -> None:
    own = left(adam())
    published = [array.copy() for array in own]
    published[1][3, 1] = np.nan
    assert judged(tmp_path, own, published) == [adam().tensors[1].name]


def test_near_moments__tensor_that_rests__may_hold_other_rounding(tmp_path: Path) -> None:
    own, published = left(adam(), first=1e-13), left(adam(), first=-1e-13)
    assert judged(tmp_path, own, published) == []


def test_near_moments__another_tau_or_length__is_told(tmp_path: Path) -> None:
    own = left(adam())
    assert judged(tmp_path, own, own, tau=2e-4) == ["header"]
    assert judged(tmp_path, own, own[:-1]) == ["header"]
