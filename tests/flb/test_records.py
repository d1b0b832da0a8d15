# SPDX-License-Identifier: Apache-2.0
"""Records: canonical, complete, and unforgiving."""

import dataclasses
import hashlib
import json

import pytest
import rfc8785

from flb import records
from flb.errors import BadMessage
from flb.merkle import keccak256, update_leaf, updates_root
from flb.payouts import Standing, payout_tree, scores_tree
from flb.types import ZERO_DIGEST, Admitted, Digest
from tests.sim import DOMAIN, key_for, manifest_for, members, opening, signed, small_spec

pytestmark = pytest.mark.unit

SPEC = small_spec()


def closing() -> records.Closing:
    opened = opening()
    admitted = []
    for member in members(3)[:2]:
        manifest = manifest_for(SPEC, opened, member, member.node)
        admitted.append(Admitted(manifest, signed(manifest, key_for(member)), 50, b"\x11" * 65))
    return records.Closing(tuple(admitted), (), (members(3)[2].node,))


def record() -> records.Record:
    rows = tuple(Standing(member.node, 50 * n, 100 * n, 2**200 * n) for n, member in enumerate(members(3)))
    return records.make(
        DOMAIN, Digest(b"\x01" * 32), opening(), ZERO_DIGEST, closing(), Digest(b"\x02" * 32), standings=rows,
        round_payout=1,
    )  # fmt: skip


def test_encode__round_trip__is_identity() -> None:
    assert records.decode(records.encode(record())) == record()


def test_make__roots_and_sums__follow_from_the_closing() -> None:
    made = record()
    assert made.weight_sum == 100
    leaves = [
        update_leaf(a.node, a.weight, a.manifest.digest, ZERO_DIGEST, a.manifest.dataset_root)
        for a in made.closing.admitted
    ]
    assert made.updates_root == updates_root(leaves)


def test_make__standings__give_both_roots_and_no_payout_root_where_nothing_is_paid() -> None:
    made = record()
    assert (made.scores_root, made.payout_root) == (scores_tree(made.standings).root, payout_tree(made.standings).root)
    opened, zero = opening(), Digest(b"\x02" * 32)
    free = records.make(DOMAIN, zero, opened, ZERO_DIGEST, closing(), zero, standings=made.standings, round_payout=0)
    assert (free.scores_root, free.payout_root) == (made.scores_root, ZERO_DIGEST)


@pytest.mark.parametrize(
    "rows",
    [
        [("02", "1", "1", "1"), ("01", "1", "1", "1")],
        [("01", "1", "1", "1"), ("01", "1", "1", "1")],
        [("01", "-1", "1", "1")],
        [("01", "1", str(2**256), "1")],
        [("01", "1", "1", "01")],
        [("01", "1", "1", 1)],
    ],
    ids=["order", "twice", "negative", "too large", "leading zero", "no text"],
)
def test_decode__standings_that_are_never_written__are_refused(rows: list[tuple[object, ...]]) -> None:
    value = json.loads(records.encode(record()))
    names = ("node", "score", "total", "payout")
    value["standings"] = [dict(zip(names, ("0x" + str(row[0]) * 20, *row[1:]), strict=True)) for row in rows]
    with pytest.raises(BadMessage):
        records.decode(rfc8785.dumps(value))


def test_roll_of__digest__is_of_the_blob() -> None:
    blob = records.encode(record())
    roll = records.roll_of(record(), blob)
    assert roll.record_digest == hashlib.sha256(blob).digest() and roll.accepted == 2


def test_decode__any_flipped_bit__is_refused_or_another_record() -> None:
    blob = records.encode(record())
    for position in range(0, len(blob), 7):
        altered = bytearray(blob)
        altered[position] ^= 1
        try:
            assert records.decode(bytes(altered)) != record()
        except BadMessage:
            pass


@pytest.mark.parametrize("blob", [b"", b"{}", b"[]", b"\xff", b"null", b"1e999"])
def test_decode__other_json__is_refused(blob: bytes) -> None:
    with pytest.raises(BadMessage, match="the record blob is malformed"):
        records.decode(blob)


def test_decode__another_spelling__is_refused() -> None:
    blob = json.dumps(json.loads(records.encode(record())), indent=1).encode()
    with pytest.raises(BadMessage, match="not canonical"):
        records.decode(blob)


def test_roll_hash__golden__never_changes() -> None:
    roll = records.roll_of(record(), b"blob")
    hashed = records.roll_hash(dataclasses.replace(roll, accepted=2), Digest(b"\x03" * 32), Digest(b"\x04" * 32), 99)  # type: ignore[arg-type]
    words = [
        roll.round, b"\x03" * 32, roll.record_digest, roll.adapter_digest, roll.updates_root, roll.scores_root,
        roll.payout_root, b"\x04" * 32, 2, 100, 99,
    ]  # fmt: skip
    packed = b"".join(w.to_bytes(32, "big") if isinstance(w, int) else w for w in words)
    assert hashed == keccak256(records.ROLL_TYPE + packed)


def test_void_hash__differs_from_a_roll() -> None:
    hashed = records.void_hash(1, ZERO_DIGEST, ZERO_DIGEST, 1)  # type: ignore[arg-type]
    assert hashed == keccak256(records.VOID_TYPE + (1).to_bytes(32, "big") + bytes(64) + (1).to_bytes(32, "big"))


def test_hashes__known_inputs__equal_the_contract_s() -> None:
    """The same two values stand in contracts/test/FLBRun.t.sol."""
    word = [Digest(bytes([n]) * 32) for n in range(8)]
    roll = records.Roll(7, word[2], word[3], word[4], word[5], word[6], 8, 9)  # type: ignore[arg-type]
    hashed = records.roll_hash(roll, word[1], word[7], 1_800_000_000)  # type: ignore[arg-type]
    assert hashed.hex() == "b7069691f59350f6de56ed725dcbd1331e16c86e6088cc18b57304d90e4f35aa"
    hashed = records.void_hash(7, word[1], word[7], 1_800_000_000)  # type: ignore[arg-type]
    assert hashed.hex() == "24d154bcc87b55f6d47351ff274853247c01de7bc7509dfc69765dd25539ac02"
