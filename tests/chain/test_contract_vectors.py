# SPDX-License-Identifier: Apache-2.0
"""The contract against proto/vectors: digests of signed messages, and both trees."""

import json
from pathlib import Path
from typing import Any

import pytest

from flb import merkle
from flb.chain import abi
from flb.chain.registry import call_view
from flb.chain.sender import Sender
from flb.merkle import keccak256
from flb.types import ZERO_DIGEST, Address, Digest
from tests.chains import Deployed, account

pytestmark = pytest.mark.chain

FOLDER = Path(__file__).resolve().parents[2] / "proto" / "vectors"
KINDS = ("Join", "Leave", "RotateKey", "RegisterDataset", "RevokeDataset")
OUTCOMES = ("NodeJoined", "NodeLeft", "KeyRotated", "DatasetRegistered", "DatasetRevoked")
MEMBERS_SLOT, ADMITTER_SLOT = 10, 12
"""Places in the storage of a run, as contracts/test/Base.t.sol has them."""
ACTIVE = 1
NO_INVITE = (0, ZERO_DIGEST, ZERO_DIGEST)
Case = dict[str, Any]


def cases(topic: str) -> list[Case]:
    every: list[Case] = json.loads((FOLDER / f"{topic}.json").read_text())["cases"]
    return every


def raw(value: str) -> bytes:
    return bytes.fromhex(value.removeprefix("0x"))


def kind_of(case: Case) -> str:
    return str(case["type"]).partition("(")[0]


JOIN, *_, INVITE = cases("membership")


@pytest.fixture
def relay(deployed: Deployed) -> Sender:
    """Sends to a run at the address of the vectors."""
    run = Address(raw(JOIN["domain"]["verifyingContract"]))
    code = deployed.rpc.data("eth_getCode", "0x" + deployed.run.hex(), "latest")
    deployed.rpc.call("hardhat_setCode", "0x" + run.hex(), "0x" + code.hex())
    sender = account(deployed.rpc)
    sender.run = run
    return sender


def store(sender: Sender, slot: bytes | int, value: int) -> None:
    assert sender.run is not None
    place = int.from_bytes(slot, "big") if isinstance(slot, bytes) else slot
    sender.rpc.call("hardhat_setStorageAt", "0x" + sender.run.hex(), hex(place), "0x" + value.to_bytes(32, "big").hex())


def store_member(sender: Sender, node: Address, seq: int, removals: int, status: int) -> None:
    word = int.from_bytes(node, "big") | seq << 160 | removals << 224 | status << 240
    store(sender, keccak256(node.rjust(32, b"\0") + MEMBERS_SLOT.to_bytes(32, "big")), word)


def relayed(sender: Sender, case: Case, invite: tuple[Any, ...] = NO_INVITE) -> list[Any]:
    """The topics of what the contract emits for a message."""
    m, compact = case["message"], raw(case["compact"])
    subject = raw(m.get("payee") or m.get("key") or m.get("root") or "0x").rjust(32, b"\0")
    entry = (KINDS.index(kind_of(case)), raw(m["node"]), m["seq"], m["deadline"], subject, int(m.get("records", 0)),
             compact[:32], compact[32:], invite)  # fmt: skip
    names = {signature: item.name for signature, item in abi.load("FLBRun").events.items()}
    return [names[raw(log["topics"][0])] for log in sender.invoke("relay", [entry]).logs]


@pytest.mark.parametrize("case", cases("membership")[:-1], ids=kind_of)
def test_relay__message_of_the_vectors__takes_effect(relay: Sender, case: Case) -> None:
    kind = KINDS.index(kind_of(case))
    store(relay, ADMITTER_SLOT, 0)
    store_member(relay, Address(raw(case["signer"])), case["message"]["seq"] - 1, 0, ACTIVE if kind else 0)
    assert relayed(relay, case) == [OUTCOMES[kind]]


def test_relay__invite_of_the_vectors__admits(relay: Sender) -> None:
    store(relay, ADMITTER_SLOT, int(INVITE["signer"], 16))
    compact, node = raw(INVITE["compact"]), Address(raw(JOIN["signer"]))
    invite = (INVITE["message"]["deadline"], compact[:32], compact[32:])
    store_member(relay, node, 0, INVITE["message"]["removals"] - 1, 0)
    assert relayed(relay, JOIN, invite) == ["RelaySkipped"]
    store_member(relay, node, 0, INVITE["message"]["removals"], 0)
    assert relayed(relay, JOIN, invite) == ["NodeJoined"]


def test_verify_update__tree_of_the_vectors__holds(deployed: Deployed) -> None:
    (case,) = [case for case in cases("merkle") if case["tree"] == "updates" and case["updates"]]
    accepted = len(case["updates"])
    deployed.owner.start()
    some = Digest(b"\x11" * 32)
    mined = deployed.aggregator.invoke("roll", 1, (some, some, raw(case["root"]), some, ZERO_DIGEST, accepted, 1))
    data = raw(mined.logs[0]["data"])
    words = [data[at : at + 32] for at in range(0, len(data), 32)]
    record = (1, ZERO_DIGEST, *words[1:7], *(int.from_bytes(word, "big") for word in words[7:]))
    sentinels = [Address(bytes(20)), Address(b"\xff" * 20)]
    low, high = (merkle.update_leaf(node, 0, *3 * [ZERO_DIGEST]) for node in sentinels)
    leaves = [low, *(Digest(raw(leaf)) for leaf in case["leaves"]), high]
    for index, one in enumerate(case["updates"], 1):
        fields = (
            raw(one["node"]),
            int(one["weight"]),
            *(raw(one[n]) for n in ("digest", "tensor_root", "dataset_root")),
        )
        for at in range(accepted + 2):
            proof = merkle.path(leaves, index)
            held = call_view(deployed.rpc, deployed.run, "verifyUpdate", record, *fields, at, proof)
            assert held == (at == index,)
