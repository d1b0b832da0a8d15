# SPDX-License-Identifier: Apache-2.0
"""What a node answers instead of a result, as an error of ours: a revert with its custom error and arguments by name."""

import re
from typing import Any

from eth_abi.abi import decode
from eth_abi.exceptions import DecodingError

from flb.chain import abi
from flb.errors import ChainUnavailable, ContractRefused

REMEDIES = {
    "FLBUnauthorized": "send it from the account that has this role",
    "FLBExpired": "sign again with a later deadline",
    "FLBReplayed": "sign again with a higher seq",
    "FLBBadSignature": "sign with the node's present key, for this run and this chain",
    "FLBNotInvited": "ask the run's admitter for an invite",
    "FLBPayeeFixed": "join with this payee, or with none",
    "FLBNothingToClaim": "claim again after the next payout is activated",
    "FLBProofInvalid": "make the proof from the payout that is active",
    "FLBDelayTooLong": "shorten the payout delay, or lengthen the shortest round",
    "FLBPayoutsNeedAdmission": "name an admitter, or no token",
    "FLBFinished": "the run is over",
    "OwnableUnauthorizedAccount": "send it from the run's owner",
    "ERC20InsufficientBalance": "fund the run with its token",
}
"""What to do about the errors that a user can meet."""
REFUSALS = (
    (("insufficient funds", "doesn't have enough funds"), "InsufficientFunds",
     "fund the account: flb account fund ADDRESS on a local chain"),
    (("already known", "known transaction"), "AlreadyKnown", "the chain has this transaction; wait for it"),
    (("underpriced",), "Underpriced", "another transaction has this nonce; wait for it"),
    (("nonce",), "NonceUsed", "another process sends from this account; give each its own"),
)  # fmt: skip
"""What nodes say of a transaction that they do not take, in their words, and what it means."""
ACCOUNT_FAULTS = ("InsufficientFunds", "Underpriced", "NonceUsed")
"""Those that lie with the account which sends: once its holder has mended it, the same call goes through."""


def fault(url: str, error: Any) -> ContractRefused | ChainUnavailable:
    """The error object of a JSON-RPC answer as an error of ours."""
    message = str(error.get("message", error)) if isinstance(error, dict) else str(error)
    data = error.get("data") if isinstance(error, dict) else None
    if isinstance(data, dict):
        data = data.get("data")
    if isinstance(data, str) and re.fullmatch("0x([0-9a-fA-F]{2}){4,}", data):
        return refusal(bytes.fromhex(data[2:]))
    if "revert" in message:
        return ContractRefused("revert")
    for words, name, remedy in REFUSALS:
        if any(word in message.lower() for word in words):
            return ContractRefused(name, (), remedy)
    return ChainUnavailable(f"the chain at {url} answers with an error ({message.strip()})", "look at its log")


def refusal(data: bytes) -> ContractRefused:
    """A revert's data, decoded: the name of the custom error, and its arguments by name."""
    item = abi.errors().get(data[:4])
    if item is None:
        return ContractRefused("revert", (data,), "", ("data",))
    try:
        values = tuple(decode(item.inputs, data[4:]))
    except DecodingError:
        return ContractRefused("revert", (data,), "", ("data",))
    return ContractRefused(item.name, values, REMEDIES.get(item.name, ""), item.names)


def error_name(selector: bytes) -> str:
    """Name of the error with this selector, as a relayed message is skipped with; hex for one that is not ours."""
    item = abi.errors().get(selector)
    return item.name if item else "0x" + selector.hex()
