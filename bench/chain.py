# SPDX-License-Identifier: Apache-2.0
"""What the registry costs a reader: the replay of 100,000 raw logs into a view, and checks of signed manifests.

`python -m bench.chain --json` prints `replay_100k_s` (CPU seconds to decode and fold logs as JSON-RPC gives them, the
RPC itself left out), `replay_peak_rss_mib` (of a process that does nothing else and keeps every event, as `Registry`
does) and `signatures_per_s` (EIP-712 manifests hashed and their signers recovered, one core).
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from flb import identity
from flb.chain import abi
from flb.chain.events import from_log
from flb.events import ChainEvent
from flb.merkle import keccak256
from flb.roster import RunView, fold
from flb.types import Address, Codec, Digest, Domain, Manifest, Round
from flb_aggregator.metrics import peak_rss_mib

EVENTS = 100_000
MEMBERS = 40_000
CHURN_ROUNDS = 200
"""Every so many rounds some members leave, and the roster is another one."""
LEAVE = 5
RANGE = 2_000
"""Logs that are decoded and folded at once, as one answer to eth_getLogs."""
MANIFESTS = 20_000


def raw_logs(count: int = EVENTS, members: int = MEMBERS) -> Iterator[dict[str, Any]]:
    """Raw logs of one run: members join, register a dataset each, then rounds are rolled and some members leave."""
    topics = {item.name: "0x" + item.signature.hex() for item in abi.load("FLBRun").events.values()}
    members = min(members, count // 2 - 1)

    def log(number: int, name: str, indexed: tuple[bytes, ...], *words: bytes | int) -> dict[str, Any]:
        packed = (word.to_bytes(32, "big") if isinstance(word, int) else word.rjust(32, b"\0") for word in words)
        return {
            "address": "0x" + "0f" * 20,
            "topics": [topics[name], *("0x" + word.rjust(32, b"\0").hex() for word in indexed)],
            "data": "0x" + b"".join(packed).hex(),
            "blockNumber": hex(number),
            "blockHash": "0x" + keccak256(number.to_bytes(8, "big")).hex(),
            "transactionHash": "0x" + keccak256(b"tx" + number.to_bytes(8, "big")).hex(),
            "logIndex": "0x0",
            "removed": False,
        }

    number = 0
    for number in range(members):
        node = node_at(number)
        yield log(number, "NodeJoined", (node,), node, node, 0)
    for number in range(members, 2 * members):
        yield log(number, "DatasetRegistered", (node_at(number - members), keccak256(b"%d" % number)), 1, 500)
    yield log(2 * members, "RunStarted", (), *(keccak256(b"%d" % index) for index in range(3)), 100)
    made, opened, gone = 2 * members + 1, 1, 0
    while made < count:
        if opened % CHURN_ROUNDS == 0 and gone < opened // CHURN_ROUNDS * LEAVE:
            yield log(made, "NodeLeft", (node_at(gone),))
            gone += 1
        else:
            digests = [keccak256(b"%d %d" % (made, index)) for index in range(7)]
            yield log(made, "RoundRolled", (opened.to_bytes(4, "big"),), *digests, 30, 20_000, 100 + opened)
            opened += 1
        made += 1


def node_at(index: int) -> Address:
    """The address of a synthetic node."""
    return Address(keccak256(b"node %d" % index)[:20])


def replay(count: int = EVENTS) -> tuple[RunView, list[ChainEvent], float]:
    """Decode and fold; the view, the events and the seconds of CPU without those that it took to make the logs."""
    view, events, spent, logs = RunView(), [], 0.0, raw_logs(count)
    while True:
        answer = list(islice(logs, RANGE))
        if not answer:
            return view, events, spent
        start = time.process_time()
        found = [event for event in map(from_log, answer) if event is not None]
        view = fold(found, view)
        events += found
        spent += time.process_time() - start


def signatures(count: int = MANIFESTS) -> float:
    """Manifests checked per second of CPU: struct hash, signing digest, recovery, comparison."""
    key, domain = b"\x01" * 32, Domain(31337, Address(b"\x0f" * 20))
    digests = [Digest(bytes([index]) * 32) for index in range(6)]
    signed = []
    for index in range(256):  # each checked many times: nothing of a check is kept
        node = identity.address_of(key)
        seed, spec, base, blob, tensors, dataset = digests
        manifest = Manifest(node, Round(index), seed, spec, base, blob, tensors, dataset, 1 << 20, 500, Codec.MXINT8)
        signed.append((manifest, identity.sign(key, domain, identity.manifest_hash(manifest))))
    start = time.process_time()
    for index in range(count):
        manifest, signature = signed[index % len(signed)]
        assert identity.recover(domain, identity.manifest_hash(manifest), signature) == manifest.node
    return count / (time.process_time() - start)


def main() -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--replay-only", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.replay_only:
        view, events, spent = replay()
        assert len(events) == EVENTS and view.opening is not None
        print(json.dumps({"replay_100k_s": round(spent, 2), "replay_peak_rss_mib": round(peak_rss_mib(), 1)}))
        return 0
    command = [sys.executable, "-m", "bench.chain", "--replay-only"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    result = {**json.loads(said), "signatures_per_s": round(signatures())}
    if arguments.json:
        print(json.dumps(result))
    else:
        print(f"replay of {EVENTS:,} events  {result['replay_100k_s']} s, at most {result['replay_peak_rss_mib']} MiB")
        print(f"signed manifests       {result['signatures_per_s']:,} checks/s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
