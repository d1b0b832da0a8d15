# SPDX-License-Identifier: Apache-2.0
"""Absurd but finite numbers of a run spec are named before anything is loaded."""

from dataclasses import replace
from typing import Any

import pytest

from flb.config import AT_MOST
from flb.errors import Refused
from flb.spec import RunSpec
from flb_node import bounds
from tests.sim import small_spec

pytestmark = pytest.mark.unit


def changed(key: str, value: Any) -> RunSpec:
    section, _, name = key.removeprefix("run.").rpartition(".")
    spec = small_spec()
    return replace(spec, **{section: replace(getattr(spec, section), **{name: value})})


def test_check__ordinary_spec__passes() -> None:
    bounds.check(small_spec())


@pytest.mark.parametrize("key", AT_MOST)
def test_check__largest_value__passes_and_the_next_is_named(key: str) -> None:
    most = AT_MOST[key]
    bounds.check(changed(key, most))
    with pytest.raises(
        Refused, match=f"^{key} of the run is .*, and training bears at most {most:,.0f}: ask the operator"
    ):
        bounds.check(changed(key, most * 1.01))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("training.learning_rate", 1e38, r"training.learning_rate of the run is 1e\+38"),
        ("training.learning_rate", 1e308, r"training.learning_rate of the run is 1e\+308"),
        ("training.fedprox_mu", 1e39, r"training.fedprox_mu of the run is 1e\+39"),
        ("training.dpo_beta", 1e39, r"training.dpo_beta of the run is 1e\+39"),
        ("lora.alpha", 0, "lora.alpha of the run is 0, and training needs at least 1"),
        ("lora.r", 0, "lora.r of the run is 0"),
        ("lora.r", 2**40, "lora.r of the run is 1.09951e"),
        ("lora.dropout", 1.0, "lora.dropout of the run is 1, and a share is from 0 to below 1"),
        ("lora.dropout", -0.1, "lora.dropout of the run is -0.1"),
    ],
)
def test_check__absurd_number__is_named(key: str, value: Any, words: str) -> None:
    with pytest.raises(Refused, match=words):
        bounds.check(changed(key, value))
