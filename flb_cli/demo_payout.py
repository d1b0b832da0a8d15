# SPDX-License-Identifier: Apache-2.0
"""The demo's payout: after the run one node's payee activates the newest payout and claims what the node earned."""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flb_cli.federation import Federation

PER_ROUND = 1000 * 10**18
"""What a round pays, in base units of the test token, which has 18 decimals."""


def settings() -> dict[str, Any]:
    """run.payout of the demo's config.yaml. Without a delay, so that nobody has to wait: a real run has days."""
    return {"per_round": PER_ROUND, "delay_seconds": 0}


def pay(federation: "Federation", name: str) -> dict[str, Any]:
    """Claim for the node of that name, from its own account, which gets test coins for it; returns what
    `flb claim --json` prints. Raises FLBError."""
    from flb import keystore
    from flb.chain import local
    from flb.chain.sender import Sender
    from flb_cli.claim import claim
    from flb_cli.verify import from_folder

    material, rpc = from_folder(federation.folder, None, False), federation.rpc()
    keys = federation.folder / "keys"
    node = keystore.stored_address(keys / f"{name}.json")

    def unlock() -> AbstractContextManager[Sender]:
        local.fund(rpc, node, ether=1)
        key = keystore.load(keys / f"{name}.json", keystore.read_password(keys / f"{name}.password"))
        return nullcontext(Sender(rpc, key, material.domain.run))

    return claim(material, rpc, node, unlock)
