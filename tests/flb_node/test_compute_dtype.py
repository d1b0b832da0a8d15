# SPDX-License-Identifier: Apache-2.0
"""The choice between float32 and bfloat16."""

import pytest

from flb_node.compute_dtype import candidates, choose

pytestmark = pytest.mark.model


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({"float32": 2.0, "bfloat16": 1.0}, "bfloat16"),
        ({"float32": 1.0, "bfloat16": 2.0}, "float32"),
        ({"float32": 1.0, "bfloat16": 0.95}, "float32"),
    ],
)
def test_choose__times__faster_by_a_margin(seconds: dict[str, float], expected: str) -> None:
    assert choose(seconds) == expected


def test_candidates__cpu__both() -> None:
    assert set(candidates("cpu")) == {"float32", "bfloat16"}
