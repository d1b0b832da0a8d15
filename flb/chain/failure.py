# SPDX-License-Identifier: Apache-2.0
"""Why a mined transaction failed: a receipt says only that it did, so the same call is made again at its block.

Source of the calls: https://ethereum.github.io/execution-apis (eth_call with a block number). The state after the block
is asked first, since what took the ground away is mostly in the same block, before the transaction; then the state
before it. An endpoint that keeps no state so old gives no reason.
"""

from flb.chain.refusal import ACCOUNT_FAULTS
from flb.chain.rpc import Rpc
from flb.chain.transaction import Mined
from flb.errors import ChainUnavailable, ContractRefused

CHANGED = "was mined, but the state had changed in between"


def failure(rpc: Rpc, call: dict[str, str], mined: Mined) -> ContractRefused:
    """The custom error with its arguments; `revert` with the transaction where the chain does not repeat it.

    `call` is the transaction as JSON-RPC simulates it, with its gas limit. Raises nothing.
    """
    told = f"transaction 0x{mined.tx.hex()} {CHANGED}"
    for number in (mined.block.number, mined.block.number - 1):
        try:
            rpc.call("eth_call", call, hex(max(number, 0)))
        except ContractRefused as error:
            if error.name in ACCOUNT_FAULTS or (error.name == "revert" and not error.values):
                continue
            return ContractRefused(error.name, error.values, told, error.names)
        except ChainUnavailable:
            continue
    return ContractRefused("revert", (mined.tx,), f"it {CHANGED}", ("tx",))
