# SPDX-License-Identifier: Apache-2.0
"""Partitions: every record once, the same for the same seed, and a sentence for a node that would be empty."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.errors import Refused
from flb.partition import Partition, by_column, by_size, digest, dirichlet, iid
from flb.partition.permutation import permutation

pytestmark = pytest.mark.unit

TOPICS = ["a"] * 50 + ["b"] * 30 + ["c"] * 20 + ["d"] * 10


def covers(partition: Partition, records: int) -> bool:
    """Whether each record stands once, in rising order within its node."""
    ordered = all(part == sorted(part) for part in partition)
    return ordered and sorted(index for part in partition for index in part) == list(range(records))


@given(st.integers(1, 200), st.integers(1, 12), st.integers(0, 2**32 - 1))
def test_iid__any_size__equal_parts_of_everything(records: int, nodes: int, seed: int) -> None:
    if nodes > records:
        with pytest.raises(Refused, match="do not reach"):
            iid.partition(records, nodes, seed)
        return
    parts = iid.partition(records, nodes, seed)
    assert covers(parts, records) and max(map(len, parts)) - min(map(len, parts)) <= 1


@given(st.integers(1, 200), st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_by_size__any_shares__sizes_in_proportion_or_refused(records: int, shares: list[int], seed: int) -> None:
    try:
        parts = by_size.partition(records, shares, seed)
    except Refused:
        assert records < len(shares) or min(shares) * records < sum(shares)
        return
    assert covers(parts, records)
    assert all(abs(len(part) - records * share / sum(shares)) <= 1 for part, share in zip(parts, shares, strict=True))


def test_partition__no_node__refused() -> None:
    for call in (
        lambda: iid.partition(10, 0, 1),
        lambda: by_size.partition(10, [], 1),
        lambda: by_column.partition(TOPICS, 0),
        lambda: dirichlet.partition(TOPICS, 0, 1.0, 1),
    ):
        with pytest.raises(Refused, match="a partition over 0 nodes: choose at least 1"):
            call()


@pytest.mark.parametrize("share", [0, -1])
def test_by_size__share_below_one__refused(share: int) -> None:
    with pytest.raises(Refused, match=f"a share of {share}: give each node at least 1"):
        by_size.partition(10, [3, share], 1)


def test_by_column__groups__whole_and_level() -> None:
    parts = by_column.partition(TOPICS, 2)
    assert covers(parts, 110) and [len(part) for part in parts] == [60, 50]
    assert [{TOPICS[index] for index in part} for part in parts] == [{"a", "d"}, {"b", "c"}]
    with pytest.raises(Refused, match="has 4 values, too few for 5 nodes"):
        by_column.partition(TOPICS, 5)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=80), st.integers(1, 5),
       st.floats(1e-3, 1e3), st.integers(0, 2**32 - 1))  # fmt: skip
def test_dirichlet__any_dial__everything_once_or_a_sentence(
    values: list[str], nodes: int, alpha: float, seed: int
) -> None:
    try:
        parts = dirichlet.partition(values, nodes, alpha, seed)
    except Refused as error:
        refused = error.what
        assert "leaves node" in refused or "do not reach" in refused
    else:
        assert covers(parts, len(values)) and all(parts)
        assert parts == dirichlet.partition(values, nodes, alpha, seed)


def test_dirichlet__small_and_large_alpha__skewed_and_level() -> None:
    def largest(alpha: float) -> int:
        """Records that lie with their topic's first node, of 1,100; a third would be level."""
        parts = dirichlet.partition(TOPICS * 10, 3, alpha, 4)
        return sum(max(sum(TOPICS[index % 110] == topic for index in part) for part in parts) for topic in "abcd")

    assert largest(1000.0) < 0.4 * 1100 < 0.7 * 1100 < largest(0.05)


def test_dirichlet__alpha_that_leaves_a_node_empty__refused() -> None:
    with pytest.raises(Refused, match=r"alpha 0.001 with seed 0 leaves node \d of 8 without a record: raise alpha"):
        dirichlet.partition(TOPICS, 8, 0.001, 0)
    for alpha in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(Refused, match="above 0"):
            dirichlet.partition(TOPICS, 2, alpha, 0)


def test_digest__partition__golden_and_sensitive() -> None:
    assert digest([[0, 2], [1]]) != digest([[0], [2, 1]]) != digest([[0, 2], [1], []])
    assert digest(iid.partition(100, 3, 7)).hex() == "0f130842464a26bec2e20ed3336355b72464856a402e907c43e41e229965a947"
    assert (
        digest(by_size.partition(100, [1, 2, 3], 7)).hex()
        == "c75c3693495e75652968552d72c41bed6f4f77fb18d8e881db10e268beaf8457"
    )
    assert (
        digest(by_column.partition(TOPICS, 3)).hex()
        == "80c4fa71b2716132742ca6469e621cf0b5017b065f39fcc03874bb7ad5c62305"
    )
    assert (
        digest(dirichlet.partition(TOPICS, 3, 0.5, 7)).hex()
        == "f1e4ca2225afd526f3314981e535a86f1f010a858bfe43972cb5841d0102ede7"
    )


def test_permutation__seed_and_domain__another_order() -> None:
    orders = [permutation(50, 1), permutation(50, 2), permutation(50, 1, "other")]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
