# SPDX-License-Identifier: Apache-2.0
"""Fees of a transaction, in wei a gas: what the market asks, and how far a replacement must go beyond.

Source: https://eips.ethereum.org/EIPS/eip-1559; the raise is what nodes ask for before they replace a waiting
transaction (go-ethereum: 10 %, Nethermind and Erigon: 12.5 % for some), on both fees.
"""

from dataclasses import dataclass

TIP = 10**9
"""Priority fee."""
RAISE_NUMERATOR, RAISE_DENOMINATOR = 9, 8
"""12.5 % more."""


@dataclass(frozen=True, slots=True)
class Fees:
    """The two fees of an EIP-1559 transaction."""

    most: int
    """maxFeePerGas"""
    tip: int
    """maxPriorityFeePerGas"""


def market(base_fee: int) -> Fees:
    """Fees that bear six full blocks after the newest one, whose base fee this is."""
    return Fees(2 * base_fee + TIP, TIP)


def raised(old: Fees, asked: Fees) -> Fees:
    """Fees of a replacement: both at least 12.5 % above the old ones, and no less than the market asks."""
    return Fees(max(_raise(old.most), asked.most), max(_raise(old.tip), asked.tip))


def _raise(fee: int) -> int:
    return -(-fee * RAISE_NUMERATOR // RAISE_DENOMINATOR)
