# SPDX-License-Identifier: Apache-2.0
"""Relay on a real port: what is taken, what is refused by which name, and what a restart remembers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from flb.errors import Busy, UnknownRun
from flb.identity import address_of
from flb.membership import Kind, SignedMessage, Status, sign_invite
from flb.types import Digest, Domain, Seconds
from flb.v1 import aggregator_service_pb2 as pb
from flb.v1 import aggregator_service_pb2_grpc as pb_grpc
from flb.wire import messages
from flb_node.faults import translated
from tests.relaying import END, MemorySlots, message
from tests.served import Served, serve
from tests.sim import AGGREGATOR_KEY, DOMAIN, key_of, members, small_spec

pytestmark = pytest.mark.e2e

ROOT = Digest(b"\x0d" * 32)


def call(
    served: Served, sent: Sequence[SignedMessage], domain: Domain = DOMAIN, request: pb.RelayRequest | None = None
) -> list[tuple[str, str]]:
    """State and error of each message."""
    if request is None:
        request = pb.RelayRequest(
            chain_id=domain.chain_id, run=domain.run, messages=map(messages.membership_to_proto, sent)
        )
    with served.channel() as channel, translated():
        answer = pb_grpc.AggregatorServiceStub(channel).Relay(request, timeout=10)  # type: ignore[no-untyped-call]
    return [(pb.RelayState.Name(result.state).removeprefix("RELAY_STATE_"), result.error) for result in answer.results]


def settled(served: Served, sent: Sequence[SignedMessage]) -> list[tuple[str, str]]:
    """Ask until nothing waits."""
    served.await_true(lambda: served.service.relay is not None and not served.service.relay.waiting)
    return call(served, sent)


def test_relay__messages_without_a_session__take_effect_in_one_transaction(tmp_path: Path) -> None:
    chain = MemorySlots()
    batch = [message(5), message(5, Kind.REGISTER_DATASET, 2, ROOT, 7), message(6)]
    with serve(tmp_path, small_spec(), relayed=chain) as served:
        assert call(served, batch) == [("ACCEPTED", "")] * 3
        assert settled(served, batch) == [("MINED", "")] * 3
        assert chain.batches == [batch]
        assert chain.slot(batch[0].message.node).status is Status.ACTIVE


def test_relay__bad_messages__are_each_refused_by_name(tmp_path: Path) -> None:
    chain = MemorySlots(admitter=address_of(AGGREGATOR_KEY))
    chain.enroll(1)
    member = next(index for index in range(3) if address_of(key_of(index)) == members(1)[0].node)
    stranger, other = address_of(key_of(8)), address_of(key_of(9))
    now = chain.now
    bad = {
        "bad signature": (replace(message(member, Kind.LEAVE), compact=b"\x01" * 64), "FLBBadSignature"),
        "foreign chain id": (message(member, Kind.LEAVE, domain=Domain(1, DOMAIN.run)), "FLBBadSignature"),
        "replay": (message(member, Kind.LEAVE, seq=0), "FLBReplayed"),
        "expired": (message(member, Kind.LEAVE, deadline=Seconds(now - 1)), "FLBExpired"),
        "not invited": (message(8), "FLBNotInvited"),
        "invited is another": (message(8, invite=sign_invite(AGGREGATOR_KEY, DOMAIN, other, 0, END)), "FLBNotInvited"),
        "invite is over": (
            message(8, invite=sign_invite(AGGREGATOR_KEY, DOMAIN, stranger, 0, Seconds(now - 1))), "FLBExpired",
        ),
        "no member": (message(8, Kind.LEAVE), "FLBNotMember"),
        "no records": (message(member, Kind.REGISTER_DATASET, 1, ROOT), "FLBZero"),
    }  # fmt: skip
    with serve(tmp_path, small_spec(), relayed=chain) as served:
        assert call(served, [item for item, _ in bad.values()]) == [("REFUSED", error) for _, error in bad.values()]
        assert chain.batches == []


def test_relay__another_run_or_chain__is_refused_by_name(tmp_path: Path) -> None:
    with serve(tmp_path, small_spec(), relayed=MemorySlots()) as served:
        for other in (Domain(1, DOMAIN.run), Domain(DOMAIN.chain_id, address_of(key_of(3)))):
            with pytest.raises(UnknownRun, match="this aggregator serves run"):
                call(served, [message(5)], other)


def test_relay__malformed_messages__are_refused_as_such(tmp_path: Path) -> None:
    good = messages.membership_to_proto(message(5))
    with serve(tmp_path, small_spec(), relayed=MemorySlots()) as served:
        for field, value in {
            "kind": 0, "node": b"", "deadline": 2**40, "subject": b"\x01" * 32, "signature": bytes(65),
            "invite": pb.Invite(deadline=1, signature=b"short"),
        }.items():  # fmt: skip
            changed = pb.MembershipMessage()
            changed.CopyFrom(good)
            if isinstance(value, pb.Invite):
                changed.invite.CopyFrom(value)
            else:
                setattr(changed, field, value)
            request = pb.RelayRequest(chain_id=DOMAIN.chain_id, run=DOMAIN.run, messages=[changed])
            with served.channel() as channel, pytest.raises(grpc.RpcError) as caught:
                pb_grpc.AggregatorServiceStub(channel).Relay(request, timeout=10)  # type: ignore[no-untyped-call]
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, field
            assert dict(caught.value.trailing_metadata())["flb-code"] == "bad-message"


def test_relay__beyond_the_budget__is_busy_with_the_command_also_after_a_restart(tmp_path: Path) -> None:
    chain = MemorySlots(admitter=address_of(AGGREGATOR_KEY))
    chain.enroll(1)
    member = next(index for index in range(3) if address_of(key_of(index)) == members(1)[0].node)
    invited = [
        message(index, invite=sign_invite(AGGREGATOR_KEY, DOMAIN, address_of(key_of(index)), 0, END))
        for index in range(5, 10)
    ]
    run = "0x" + DOMAIN.run.hex()
    with serve(tmp_path, small_spec(), relayed=chain, joins=3) as served:
        call(served, invited[:3])
        assert settled(served, invited[:3]) == [("MINED", "")] * 3
    with serve(tmp_path, small_spec(), relayed=chain, joins=3) as served:  # half of what was charged came back
        with pytest.raises(Busy, match=f"flb chain join {run}"):
            call(served, invited[3:])
        call(served, invited[3:4])
        leave = [message(member, Kind.LEAVE)]
        call(served, leave)
        assert settled(served, leave) == [("MINED", "")]


def test_relay__strangers_of_one_network__are_limited_and_members_are_not(tmp_path: Path) -> None:
    chain = MemorySlots()
    with serve(tmp_path, small_spec(), relayed=chain) as served:
        call(served, [message(index) for index in range(8)])
        with pytest.raises(Busy, match=r"nodes of the network 127\.0\.0\.0/24 joined today"):
            call(served, [message(8)])
        register = [message(0, Kind.REGISTER_DATASET, 2, ROOT, 7)]
        assert call(served, register)[0][0] in ("ACCEPTED", "MINED")


def test_relay__too_many_calls__is_busy(tmp_path: Path) -> None:
    with (
        serve(tmp_path, small_spec(), relayed=MemorySlots()) as served,
        pytest.raises(Busy, match=r"127\.0\.0\.0/24 calls too often"),
    ):
        for _ in range(100):
            call(served, [message(0, Kind.LEAVE)])


def test_relay__an_aggregator_that_relays_nothing__says_what_to_do(tmp_path: Path) -> None:
    with serve(tmp_path, small_spec()) as served, pytest.raises(Exception, match="flb chain join"):
        call(served, [message(5)])
