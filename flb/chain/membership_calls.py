# SPDX-License-Identifier: Apache-2.0
"""Membership on the chain: a node's slot, the rules, relayed batches and their simulation.

`relay` skips a bad entry instead of reverting, and `eth_call` gives no logs. So a batch is simulated by code of our own
that the chain runs as if it were deployed: it calls `relay`, then reads `member` of each node, and gives the slots
back. A message took effect if the slot holds its `seq`. Any endpoint can do that; `eth_simulateV1` few can.
"""

from collections.abc import Sequence
from typing import Any

from flb.chain.events import from_log
from flb.chain.refusal import error_name
from flb.chain.registry import call_view
from flb.chain.rpc import MALFORMED, Rpc, malformed
from flb.chain.sender import Mined, Sender, calldata
from flb.events import ChainRelaySkipped
from flb.membership import NO_INVITE, Invite, Rules, SignedMessage, Slot, Status
from flb.types import Address, Digest

SLOT_BYTES = 5 * 32
"""What `member` returns; `seq` is its second word."""


def read_slot(rpc: Rpc, run: Address, node: Address) -> Slot:
    """What the contract holds of a node. Raises ChainUnavailable or LostChain."""
    named = "0x" + node.hex()
    payee, seq, status, datasets, removals = call_view(rpc, run, "member", named)
    (key,) = call_view(rpc, run, "keyOf", named)
    return Slot(payee, key, seq, Status(status), datasets, removals)


def read_rules(rpc: Rpc, run: Address) -> Rules:
    """Admitter, end of the run, and time of the newest block. Raises ChainUnavailable or LostChain."""
    (admitter,) = call_view(rpc, run, "admitter")
    finished = call_view(rpc, run, "head")[3]
    return Rules(admitter, finished, rpc.newest().time)


def invite_fields(invite: Invite) -> tuple[Any, ...]:
    """IFLBRun.Invite."""
    return invite.deadline, invite.compact[:32], invite.compact[32:]


def message_fields(signed: SignedMessage) -> tuple[Any, ...]:
    """IFLBRun.Message."""
    m = signed.message
    return (
        int(m.kind), m.node, m.seq, m.deadline, m.subject, m.records, signed.compact[:32], signed.compact[32:],
        invite_fields(signed.invite),
    )  # fmt: skip


def relay_data(messages: Sequence[SignedMessage]) -> bytes:
    """Calldata of `relay`."""
    return calldata("FLBRun", "relay", [message_fields(signed) for signed in messages])


def simulate(rpc: Rpc, run: Address, messages: Sequence[SignedMessage]) -> tuple[bool, ...]:
    """Which messages would take effect if they were relayed now, in this order. Raises ChainUnavailable.

    Of several messages of one node only those up to the highest `seq` that held are known to have had effect, which
    is exact where they stand in rising order.
    """
    nodes = list(dict.fromkeys(signed.message.node for signed in messages))
    code = probe(run, relay_data(messages), [calldata("FLBRun", "member", "0x" + node.hex()) for node in nodes])
    answer = rpc.data("eth_call", {"data": "0x" + code.hex()}, "latest")
    if len(answer) != SLOT_BYTES * len(nodes):
        raise malformed(rpc.url, "eth_call")
    held = {
        node: int.from_bytes(answer[SLOT_BYTES * index + 32 : SLOT_BYTES * index + 64], "big")
        for index, node in enumerate(nodes)
    }
    return tuple(signed.message.seq <= held[signed.message.node] for signed in messages)


def _push(value: int) -> bytes:
    """PUSH3, so that the code's length does not depend on what it names."""
    return b"\x62" + value.to_bytes(3, "big")


def probe(run: Address, call: bytes, views: Sequence[bytes]) -> bytes:
    """Code that calls `run` with `call`, then with each of `views`, and returns the answers, SLOT_BYTES each.

    Source of the opcodes: https://www.evm.codes.
    """
    target = b"\x73" + run
    data = call + b"".join(views)
    out = len(data)

    def code(start: int) -> bytes:
        parts = [_push(len(data)) + _push(start) + _push(0) + b"\x39"]  # CODECOPY(0, start, length)
        # CALL(gas, run, 0, 0, length, 0, 0)
        parts.append(_push(0) * 2 + _push(len(call)) + _push(0) * 2 + target + b"\x5a\xf1\x50")
        at = len(call)
        for index, view in enumerate(views):
            # STATICCALL(gas, run, at, length, out, SLOT_BYTES)
            parts.append(_push(SLOT_BYTES) + _push(out + SLOT_BYTES * index) + _push(len(view)) + _push(at) + target)
            parts.append(b"\x5a\xfa\x50")
            at += len(view)
        parts.append(_push(SLOT_BYTES * len(views)) + _push(out) + b"\xf3")  # RETURN(out, length)
        return b"".join(parts)

    return code(len(code(0))) + data


def skipped(mined: Mined, run: Address) -> dict[int, str]:
    """The entries of a mined `relay` that the contract skipped: index to the name of its error. Raises
    ChainUnavailable for a malformed receipt."""
    try:
        logs = [log for log in mined.logs if log["address"].lower() == "0x" + run.hex()]
    except MALFORMED as error:
        raise malformed("the chain", "eth_getTransactionReceipt") from error
    events = (from_log(log) for log in logs)
    return {event.index: error_name(event.reason) for event in events if isinstance(event, ChainRelaySkipped)}


def join(sender: Sender, payee: Address, invite: Invite = NO_INVITE) -> Mined:
    """Become a member, paid at `payee`; zero means the account itself. Raises as `Sender.send` does, as all below do."""
    return sender.invoke("join", payee, invite_fields(invite))


def leave(sender: Sender, node: Address) -> Mined:
    """Leave, as the node's key."""
    return sender.invoke("leave", node)


def rotate_key(sender: Sender, node: Address, key: Address) -> Mined:
    """Give a node another key, as its present key or its payee."""
    return sender.invoke("rotateKey", node, key)


def set_payee(sender: Sender, node: Address, payee: Address) -> Mined:
    """Give a node another payee, as the present one."""
    return sender.invoke("setPayee", node, payee)


def register_dataset(sender: Sender, node: Address, root: Digest, records: int) -> Mined:
    """Commit to a dataset, as the node's key."""
    return sender.invoke("registerDataset", node, root, records)


def revoke_dataset(sender: Sender, node: Address, root: Digest) -> Mined:
    """Take a dataset back, as the node's key."""
    return sender.invoke("revokeDataset", node, root)


def relay(sender: Sender, messages: Sequence[SignedMessage]) -> Mined:
    """Bring signed messages to the chain in one transaction."""
    assert sender.run is not None
    return sender.send(sender.run, relay_data(messages))
