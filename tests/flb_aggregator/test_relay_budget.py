# SPDX-License-Identifier: Apache-2.0
"""What is spent on others in a day: two purses, counts by network and by node, and a restart."""

from pathlib import Path

import pytest

from flb.errors import Busy
from flb.membership import Kind
from flb_aggregator.relay_budget import GAS, MEMBER_SHARE, NODE_MESSAGES, Budget, network_of
from tests.relaying import message

pytestmark = pytest.mark.unit

JOINS = 3


def budget(folder: Path, now: float = 1_000_000.0, joins: int = JOINS) -> Budget:
    return Budget(folder / "relay.json", "0xrun", joins * GAS[Kind.JOIN], 2, lambda: now)


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("ipv4:10.1.2.3:4242", "10.1.2.0/24"),
        ("ipv6:%5B2001:db8:1:2ff:3::4%5D:4242", "2001:db8:1:200::/56"),
        ("ipv6:[2001:db8:1:2aa:3::4]:1", "2001:db8:1:200::/56"),
        ("ipv6:%5B::ffff:10.1.2.9%5D:4242", "10.1.2.0/24"),
        ("ipv6:%5Bfe80::1%25eth0%5D:4242", "fe80::/56"),
        ("unix:/run/flb.sock", "unix:/run/flb.sock"),
        ("", ""),
    ],
)
def test_network_of__peer__is_its_prefix(peer: str, network: str) -> None:
    assert network_of(peer) == network


def test_charge__beyond_the_days_gas__names_the_command_and_members_go_on(tmp_path: Path) -> None:
    made = budget(tmp_path)
    for index in range(JOINS):
        made.charge([message(index)], f"net {index}", True)
    with pytest.raises(Busy, match=r"spent today's gas.*flb chain join 0xrun") as caught:
        made.charge([message(9)], "net 9", True)
    assert 0 < caught.value.retry_seconds <= 600
    for kind in (Kind.LEAVE, Kind.REGISTER_DATASET):
        made.charge([message(10, kind)], "net 0", True)
    with pytest.raises(Busy, match="flb chain rotate-key 0xrun"):
        made.charge([message(index, Kind.ROTATE_KEY) for index in (11, 12, 13)], "net 1", True)


def test_charge__who_joined_today_where_membership_is_open__cannot_reach_the_members_budget(tmp_path: Path) -> None:
    made = budget(tmp_path)
    made.charge([message(0), message(1)], "a", True)
    made.charge([message(0, Kind.LEAVE)], "a", True)
    assert set(made.spent) == {"joins"}
    with pytest.raises(Busy, match="spent today's gas"):
        made.charge([message(1, Kind.LEAVE)], "a", True)
    made.charge([message(9, Kind.LEAVE)], "a", True)
    tomorrow = budget(tmp_path, now=1_000_000.0 + 86_400)
    tomorrow.charge([message(1, Kind.LEAVE)], "a", True)
    assert set(tomorrow.spent) == {"members"}


def test_charge__who_was_invited__is_a_member_at_once(tmp_path: Path) -> None:
    made = budget(tmp_path)
    made.charge([message(0), message(0, Kind.REGISTER_DATASET, 2)], "a", False)
    assert made.spent == {"joins": GAS[Kind.JOIN], "members": GAS[Kind.REGISTER_DATASET]}


def test_charge__members_of_one_network__are_limited_where_membership_is_open(tmp_path: Path) -> None:
    made = budget(tmp_path, joins=1000)
    made.charge([message(index, Kind.LEAVE) for index in range(2 * MEMBER_SHARE)], "a", True)
    with pytest.raises(Busy, match="8 messages of the network a came today"):
        made.charge([message(20, Kind.LEAVE)], "a", True)
    made.charge([message(20, Kind.LEAVE)], "b", True)
    made.charge([message(21, Kind.LEAVE)], "a", False)


def test_charge__beyond_a_networks_joins__counts_strangers_alone(tmp_path: Path) -> None:
    made = budget(tmp_path, joins=100)
    made.charge([message(0), message(1)], "10.0.0.0/24", True)
    with pytest.raises(Busy, match=r"2 nodes of the network 10\.0\.0\.0/24 joined today"):
        made.charge([message(2)], "10.0.0.0/24", True)
    made.charge([message(2)], "10.0.1.0/24", True)
    made.charge([message(3), message(4), message(5)], "10.0.0.0/24", False)


def test_charge__too_many_of_one_node__is_refused(tmp_path: Path) -> None:
    made = budget(tmp_path, joins=100)
    made.charge([message(0, Kind.LEAVE, seq) for seq in range(NODE_MESSAGES)], "a", False)
    with pytest.raises(Busy, match=f"has sent {NODE_MESSAGES} messages today"):
        made.charge([message(0, Kind.LEAVE)], "a", False)


def test_charge__refused__counts_nothing(tmp_path: Path) -> None:
    made = budget(tmp_path)
    for _ in range(5):
        with pytest.raises(Busy):
            made.charge([message(index) for index in range(JOINS + 1)], "a", False)
    made.charge([message(index) for index in range(JOINS)], "a", False)


def test_budget__after_a_restart__is_as_before_until_the_next_day(tmp_path: Path) -> None:
    budget(tmp_path).charge([message(0), message(1)], "a", True)
    with pytest.raises(Busy, match="joined today"):
        budget(tmp_path).charge([message(2)], "a", True)
    budget(tmp_path, now=1_000_000.0 + 86_400).charge([message(2)], "a", True)


def test_budget__with_a_damaged_note__is_spent_for_the_day(tmp_path: Path) -> None:
    (tmp_path / "relay.json").write_text('{"day": ')
    with pytest.raises(Busy):
        budget(tmp_path).charge([message(0)], "a", True)
    made = budget(tmp_path)
    made.now = lambda: 1_000_000.0 + 86_400
    made.charge([message(0)], "a", True)


def test_settle__cheaper_batch__gives_the_rest_back(tmp_path: Path) -> None:
    made = budget(tmp_path)
    batch = [message(index) for index in range(JOINS)]
    made.charge(batch, "a", False)
    made.settle(batch, JOINS * GAS[Kind.JOIN] // 2)
    assert made.spent == {"joins": JOINS * GAS[Kind.JOIN] // 2}
    made.charge([message(9)], "a", False)


def test_budget__of_zero__relays_nothing(tmp_path: Path) -> None:
    with pytest.raises(Busy, match="flb chain leave"):
        budget(tmp_path, joins=0).charge([message(0, Kind.LEAVE)], "a", False)
