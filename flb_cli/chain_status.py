# SPDX-License-Identifier: Apache-2.0
"""`flb chain status`: head, phase, deadlines, members, payouts, and the gas that was spent so far by role."""

import argparse
import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from flb.events import ChainAdmitterSet, ChainAggregatorSet
from flb.types import ZERO_ADDRESS

if TYPE_CHECKING:
    from flb.chain.gas import Spent
    from flb.chain.registry import Registry
    from flb.roster import RunView

VIEWS = ("owner", "spec", "steps", "adapter", "windows", "admitter", "token")
ROLES = ("owner", "aggregator", "admitter", "others")


def register(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb."""
    from flb_cli.chain import add_reader, number

    text = "say where a run stands: round, phase, deadlines, members, payouts, and gas spent by role"
    verb = add_reader(verbs, "status", text)
    verb.add_argument(
        "--deploy-block", type=number, metavar="N", help="first block to read (default: where the contract appeared)"
    )
    verb.set_defaults(run=status)


def status(arguments: argparse.Namespace) -> int:
    """`flb chain status`."""
    from flb.chain.gas import spent
    from flb.chain.registry import call_view
    from flb_cli.cache import cache_folder
    from flb_cli.chain import reader
    from flb_cli.chain_events import amount_of, read_token

    rpc, registry = reader(arguments)
    views = {name: call_view(rpc, arguments.contract, name) for name in VIEWS}
    now = rpc.newest().time
    domain = registry.domain
    cache = cache_folder() / f"gas-{domain.chain_id}-{domain.run.hex()}.json"
    costs = spent(rpc, (event.place for event in registry.events), cache)
    result = described(registry, views)
    result["phase"] = phase(registry.view, views["windows"][1], now)
    result["gas"] = by_role(registry, views, costs)
    if arguments.json:
        print(json.dumps(result))
        return 0
    token = read_token(registry)
    for line in worded(result):
        print(line)
    payout = result["payout"]
    if payout:
        claimed = amount_of(token, payout["claimed"])
        active = f"round {payout['round']} is active" if payout["round"] else "none is active yet"
        print(f"payouts    {active}, {claimed} claimed, token {payout['token']}")
    for role, cost in result["gas"].items():
        if cost["transactions"]:
            print(f"gas        {role:<10} {cost['gas']:>12,} in {cost['transactions']} transactions")
    if registry.view.opening is None and not registry.view.finished:
        print(f"open it with flb chain start {result['run']} --rpc {rpc.url}", file=sys.stderr)
    return 0


def worded(result: dict[str, Any]) -> Iterable[str]:
    """The first lines for people."""
    from flb_cli.chain_events import printable, utc

    yield f"run        {result['run']} on chain {result['chain_id']}, {result['state']}"
    yield f"head       block {result['block']}"
    yield f"sealed     {result['sealed']} of {result['steps']} steps"
    opening, uri = result["open"], printable(result["endpoint"]["uri"])
    if opening:
        yield (
            f"open       round {opening['round']}, step {opening['step']}, intake closes {utc(opening['deadline'])},"
            f" void from {utc(opening['void_from'])}"
        )
        yield f"phase      {result['phase']}"
    yield f"adapter    {result['adapter']}"
    yield f"spec       {result['spec']}"
    yield f"owner      {result['owner']}"
    yield f"aggregator {result['aggregator']} at {uri or 'no endpoint yet'}"
    yield f"admitter   {result['admitter'] or 'none: membership is open'}"
    yield f"members    {len(result['members'])}"
    for member in result["members"]:
        yield f"  {member['node']}  {member['records']} records"


def described(registry: "Registry", views: dict[str, Any]) -> dict[str, Any]:
    """The status as JSON: `views` are the contract's own answers, the rest follows from the events."""
    view, domain = registry.view, registry.domain
    opening = view.opening
    sealed = len(view.rolls)
    round_seconds, grace_seconds, min_round_seconds, payout_delay = views["windows"]
    return {
        "run": "0x" + domain.run.hex(),
        "chain_id": domain.chain_id,
        "block": registry.cursor.number if registry.cursor else None,
        "state": state(view),
        "sealed": sealed,
        "steps": views["steps"][0],
        "open": opening
        and {
            "round": opening.round,
            "step": opening.step,
            "deadline": opening.deadline,
            "void_from": opening.deadline + grace_seconds,
            "seed": "0x" + opening.seed.hex(),
            "roster": len(opening.roster),
        },
        "spec": "0x" + views["spec"][0].hex(),
        "adapter": "0x" + (view.adapter if sealed else views["adapter"][0]).hex(),
        "round_seconds": round_seconds,
        "grace_seconds": grace_seconds,
        "min_round_seconds": min_round_seconds,
        "owner": "0x" + views["owner"][0].hex(),
        "aggregator": "0x" + view.aggregator.hex(),
        "admitter": None if views["admitter"][0] == ZERO_ADDRESS else "0x" + views["admitter"][0].hex(),
        "endpoint": {
            "uri": view.uri,
            "cert_digest": "0x" + view.cert_digest.hex(),
            "next_cert_digest": "0x" + view.next_cert_digest.hex(),
        },
        "payout": None
        if views["token"][0] == ZERO_ADDRESS
        else {
            "token": "0x" + views["token"][0].hex(),
            "delay_seconds": payout_delay,
            "round": view.payout_round,
            "root": "0x" + view.payout_root.hex(),
            "cancelled": sorted(view.cancelled),
            "claimed": sum(view.claimed.values()),
        },
        "members": [
            {
                "node": "0x" + member.node.hex(),
                "key": "0x" + member.key.hex(),
                "payee": "0x" + member.payee.hex(),
                "dataset_root": "0x" + member.dataset_root.hex(),
                "records": member.records,
            }
            for member in sorted(view.members.values(), key=lambda member: member.node)
        ],
    }


def state(view: "RunView") -> str:
    """In a word: not started, open, finishing (the open round is the last) or finished."""
    if view.finished:
        return "finished"
    if view.opening is None:
        return "not started"
    return "finishing" if view.last is not None else "open"


def phase(view: "RunView", grace_seconds: int, now: int) -> str | None:
    """Of the open round, by the chain's clock: intake, grace (it can be sealed still), or overdue (anybody may void it)."""
    if view.opening is None:
        return None
    if now < view.opening.deadline:
        return "intake"
    return "grace" if now < view.opening.deadline + grace_seconds else "overdue"


def by_role(registry: "Registry", views: dict[str, Any], costs: Iterable["Spent"]) -> dict[str, dict[str, int]]:
    """Transactions that left an event, their gas and their cost in wei, by the role of who paid."""
    aggregators = {event.aggregator for event in registry.events if isinstance(event, ChainAggregatorSet)}
    admitters = {event.admitter for event in registry.events if isinstance(event, ChainAdmitterSet)}
    admitters.add(views["admitter"][0])
    owner = views["owner"][0]
    totals = {role: {"transactions": 0, "gas": 0, "wei": 0} for role in ROLES}
    for cost in costs:
        role = (
            "owner" if cost.payer == owner
            else "aggregator" if cost.payer in aggregators
            else "admitter" if cost.payer in admitters
            else "others"
        )  # fmt: skip
        totals[role]["transactions"] += 1
        totals[role]["gas"] += cost.gas
        totals[role]["wei"] += cost.wei
    return totals
