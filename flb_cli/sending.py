# SPDX-License-Identifier: Apache-2.0
"""An account that a command sends from: its transactions are on disk before they are sent, and found by the next command.

One folder for each chain and account in the user's state folder, held by one process at a time. A command that was
killed between sending and the receipt leaves its transaction there; the same command goes on with it, and any other
looks for it first (flb.chain.sender).
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from flb.errors import NotAllowedHere
from flb.types import Address
from flb_cli.cache import state_folder

if TYPE_CHECKING:
    from flb.chain.rpc import Rpc
    from flb.chain.sender import Sender


@contextmanager
def sending(rpc: "Rpc", key: bytes, run: Address | None = None) -> Iterator["Sender"]:
    """The account of `key`, to send to `run`, for the length of a block of code.

    Raises NotAllowedHere while another process sends from it, CorruptStore for an outbox that cannot be read, and
    ChainUnavailable.
    """
    from flb.chain.outbox import Outbox
    from flb.chain.sender import Sender
    from flb.identity import address_of
    from flb.store import lock_folder

    account, chain_id = address_of(key), rpc.chain_id()
    folder = outbox_folder(rpc, chain_id, account)
    try:
        lock = lock_folder(folder)
    except NotAllowedHere as error:
        raise NotAllowedHere(
            f"another command sends from 0x{account.hex()}, and holds {folder}", "wait until it has ended"
        ) from error
    with lock:
        outbox = Outbox(folder / "outbox.sqlite")
        try:
            for entry in outbox.pending(chain_id, account):
                print(
                    f"flb: an earlier command left transaction 0x{entry.attempts[-1].tx.hex()} with nonce "
                    f"{entry.nonce}; it is looked for first",
                    file=sys.stderr,
                )
            yield Sender(rpc, key, run, outbox=outbox)
        finally:
            outbox.close()


def outbox_folder(rpc: "Rpc", chain_id: int, account: Address) -> Path:
    """Where the transactions of an account are. Raises ChainUnavailable.

    Local chains all have one id, and each is another one: there the first block's hash tells them apart.
    """
    from flb.chain import local

    name = str(chain_id)
    if chain_id == local.CHAIN_ID and (first := rpc.block(0)) is not None:
        name += f"-{first.block.hash.hex()[:16]}"
    return state_folder() / "outbox" / name / f"0x{account.hex()}"
