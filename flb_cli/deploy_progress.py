# SPDX-License-Identifier: Apache-2.0
"""How far a deployment is, in its work folder: a command that was killed goes on, and pays for no contract twice.

What is noted counts only for the same account on the same chain, and only while the chain has code at the address.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flb import spec as specs
from flb.errors import FLBError
from flb.store import write_atomic
from flb.types import Address

if TYPE_CHECKING:
    from flb.chain.rpc import Rpc

NAME = "deploying.json"


@dataclass(frozen=True, slots=True)
class Progress:
    """The contracts that one account has deployed so far for one work folder."""

    folder: Path
    rpc: "Rpc"
    owner: Address

    def once(self, name: str, of: str, make: Callable[[], tuple[Address, dict[str, Any]]]) -> tuple[Address, Any]:
        """Address and facts of a contract: from before, if it was made of the same and is there, else made and noted.

        `of` is what tells it from another one of its name. Raises as `make` does, and ChainUnavailable.
        """
        noted = self.read()
        found = noted.get(name)
        if found is not None and found["of"] == of and self.rpc.data("eth_getCode", found["address"], "latest"):
            return Address(bytes.fromhex(found["address"][2:])), found["facts"]
        address, facts = make()
        self.write({**noted, name: {"address": "0x" + address.hex(), "of": of, "facts": facts}})
        return address, facts

    def read(self) -> dict[str, Any]:
        """What is noted for this account on this chain; nothing where the note is another's or damaged."""
        try:
            noted = json.loads((self.folder / NAME).read_text())
            if noted["account"] == self.account():
                return dict(noted["contracts"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return {}

    def write(self, contracts: dict[str, Any]) -> None:
        """Note it, durably."""
        note = {"account": self.account(), "contracts": contracts}
        write_atomic(self.folder / NAME, json.dumps(note, indent=2).encode())

    def account(self) -> list[Any]:
        """Whose note it is."""
        return [self.rpc.chain_id(), "0x" + self.owner.hex()]

    def end(self) -> None:
        """The run's own note is written, and this one says nothing more."""
        (self.folder / NAME).unlink(missing_ok=True)


def salt_of(folder: Path) -> str | None:
    """The salt of the spec that a deployment left which did not come to its end: the same run again has the same."""
    try:
        return specs.decode((folder / "spec.json").read_bytes()).salt
    except (OSError, FLBError):
        return None
