# SPDX-License-Identifier: Apache-2.0
"""Gas of the registry's calls through a clone on the local chain, read from real receipts.

    python -m bench.gas [--json]

`roll` and `claim` have a figure for each number of nodes: the updates tree and the payout tree of the round have so many
real leaves, the ring of record hashes is full, and the claim is a later one, with a proof as long as any in its tree.
`roll_cold` is the dearest roll while the ring is being filled, `claim_first` the first claim of a node whose payee has
no token yet, out of the largest tree. Relayed joins come in batches of 200 and are figures a node.
"""

import argparse
import json
import secrets
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

from flb import membership, merkle, standard_tree
from flb.chain import abi, deploy, local
from flb.chain.rpc import Rpc
from flb.chain.sender import Mined, Sender, calldata
from flb.identity import address_of
from flb.membership import Kind
from flb.records import RING
from flb.types import ZERO_ADDRESS, ZERO_DIGEST, Address, Digest, Domain, Seconds
from flb_cli.cache import cache_folder

NODES = (10, 100, 1_000, 10_000)
"""Numbers of nodes with a figure of their own."""
BATCH = 200
"""Messages in a relayed batch."""
FAR = Seconds(2**40 - 1)
"""A deadline that never comes."""
Figures = dict[str, Any]
"""What `--json` prints."""


@dataclass(frozen=True, slots=True)
class Field:
    """A run on a chain, and who acts in it."""

    rpc: Rpc
    run: Address
    domain: Domain
    owner: Sender
    aggregator: Sender
    admitter: bytes
    """Private key."""


def some(size: int = 32) -> Digest:
    """Random bytes without a zero: the dearest calldata."""
    return Digest(bytes(1 + byte % 255 for byte in secrets.token_bytes(size)))


def account(rpc: Rpc, run: Address | None = None) -> Sender:
    """A new account with coins."""
    sender = Sender(rpc, some(), run)
    local.fund(rpc, sender.address)
    return sender


def arrange(rpc: Rpc, paid: bool) -> Field:
    """A new run, started: with open membership, or with an admitter and a token that it holds plenty of."""
    owner, aggregator, admitter, token = account(rpc), account(rpc), some(), ZERO_ADDRESS
    if paid:
        token = owner.send(None, abi.load("FLBToken").bytecode).contract or ZERO_ADDRESS
    settings = deploy.Settings(
        spec=some(),
        adapter=some(),
        steps=10 * RING,
        round_seconds=100,
        grace_seconds=100,
        owner=owner.address,
        aggregator=aggregator.address,
        admitter=address_of(admitter) if paid else ZERO_ADDRESS,
        token=token,
        min_round_seconds=0,
        payout_delay_seconds=0,
    )
    run, _ = deploy.create_run(owner, deploy.deploy_factory(owner), settings)
    owner.run = aggregator.run = run
    if paid:
        owner.send(token, calldata("FLBToken", "mint", run, 2**128))
    owner.invoke("start")
    return Field(rpc, run, Domain(rpc.chain_id(), run), owner, aggregator, admitter)


def invite(field: Field, node: Address) -> tuple[int, bytes, bytes]:
    """An invite as the contract takes it."""
    word = membership.sign_invite(field.admitter, field.domain, node, 0, FAR)
    return word.deadline, word.compact[:32], word.compact[32:]


