# SPDX-License-Identifier: Apache-2.0
"""What the aggregator spends on others' messages in a day, kept on disk: gas, joins by network, messages by node.

Joins and what members send draw on two budgets, so strangers who join cannot keep a member from leaving. With open
membership a node that joined today stays with the budget of the joins, or strangers would come to the other one by
joining first; and all are counted by network, since a node's address costs nothing.
"""

import ipaddress
import json
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from flb.errors import Busy
from flb.membership import Kind, SignedMessage
from flb.store import write_atomic

DAY_SECONDS = 86_400
GAS = {
    Kind.JOIN: 70_000, Kind.LEAVE: 45_000, Kind.ROTATE_KEY: 60_000, Kind.REGISTER_DATASET: 45_000,
    Kind.REVOKE_DATASET: 45_000,
}  # fmt: skip
"""What a message is charged before its transaction is mined, its share of the transaction included."""
MEMBER_SHARE = 4
"""With open membership: so many times the joins of a network are what its members may send in a day."""
NODE_MESSAGES = 24
"""Messages a day of one node."""
RETRY_SECONDS = 600.0
"""A node that was sent away looks again after so long: it may have got coins."""
IPV4_PREFIX, IPV6_PREFIX = 24, 56


def network_of(peer: str) -> str:
    """The network of a gRPC peer such as ipv4:10.0.0.1:4242: /24 of IPv4, /56 of IPv6; another peer as it is."""
    host = unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return peer
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        address = mapped
    length = IPV4_PREFIX if address.version == 4 else IPV6_PREFIX
    return str(ipaddress.ip_network(f"{address}/{length}", strict=False))


def self_serve(signed: SignedMessage, run: str) -> str:
    """The command with which a node does the same with coins of its own."""
    verbs = {
        Kind.JOIN: "flb chain join", Kind.LEAVE: "flb chain leave", Kind.ROTATE_KEY: "flb chain rotate-key",
        Kind.REGISTER_DATASET: "flb dataset register", Kind.REVOKE_DATASET: "flb dataset revoke",
    }  # fmt: skip
    return f"{verbs[signed.message.kind]} {run}"


@dataclass(slots=True)
class Budget:
    """The day's spending. `now` gives Unix seconds; a day is one of UTC."""

    path: Path
    run: str
    daily_gas: int
    joins_per_prefix: int
    now: Callable[[], float]
    day: int = 0
    spent: dict[str, int] = field(default_factory=dict)
    """Gas by budget: joins, members."""
    prefixes: dict[str, int] = field(default_factory=dict)
    """Joins, and what members sent, by network; with open membership."""
    nodes: dict[str, int] = field(default_factory=dict)
    """Messages by node."""
    newcomers: frozenset[str] = frozenset()
    """Nodes that joined today where membership is open."""

    def __post_init__(self) -> None:
        try:
            kept = json.loads(self.path.read_text())
            self.day, self.spent = int(kept["day"]), dict(kept["spent"])
            self.prefixes, self.nodes = dict(kept["prefixes"]), dict(kept["nodes"])
            self.newcomers = frozenset(kept["newcomers"])
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError):  # a damaged note must not open the purse
            self.day = int(self.now() // DAY_SECONDS)
            self.spent = {"joins": self.daily_gas, "members": self.daily_gas}

    def charge(self, messages: Sequence[SignedMessage], network: str, strangers: bool) -> None:
        """Count messages, all or none, durable when this returns. Raises Busy beyond a limit.

        `strangers` says that membership is open, so networks are counted too.
        """
        today = int(self.now() // DAY_SECONDS)
        fresh = today != self.day
        spent, prefixes, nodes = ({}, {}, {}) if fresh else (dict(self.spent), dict(self.prefixes), dict(self.nodes))
        newcomers = set() if fresh else set(self.newcomers)
        for signed in messages:
            m = signed.message
            if strangers and m.kind is Kind.JOIN:
                newcomers.add(m.node.hex())
            name = budget_of(signed, newcomers)
            spent[name] = spent.get(name, 0) + GAS[m.kind]
            nodes[m.node.hex()] = nodes.get(m.node.hex(), 0) + 1
            if spent[name] > self.daily_gas:
                raise self.busy(signed, "the aggregator has spent today's gas for messages of others")
            if nodes[m.node.hex()] > NODE_MESSAGES:
                raise self.busy(signed, f"0x{m.node.hex()} has sent {NODE_MESSAGES} messages today")
            if strangers:
                joins = m.kind is Kind.JOIN
                counted, most = (network, 1) if joins else (f"members {network}", MEMBER_SHARE)
                prefixes[counted] = prefixes.get(counted, 0) + 1
                if prefixes[counted] > most * self.joins_per_prefix:
                    what = "nodes of the network {} joined today" if joins else "messages of the network {} came today"
                    raise self.busy(signed, f"{most * self.joins_per_prefix} {what.format(network)}")
        self.day, self.spent, self.prefixes, self.nodes = today, spent, prefixes, nodes
        self.newcomers = frozenset(newcomers)
        self.keep()

    def settle(self, messages: Sequence[SignedMessage], gas_used: int) -> None:
        """Correct the charge of a mined batch by what it really cost, shared as it was charged."""
        charged = sum(GAS[signed.message.kind] for signed in messages)
        for signed in messages:
            name, own = budget_of(signed, self.newcomers), GAS[signed.message.kind]
            self.spent[name] = max(0, self.spent.get(name, 0) + own * gas_used // charged - own)
        self.keep()

    def keep(self) -> None:
        """Write the day down."""
        kept = {
            "day": self.day, "spent": self.spent, "prefixes": self.prefixes, "nodes": self.nodes,
            "newcomers": sorted(self.newcomers),
        }  # fmt: skip
        write_atomic(self.path, json.dumps(kept).encode())

    def busy(self, signed: SignedMessage, what: str) -> Busy:
        """The refusal, with the way that needs no budget."""
        left = min(RETRY_SECONDS, DAY_SECONDS - self.now() % DAY_SECONDS)
        return Busy(what, f"come back later, or with coins of your own: {self_serve(signed, self.run)}", left)


def budget_of(signed: SignedMessage, newcomers: Set[str]) -> str:
    """Which of the two budgets pays."""
    m = signed.message
    return "joins" if m.kind is Kind.JOIN or m.node.hex() in newcomers else "members"
