# SPDX-License-Identifier: Apache-2.0
"""Fees of a transaction, in wei a gas: what the market asks, and how far a replacement must go beyond.

Source: https://eips.ethereum.org/EIPS/eip-1559; the raise is what nodes ask for before they replace a waiting
transaction (go-ethereum: 10 %, Nethermind and Erigon: 12.5 % for some), on both fees.
"""

from dataclasses import dataclass

TIP = 10**9
"""Priority fee where the chain suggests none."""
MOST_TIP = 100 * TIP
"""No suggestion counts beyond it: a tip is paid in full, and an endpoint is not to be trusted with that."""
RAISE_NUMERATOR, RAISE_DENOMINATOR = 9, 8
"""12.5 % more."""
CEILING = 10
"""So many times what the market asks, and no further: what keeps a transaction out for so long is no fee, and the tip
is paid in full once it goes through."""


@dataclass(frozen=True, slots=True)
class Fees:
    """The two fees of an EIP-1559 transaction."""

    most: int
    """maxFeePerGas"""
    tip: int
    """maxPriorityFeePerGas"""


def market(base_fee: int, suggested: int = TIP) -> Fees:
    """Fees that bear six full blocks after the newest one, whose base fee this is, with the tip that is suggested.

    At least 1, or it could not be raised.
    """
    tip = min(max(suggested, 1), MOST_TIP)
    return Fees(2 * base_fee + tip, tip)


def raised(old: Fees, asked: Fees) -> Fees | None:
    """Fees of a replacement: both at least 12.5 % above the old ones, and no less than the market asks.

    None where one would be beyond `CEILING` times the market.
    """
    new = Fees(max(_raise(old.most), asked.most), max(_raise(old.tip), asked.tip))
    return new if new.most <= CEILING * asked.most and new.tip <= CEILING * asked.tip else None


def _raise(fee: int) -> int:
    return -(-fee * RAISE_NUMERATOR // RAISE_DENOMINATOR)