def relayed(field: Field, invited: bool) -> int:
    """Gas a node of a batch of joins, each to a payee of its own."""
    batch = []
    for _ in range(BATCH):
        key = some()
        node = address_of(key)
        message = membership.Message(Kind.JOIN, node, 1, FAR, membership.word_of(Address(some(20))))
        compact = membership.sign_message(key, field.domain, message).compact
        word = invite(field, node) if invited else (0, ZERO_DIGEST, ZERO_DIGEST)
        batch.append((int(message.kind), node, 1, FAR, message.subject, 0, compact[:32], compact[32:], word))
    mined = field.owner.invoke("relay", batch)
    assert len(mined.logs) == BATCH, "an entry was skipped"
    return -(-mined.gas_used // BATCH)


def updates_root(nodes: int) -> Digest:
    """Root over as many updates."""
    return merkle.updates_root([merkle.update_leaf(Address(some(20)), 1, some(), some(), some()) for _ in range(nodes)])


def deep(node: Address, least: int) -> int:
    """A cumulative amount whose leaf comes first among the others, so that its proof is the longest."""
    while standard_tree.leaf(node, least)[0]:
        least += 1
    return least


def roll(field: Field, number: int, nodes: int, updates: Digest, payout: Digest) -> tuple[Mined, tuple[Any, ...]]:
    """Seal a round; returns its transaction and its record as `activatePayout` takes it."""
    previous = (
        field.rpc.data("eth_call", call(field, "recordHash", number - 1), "latest") if number > 1 else ZERO_DIGEST
    )
    mined = field.aggregator.invoke("roll", number, (some(), some(), updates, some(), payout, nodes, nodes << 16))
    data = bytes.fromhex(mined.logs[0]["data"][2:])
    words = [data[at : at + 32] for at in range(0, len(data), 32)]
    numbers = [int.from_bytes(word, "big") for word in words[7:]]
    return mined, (number, previous, *words[1:7], *numbers)


def call(field: Field, name: str, *values: Any) -> dict[str, str]:
    """An eth_call to the run."""
    return {"to": "0x" + field.run.hex(), "data": "0x" + calldata("FLBRun", name, *values).hex()}


def rounds(field: Field) -> Figures:
    """Fill the ring, then seal, activate and claim once for each number of nodes."""
    regular, late = account(field.rpc, field.run), account(field.rpc, field.run)
    for sender in (regular, late):
        sender.invoke("join", Address(some(20)), invite(field, sender.address))
    cold = [roll(field, number, 1, some(), ZERO_DIGEST)[0].gas_used for number in range(1, RING + 1)]
    figures: Figures = {"roll": {}, "roll_cold": max(cold), "claim": {}}
    amount = 2**64
    for step, nodes in enumerate((NODES[0], *NODES)):
        amount = deep(regular.address, amount + 2**64)
        other = deep(late.address, 2**64)
        entries = [(regular.address, amount), (late.address, other)]
        tree = standard_tree.tree(entries + [(Address(some(20)), 2**64 + rank) for rank in range(nodes - 2)])
        mined, record = roll(field, RING + 1 + step, nodes, updates_root(nodes), tree.root)
        field.owner.invoke("activatePayout", record)
        claim = regular.invoke("claim", regular.address, amount, list(tree.proof(0)))
        if step:  # the first time fills the slots that a later claim overwrites
            figures["roll"][str(nodes)] = mined.gas_used
            figures["claim"][str(nodes)] = claim.gas_used
    figures["claim_first"] = late.invoke("claim", late.address, other, list(tree.proof(1))).gas_used
    return figures


def measure(rpc: Rpc) -> Figures:
    """Every figure, from runs of its own on a chain."""
    free, paid = arrange(rpc, paid=False), arrange(rpc, paid=True)
    node = account(rpc, free.run)
    return {
        **rounds(paid),
        "join": node.invoke("join", Address(some(20)), (0, ZERO_DIGEST, ZERO_DIGEST)).gas_used,
        "join_relayed_per_node": relayed(free, invited=False),
        "join_relayed_with_invite_per_node": relayed(paid, invited=True),
        "register_dataset": node.invoke("registerDataset", node.address, some(), 1_000).gas_used,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="JSON is what it prints anyway")
    parser.parse_args()
    folder = local.install(cache_folder(), lambda text: print(text, file=sys.stderr))
    with tempfile.NamedTemporaryFile() as log, local.running(folder, log) as chain:
        print(json.dumps(measure(Rpc(chain.url))))


if __name__ == "__main__":
    main()
