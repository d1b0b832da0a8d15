# SPDX-License-Identifier: Apache-2.0
"""Who has earned what: a round's payout split by score, and the running table of all nodes that ever scored.

Everything is integers in base units of the token. The split rounds down; what is left over, less than one unit for
each node, stays in the contract. Payouts are cumulative, so one claim pays any number of rounds, and a node that left
keeps what it earned.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flb import standard_tree
from flb.errors import BadMessage
from flb.types import ZERO_DIGEST, Address, Digest


@dataclass(frozen=True, slots=True)
class Standing:
    """One node's line after a round: its score in this round (0 where it had none), total score, cumulative payout."""

    node: Address
    score: int
    total: int
    payout: int


def split(round_payout: int, scores: Mapping[Address, int]) -> dict[Address, int]:
    """⌊round_payout · score / Σ score⌋ for each node; nothing where all scores are 0. The sum is at most the payout."""
    whole = sum(scores.values())
    return {node: round_payout * score // whole if whole else 0 for node, score in scores.items()}


def after(before: Sequence[Standing], scores: Mapping[Address, int], round_payout: int) -> tuple[Standing, ...]:
    """The table after a round, in order of node address, from the table of the last sealed round and this one's scores.

    A void round has no table: it changes nothing. Raises BadMessage for a table that no run leads to: `flb.spec.check`
    keeps the payout of a whole run, and with it all that is added here, below 2^256.
    """
    earned, known = split(round_payout, scores), {row.node: row for row in before}
    rows = []
    for node in sorted(known.keys() | scores.keys()):
        row = known.get(node, Standing(node, 0, 0, 0))
        score = scores.get(node, 0)
        rows.append(Standing(node, score, row.total + score, row.payout + earned.get(node, 0)))
        if max(rows[-1].total, rows[-1].payout) >= standard_tree.UINT256:
            raise BadMessage(f"the standing of 0x{node.hex()} does not fit 256 bits", "the record before was altered")
    return tuple(rows)


def scores_tree(standings: Iterable[Standing]) -> standard_tree.StandardTree:
    """The tree of [node, total score]."""
    return standard_tree.tree((row.node, row.total) for row in standings)


def payout_tree(standings: Iterable[Standing]) -> standard_tree.StandardTree:
    """The tree of [node, cumulative payout], as the contract's `claim` reads it."""
    return standard_tree.tree((row.node, row.payout) for row in standings)


def payout_root(standings: Iterable[Standing], round_payout: int) -> Digest:
    """Root of the payout tree; zero where the run pays nothing."""
    return payout_tree(standings).root if round_payout else ZERO_DIGEST


# --- JSON: numbers are decimal digits in a text, for they may be beyond 2^53 -------------------------------------


def standing_to_json(row: Standing) -> dict[str, str]:
    """One line as JSON."""
    return {"node": "0x" + row.node.hex(), "score": str(row.score), "total": str(row.total), "payout": str(row.payout)}


def standings_from_json(value: Any) -> tuple[Standing, ...]:
    """A table. Raises KeyError, ValueError or TypeError for one that no record holds."""
    rows = tuple(
        Standing(_node(row["node"]), _uint256(row["score"]), _uint256(row["total"]), _uint256(row["payout"]))
        for row in value
    )
    nodes = [row.node for row in rows]
    if nodes != sorted(set(nodes)):
        raise ValueError("the nodes are not in order of address, each once")
    return rows


def _node(text: str) -> Address:
    raw = bytes.fromhex(text[2:])
    if len(raw) != 20:
        raise ValueError(f"{len(raw)} bytes instead of 20")
    return Address(raw)


def _uint256(text: Any) -> int:
    if not isinstance(text, str) or len(text) > 78 or not 0 <= int(text) < standard_tree.UINT256:
        raise ValueError("no decimal digits below 2^256")
    return int(text)
