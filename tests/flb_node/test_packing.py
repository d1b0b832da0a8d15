# SPDX-License-Identifier: Apache-2.0
"""Packing: every example once and whole, rows as full as best fit makes them, the same each time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.errors import ConfigError
from flb_node.packing import check, columns, pack
from flb_node.tokens import IGNORED, Tokens

pytestmark = pytest.mark.unit


def example(length: int, start: int = 1, first: int = 0) -> Tokens:
    return Tokens(tuple(range(first, first + length)), start)


@given(st.lists(st.integers(2, 32), max_size=60))
def test_pack__any_lengths__each_once_and_never_two_rows_that_fit_into_one(lengths: list[int]) -> None:
    rows = [example(length, first=100 * index) for index, length in enumerate(lengths)]
    packed = pack(rows, 32)
    assert sorted(part.ids for row in packed for part in row.parts) == sorted(row.ids for row in rows)
    full = sorted(len(row.ids) for row in packed)
    assert all(length <= 32 for length in full)
    assert len(full) < 2 or full[0] + full[1] > 32
    assert pack(rows, 32) == packed


@pytest.mark.parametrize(("processes", "objective", "named"), [(2, "sft", "one process"), (1, "dpo", "trains dpo")])
def test_check__what_packing_does_not_go_with__config_error(processes: int, objective: str, named: str) -> None:
    check(False, processes, objective)
    check(True, 1, "sft")
    with pytest.raises(ConfigError, match=f"training.packing .*{named}"):
        check(True, processes, objective)


def test_pack__known_lengths__best_fit() -> None:
    packed = pack([example(length) for length in (5, 8, 3, 2, 10)], 10)
    assert [row.lengths for row in packed] == [[10], [8], [5, 3, 2]]


def test_columns__packed__labels_of_each_part_and_none_for_its_first_token() -> None:
    rows = [Tokens((1, 2, 3), 2), Tokens((4, 5), 1)]
    assert columns(rows, 8, packing=True) == {
        "input_ids": [[1, 2, 3, 4, 5]],
        "labels": [[IGNORED, IGNORED, 3, IGNORED, 5]],
        "seq_lengths": [[3, 2]],
    }
    assert columns(rows, 8, packing=False) == {
        "input_ids": [[1, 2, 3], [4, 5]],
        "labels": [[IGNORED, IGNORED, 3], [IGNORED, 5]],
    }
