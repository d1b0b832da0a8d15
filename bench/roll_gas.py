# SPDX-License-Identifier: Apache-2.0
"""Gas of the registry's calls through a clone on the local chain, read from real receipts.

    python -m bench.roll_gas [--rounds N]

JSON on stdout: `roll` while the ring of record hashes is being filled and after it (round 65 on), and the other calls.
"""

import argparse
import json
import secrets
import sys
import tempfile

from flb.chain import deploy, local
from flb.chain.rpc import Rpc
from flb.chain.sender import Sender
from flb.records import Roll
from flb.types import ZERO_ADDRESS, ZERO_DIGEST, Digest, Round
from flb_cli.cache import cache_folder


def some() -> Digest:
    """A digest without zero bytes: the dearest calldata."""
    return Digest(secrets.token_bytes(32).replace(b"\0", b"\1"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=70)
    parser.add_argument("--json", action="store_true", help="JSON is what it prints anyway")
    options = parser.parse_args()
    folder = local.install(cache_folder(), lambda text: print(text, file=sys.stderr))
    with tempfile.NamedTemporaryFile() as log, local.running(folder, log) as chain:
        rpc = Rpc(chain.url)
        owner, aggregator, node = (Sender(rpc, secrets.token_bytes(32)) for _ in range(3))
        for sender in (owner, aggregator, node):
            local.fund(rpc, sender.address)
        factory = deploy.deploy_factory(owner)
        settings = deploy.Settings(
            some(), some(), options.rounds + 1, 100, 100, owner.address, aggregator.address, ZERO_ADDRESS,
        )  # fmt: skip
        run, created = deploy.create_run(owner, factory, settings)
        for sender in (owner, aggregator, node):
            sender.run = run
        gas = {
            "createRun": created.gas_used,
            "join": node.join(ZERO_ADDRESS).gas_used,
            "registerDataset": node.register_dataset(some(), 1000).gas_used,
            "start": owner.start().gas_used,
        }
        rolls = [
            aggregator.roll(
                Roll(Round(number), some(), some(), some(), ZERO_DIGEST, ZERO_DIGEST, 10_000, 10_000 << 16)
            ).gas_used
            for number in range(1, options.rounds + 1)
        ]
        gas["roll_filling_max"] = max(rolls[:64])
        gas["roll_full_max"] = max(rolls[64:], default=0)
    print(json.dumps(gas))


if __name__ == "__main__":
    main()
