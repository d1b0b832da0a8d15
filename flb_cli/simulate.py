# SPDX-License-Identifier: Apache-2.0
"""`flb simulate`: a whole run in one process, with the pipelines of node and aggregator and a registry in memory.

The folder that it leaves is one that `flb verify` recomputes. The same settings and seed give the same adapter.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from flb.errors import ConfigError


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb."""
    text = "run many virtual nodes in one process, honest or under attack"
    parser = subparsers.add_parser("simulate", help=text, description=text)
    parser.add_argument("--config", type=Path, default=Path("config.yaml"), help="settings (default: config.yaml)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting; repeatable")
    parser.add_argument("--attack", metavar="NAME", help="what the attackers do; docs/simulate.md lists the attacks")
    parser.add_argument("--attackers", type=int, metavar="F", help="how many nodes attack (default: 1)")
    parser.add_argument("--strength", type=float, metavar="X", help="of the attack (default: its own)")
    parser.add_argument(
        "--use-server-dp", "--use_server_dp", choices=("true", "false"), help="the aggregator clips and adds noise, "
        "with equal weights: privacy.central fixed, or adaptive where the settings say so; false: none",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder, new or empty (default: flb-simulate/TIME)")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout; progress on stderr")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Simulate and report. Raises FLBError, for bad input before the first training step."""
    from flb import base_model
    from flb.config import require
    from flb_cli import simulate_attack, simulate_data, simulate_settings
    from flb_cli.simulate_run import Simulation
    from flb_cli.simulate_view import View

    config = simulate_settings.read(arguments.config, arguments.set)
    config = simulate_settings.with_server_privacy(config, arguments.use_server_dp)
    nodes = simulate_settings.check(config)
    attackers = simulate_attack.attackers(arguments.attack, arguments.attackers, arguments.strength, nodes)
    simulate_attack.check_mode(attackers, config.lora.mode)
    base_model.weight_files(require(config.model.model_path, "model.model_path", "name the folder of the base model"))
    dealt = simulate_data.deal(config, arguments.config.parent, nodes)
    folder = new_folder(arguments.out)
    with View(config.run.steps, nodes) as view:
        result = Simulation(config, folder, dealt, attackers, view).run()
    print(json.dumps(result) if arguments.json else in_words(result))
    return 0


def new_folder(wanted: Path | None) -> Path:
    """The run's folder. Raises ConfigError for one that is in use."""
    folder = wanted or Path("flb-simulate") / time.strftime("%Y%m%d-%H%M%S")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"--out {folder} is not an empty folder", "name a new one")
    folder.mkdir(parents=True, exist_ok=True)
    return folder.absolute()


def in_words(result: dict[str, Any]) -> str:
    """The result for people."""
    attack = result["attack"]
    strength = f", strength {attack['strength']:g}" if attack and attack["strength"] is not None else ""
    lines = [
        f"{result['nodes']} nodes, {result['rounds']} rounds, {result['wall_s']:.1f} s",
        f"  attack     {attack['name']}, {attack['attackers']} nodes{strength}" if attack else "",
        f"  rejected   {result['rejected']} updates" if result["rejected"] else "",
    ]
    if result["final_eval_loss"] is not None:
        lines.append(f"  held out   loss {result['base_eval_loss']:.4f} before, {result['final_eval_loss']:.4f} after")
    lines += [f"  adapter    {result['adapter_dir']}", f"  verify     flb verify {result['folder']}"]
    return "\n".join(line for line in lines if line)
