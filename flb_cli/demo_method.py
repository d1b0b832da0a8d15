# SPDX-License-Identifier: Apache-2.0
"""How the demo's updates become an adapter: its options for mode, rule and server optimizer, and settings that suit them.

Whoever tries a method names it alone; what it cannot do without is derived here from what the algorithms declare. What
does not go together is left as it is, and refused by `flb.legality` when the run is deployed.
"""

import argparse
from typing import Any

MODES = ("factors", "alternate", "freeze_a", "product", "stack")
RULES = ("mean", "median", "trimmed_mean", "krum", "multi_krum", "geometric_median", "centered_clipping", "norm_bound")
OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "adam", "yogi")
"""The words of the run spec, without importing it to print a help text."""
RANK = 8
ADAPTIVE_RATE = 1e-3
"""Server learning rate of an optimizer that divides by a second moment: what a weight moves by in a round."""
MOMENTUM_RATE = 0.7
"""Of one that does not: DiLoCo's (arXiv 2311.08105)."""


PRIVACY = ("none", "local", "central-fixed", "central-adaptive", "example")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add `--codec`, `--privacy`, `--lora-mode`, `--rule` and `--server-optimizer`."""
    parser.add_argument(
        "--codec", choices=("f32", "bf16", "mxint8", "mxint4"), default="mxint8", help="default: mxint8"
    )
    parser.add_argument("--privacy", choices=PRIVACY, default="none", help="who adds noise (default: none)")
    parser.add_argument("--lora-mode", choices=MODES, default="factors", help="default: factors")
    parser.add_argument(
        "--rule",
        choices=RULES,
        default="mean",
        help="how updates become one; robust rules count all alike (default: mean)",
    )
    parser.add_argument("--server-optimizer", choices=OPTIMIZERS, default="sgd", help="default: sgd")


def lora(arguments: argparse.Namespace) -> dict[str, Any]:
    """Section `lora` of config.yaml. Stacked factors may grow by every node's rank in every round; moments need factors
    that keep their place."""
    from flb.legality.declarations import DECLARED

    mode = DECLARED.modes[arguments.lora_mode]
    settings: dict[str, Any] = {"mode": arguments.lora_mode, "r": RANK}
    if mode.restarts:
        settings["max_rank"] = arguments.rounds * arguments.nodes * RANK
    if mode.turns and DECLARED.optimizers[arguments.server_optimizer].moments:
        settings["align"] = True
    return settings


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """What section `run` of config.yaml says of the method. A robust rule bears as many hostile updates as it can among
    all nodes, and no round is sealed without them."""
    from flb.legality.declarations import DECLARED
    from flb.server_optimizer import OPTIMIZERS as FORMULAS

    rule, optimizer = DECLARED.rules[arguments.rule], FORMULAS[arguments.server_optimizer]
    aggregation: dict[str, Any] = {"rule": arguments.rule}
    least = min(2, arguments.nodes)
    if rule.robust:
        hostile = max(0, (arguments.nodes - rule.offset) // rule.factor)
        aggregation |= {"weights": "equal", "byzantine": hostile}
        least = max(least, rule.least(hostile))
    rate = 1.0
    if optimizer.moments:
        rate = ADAPTIVE_RATE if optimizer.adaptive else MOMENTUM_RATE
    return {
        "min_nodes": min(least, arguments.nodes),
        "max_cohort": arguments.nodes,
        "aggregation": aggregation,
        "server_optimizer": {"name": arguments.server_optimizer, "learning_rate": rate},
    }
