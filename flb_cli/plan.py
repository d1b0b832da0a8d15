# SPDX-License-Identifier: Apache-2.0
"""`flb plan`: whether the choices of a config.yaml go together, and what a run of them costs, before it is deployed.

It reads config.yaml and the headers of the base model's files: no torch, no chain, no key, and nothing is written.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flb.errors import Refused

if TYPE_CHECKING:
    from flb.config import Config
    from flb.forecast import Forecast

MBIT = 100.0
"""The aggregator's line unless another is given."""
MODEL = (
    "bytes are exact, without framing; seconds are bytes over the aggregator's line, and combining by constants that were "
    "measured on two cores, without training and without waiting for blocks; memory is by measured constants too"
)
"""What the figures rest on; the constants are in `flb.forecast`."""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb."""
    text = "say whether the settings of a run go together, and what it will cost in bytes, memory and time"
    parser = subparsers.add_parser("plan", help=text, description=text)
    parser.add_argument("--config", type=Path, default=Path("config.yaml"), help="settings (default: config.yaml)")
    parser.add_argument("--nodes", type=int, metavar="N", help="members of the run (default: run.min_nodes)")
    parser.add_argument(
        "--mbit", type=float, default=MBIT, help=f"the aggregator's line each way, in Mbit/s (default: {MBIT:g})"
    )
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Plan and print; the exit code of an illegal plan is that of a refusal."""
    from flb.config_file import load

    result = plan(load(arguments.config), arguments.nodes, arguments.mbit)
    print(json.dumps(result) if arguments.json else in_words(result))
    return 0 if result["legal"] else Refused.exit_code


def plan(config: "Config", nodes: int | None, mbit: float) -> dict[str, Any]:
    """The plan as JSON: `legal`, `reasons`, `warnings` of a legal run, and what a legal run costs. Raises Refused for values that no run can have:
    target modules and ranks that the base model has not, a number of nodes that makes no round."""
    from flb import legality
    from flb.forecast import forecast
    from flb.legality.cautions import cautions
    from flb_cli import deploy, privacy_report

    spec = deploy.draft_spec(config)
    found = legality.reasons(spec)
    if found:
        listed = [{"code": reason.code, "what": reason.what, "remedy": reason.remedy} for reason in found]
        changes = legality.nearest(spec) or ()
        return {"legal": False, "reasons": listed, "nearest": [change.words for change in changes]}
    warned = [{"code": one.code, "what": one.what, "remedy": one.remedy} for one in cautions(spec)]
    made = forecast(spec, spec.rounds.min_nodes if nodes is None else nodes, mbit)
    privacy = privacy_report.told(spec, made.cohort, spec.rounds.steps)
    return {
        "legal": True, "reasons": [], "warnings": warned, **costs(made), "rounds": spec.rounds.steps, "mbit": mbit,
        "privacy": privacy, "model": MODEL,
    }  # fmt: skip


def costs(made: "Forecast") -> dict[str, Any]:
    """A forecast as JSON; bytes are of one node in one round, the most of any round."""
    overflow = asdict(made.overflow)
    return {
        "nodes": made.nodes,
        "cohort": made.cohort,
        "quorum": made.quorum,
        "parameters": made.parameters,
        "adapter_rank": made.adapter_rank,
        "bytes_up": made.bytes_up,
        "bytes_up_smallest": made.bytes_up_smallest,
        "bytes_down": made.bytes_down,
        "bytes_first": made.bytes_first,
        "bytes_up_by_codec": made.bytes_by_codec,
        "aggregator_mib": made.aggregator_mib,
        "aggregator_disk_bytes": made.aggregator_disk_round,
        "round_s": round(made.round_seconds, 3),
        "round_parts_s": {
            "up": round(made.seconds_up, 3),
            "combine": round(made.seconds_combine, 3),
            "down": round(made.seconds_down, 3),
        },
        "overflow": {"bits": overflow["bits"], "bits_there": 63, "largest_weight_cap": overflow["weight_cap"],
                     "largest_max_cohort": overflow["max_cohort"]},
        "total": {"bytes_up": made.total_up, "bytes_down": made.total_down, "seconds": round(made.total_seconds, 3)},
    }  # fmt: skip


def in_words(result: dict[str, Any]) -> str:
    """The plan for people."""
    from flb_cli import privacy_report

    if not result["legal"]:
        lines = [f"illegal: {reason['what']}: {reason['remedy']}" for reason in result["reasons"]]
        return "\n".join([*lines, *(["the nearest legal choice:"] if result["nearest"] else []),
                          *(f"  {words}" for words in result["nearest"])])  # fmt: skip
    parts, total, sums = result["round_parts_s"], result["total"], result["overflow"]
    codecs = ", ".join(f"{name} {size:,}" for name, size in result["bytes_up_by_codec"].items())
    cap = f", run.weight_cap at most {sums['largest_weight_cap']:,}" if sums["largest_weight_cap"] else ""
    smallest = result["bytes_up_smallest"]
    least = f" ({smallest:,} at the least)" if smallest != result["bytes_up"] else ""
    seconds = f"{parts['up']:,.1f} up, {parts['combine']:,.1f} combining, {parts['down']:,.1f} down"
    everybody = f"{total['bytes_up']:,} bytes up and {total['bytes_down']:,} down of all nodes together"
    rows = {
        "legal": "yes",
        "nodes": f"{result['nodes']:,}; a round draws {result['cohort']:,} and needs {result['quorum']:,} of them",
        "parameters": f"{result['parameters']:,} that nodes train; the last adapter has rank {result['adapter_rank']:,}",
        "up": f"{result['bytes_up']:,} bytes a node and round{least}",
        "down": f"{result['bytes_down']:,} bytes a node and round, and {result['bytes_first']:,} once for adapter 0",
        "up by codec": codecs,
        "memory": f"{result['aggregator_mib']:,} MiB on the aggregator",
        "disk": f"{result['aggregator_disk_bytes']:,} bytes a round on the aggregator",
        "a round": f"{result['round_s']:,.1f} s: {seconds}, at {result['mbit']:g} Mbit/s",
        "sums": f"{sums['bits']} of 63 bits; run.max_cohort at most {sums['largest_max_cohort']:,}{cap}",
        "privacy": privacy_report.in_words(result["privacy"]),
        "the run": f"{result['rounds']:,} rounds, {total['seconds']:,.1f} s; {everybody}",
    }
    lines = [f"{name:13}{text}" for name, text in rows.items()]
    warned = [f"warning: {one['what']}: {one['remedy']}" for one in result["warnings"]]
    return "\n".join([*warned, *lines, result["model"]])
