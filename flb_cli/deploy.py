# SPDX-License-Identifier: Apache-2.0
"""`flb chain deploy`: from config.yaml to a run on chain, with the work folder that its aggregator starts from."""

import argparse
import json
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flb.config import Config, require
from flb.spec import RunSpec
from flb.types import Address, Digest


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb."""
    text = "deploy a run: spec, adapter 0 and contract, from config.yaml"
    parser = subparsers.add_parser("deploy", help=text, description=text)
    parser.add_argument("--config", type=Path, default=Path("config.yaml"), help="settings (default: config.yaml)")
    parser.add_argument("--keystore", type=Path, required=True, help="keystore of the owner, who pays for it")
    parser.add_argument("--password-file", type=Path, help="file with its password (or FLB_PASSWORD_FILE)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


@dataclass(frozen=True, slots=True)
class Deployed:
    """A run on chain."""

    run: Address
    chain_id: int
    deploy_block: int
    spec: RunSpec
    spec_digest: Digest
    gas_used: int


def run(arguments: argparse.Namespace) -> int:
    """Deploy and print the address."""
    from flb import keystore
    from flb.config_file import load

    config = load(arguments.config)
    password = require(
        keystore.password_file(arguments.password_file), "--password-file", "name a file with the owner's password"
    )
    owner = keystore.load(arguments.keystore, keystore.read_password(password))
    aggregator = keystore.stored_address(
        require(config.server.keystore, "server.keystore", "make one with flb account new")
    )
    deployed = deploy(config, owner, aggregator)
    address = "0x" + deployed.run.hex()
    if arguments.json:
        print(json.dumps({"run": address, "chain_id": deployed.chain_id, "spec": deployed.spec_digest.hex(),
                          "deploy_block": deployed.deploy_block, "gas_used": deployed.gas_used}))  # fmt: skip
    else:
        print(f"run {address} on chain {deployed.chain_id}; set chain.run to it on every device", file=sys.stderr)
        print(address)
    return 0


def make_spec(config: Config, folder: Path) -> RunSpec:
    """The spec of a config, with adapter 0 written into the aggregator's blobs."""
    from flb import base_model, planner
    from flb import spec as specs
    from flb.store import BlobStore
    from flb_aggregator.publish import make_adapter_zero

    path = require(config.model.model_path, "model.model_path", "name the folder of the base model")
    names, tensors = planner.plan_tensors(
        base_model.tensors(path), config.lora.target_modules, config.lora.r, base_model.model_type(path)
    )
    training = specs.TrainingSpec(
        config.training.local_steps,
        config.training.batch_size,
        config.training.learning_rate,
        config.training.max_length,
        config.training.seed,
    )
    adapter = make_adapter_zero(tensors, training.seed, BlobStore(folder / "blobs"))
    run = config.run
    return planner.make_spec(
        base=specs.BaseSpec(path.name, base_model.digest(path)),
        lora=specs.LoraSpec(config.lora.mode, config.lora.r, config.lora.alpha, config.lora.dropout, names),
        tensors=tensors,
        adapter=adapter.hex(),
        training=training,
        rounds=specs.RoundSpec(
            run.steps,
            run.round_seconds,
            run.grace_seconds,
            run.min_nodes,
            run.fraction,
            run.confirmations,
            run.max_cohort,
        ),
        server_optimizer=specs.ServerOptimizerSpec(run.server_optimizer.name, run.server_optimizer.learning_rate),
        codec=run.codec,
        down=run.down,
        audit=run.audit,
        value_bound=run.value_bound,
        weight_cap=run.weight_cap,
        norm=None if run.norm_bound == "auto" else int(run.norm_bound),
        open_membership=True,
        salt=secrets.token_hex(32),
    )


def deploy(
    config: Config, owner: bytes, aggregator: Address, plan: Callable[[Config, Path], RunSpec] = make_spec
) -> Deployed:
    """Write the work folder, deploy factory and run, and note where they are; `plan` makes the spec."""
    from flb import spec as specs
    from flb.chain.deploy import Settings, create_run, deploy_factory
    from flb.chain.rpc import Rpc
    from flb.chain.sender import Sender
    from flb.errors import NotAllowedHere
    from flb.store import write_atomic
    from flb.types import ZERO_ADDRESS

    folder = config.server.workdir
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "run.json").exists():
        raise NotAllowedHere(f"{folder} already holds a run", "choose another server.workdir for a new one")
    rpc = Rpc(config.chain.rpc)
    chain_id = rpc.chain_id()
    spec = plan(config, folder)
    encoded = spec.encode()
    write_atomic(folder / "spec.json", encoded)
    sender = Sender(rpc, owner)
    factory = Address(bytes.fromhex(config.chain.factory[2:])) if config.chain.factory else deploy_factory(sender)
    digest = specs.digest_of(encoded)
    settings = Settings(
        digest,
        Digest(bytes.fromhex(spec.adapter)),
        spec.rounds.steps,
        spec.rounds.round_seconds,
        spec.rounds.grace_seconds,
        sender.address,
        aggregator,
        ZERO_ADDRESS,
    )
    run_address, mined = create_run(sender, factory, settings)
    note = {
        "run": "0x" + run_address.hex(),
        "factory": "0x" + factory.hex(),
        "chain_id": chain_id,
        "deploy_block": mined.block.number,
        "rpc": config.chain.rpc,
        "spec": digest.hex(),
    }
    write_atomic(folder / "run.json", json.dumps(note, indent=2).encode())
    return Deployed(run_address, chain_id, mined.block.number, spec, digest, mined.gas_used)
