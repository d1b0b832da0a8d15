# SPDX-License-Identifier: Apache-2.0
"""The dataset commitment: stable, salted, and bound to its node."""

from pathlib import Path

import pytest

from flb.errors import CorruptStore
from flb.merkle import dataset_root
from flb_node.commitment import commit, load_secret
from tests.sim import members

pytestmark = pytest.mark.unit

ONE, TWO = (member.node for member in members(2))
RECORDS = [b"first", b"second", b"third"]


def test_load_secret__twice__is_the_same_and_private(tmp_path: Path) -> None:
    secret = load_secret(tmp_path)
    assert len(secret) == 32 and load_secret(tmp_path) == secret
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_load_secret__damaged__is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"short")
    with pytest.raises(CorruptStore, match="is damaged"):
        load_secret(tmp_path)


def test_commit__same_data__same_root_for_the_same_node_and_secret_only() -> None:
    secret, other = bytes(32), b"\x01" * 32
    root, count = commit(ONE, RECORDS, secret)
    assert count == 3 and commit(ONE, RECORDS, secret) == (root, 3)
    others = {commit(TWO, RECORDS, secret)[0], commit(ONE, RECORDS, other)[0], commit(ONE, RECORDS[::-1], secret)[0]}
    assert root not in others and len(others) == 3


def test_commit__root__does_not_follow_from_the_records_alone() -> None:
    from flb.merkle import leaf

    assert commit(ONE, RECORDS, bytes(32))[0] != dataset_root(ONE, [leaf(record) for record in RECORDS])
