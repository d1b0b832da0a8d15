# SPDX-License-Identifier: Apache-2.0
"""Groups of equal keys, through the files as through memory."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb_node import duplicates
from flb_node.duplicates import Duplicates

pytestmark = pytest.mark.unit


@given(st.lists(st.tuples(st.binary(max_size=1), st.binary(max_size=1)), max_size=80), st.integers(1, 4))
def test_groups__any_keys__those_that_occur_twice(added: list[tuple[bytes, bytes]], buffered: int) -> None:
    before, duplicates.BUFFERED = duplicates.BUFFERED, buffered
    wanted = defaultdict(list)
    try:
        with Duplicates() as found:
            for mark, (key, tag) in enumerate(added):
                found.add(key, tag, 2**63 | mark)
                wanted[key].append((tag, 2**63 | mark))
            groups = sorted(found.groups(), key=lambda group: group[0][1])
    finally:
        duplicates.BUFFERED = before
    same = [group for group in wanted.values() if len(group) > 1]
    assert [[mark for _, mark in group] for group in groups] == [[mark for _, mark in group] for group in same]
    tags = {tag for group in same for tag, _ in group}
    assert len({tag for group in groups for tag, _ in group}) == len(tags)
