# SPDX-License-Identifier: Apache-2.0
"""`flb chain deploy`: from config.yaml to a run on chain, with the work folder that its aggregator starts from."""

import argparse
import dataclasses
import json
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from flb.config import Config, require
from flb.spec import RunSpec
from flb.types import Address, Digest

if TYPE_CHECKING:
    from flb.chain.outbox import Outbox
    from flb.chain.rpc import Rpc

COMPARED_BLOCKS = 8
Section = TypeVar("Section")


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the verb."""
    text = "deploy a run: spec, adapter 0 and contract, from config.yaml"
    parser = subparsers.add_parser("deploy", help=text, description=text)
    parser.add_argument("--config", type=Path, default=Path("config.yaml"), help="settings (default: config.yaml)")
    parser.add_argument("--keystore", type=Path, required=True, help="keystore of the owner, who pays for it")
    parser.add_argument("--password-file", type=Path, help="file with its password (or FLB_PASSWORD_FILE)")
    parser.add_argument(
        "--test-token", type=amount, default=0, metavar="AMOUNT", help="on a local chain: pay with so much test token"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)


def amount(text: str) -> int:
    """A whole number of base units of a token, at least 1."""
    value = int(text)
    if not 1 <= value < 2**256:
        raise argparse.ArgumentTypeError("give at least 1")
    return value


@dataclass(frozen=True, slots=True)
class Deployed:
    """A run on chain."""

    run: Address
    chain_id: int
    deploy_block: int
    spec: RunSpec
    spec_digest: Digest
    gas_used: int
    token: Address
    """What it pays with; zero for nothing."""


def run(arguments: argparse.Namespace) -> int:
    """Deploy and print the address."""
    from flb import keystore
    from flb.chain.rpc import connect
    from flb.config_file import load
    from flb.legality.cautions import cautions, in_words
    from flb_cli.account import open_key
    from flb_cli.sending import sending

    config = load(arguments.config)
    owner = open_key(arguments.keystore, arguments.password_file, "owner")
    aggregator = keystore.stored_address(
        require(config.server.keystore, "server.keystore", "make one with flb account new")
    )
    for caution in cautions(draft_spec(config)):
        print(in_words(caution), file=sys.stderr)
    with sending(connect(config.chain.rpc), owner) as sender:
        deployed = deploy(config, owner, aggregator, test_token=arguments.test_token, outbox=sender.outbox)
    address = "0x" + deployed.run.hex()
    if arguments.json:
        print(json.dumps({"run": address, "chain_id": deployed.chain_id, "spec": deployed.spec_digest.hex(),
                          "deploy_block": deployed.deploy_block, "gas_used": deployed.gas_used,
                          "token": "0x" + deployed.token.hex()}))  # fmt: skip
    else:
        print(f"run {address} on chain {deployed.chain_id}; set chain.run to it on every device", file=sys.stderr)
        print(address)
    return 0


def make_spec(config: Config, folder: Path) -> RunSpec:
    """The spec of a config, with adapter 0 written into the aggregator's blobs. Raises Refused before anything is read or
    written where its choices do not go together."""
    from flb import base_model
    from flb.legality import refuse_illegal
    from flb.store import BlobStore
    from flb_aggregator.publish import make_adapter_zero
    from flb_cli.deploy_progress import salt_of

    spec = draft_spec(config)
    refuse_illegal(spec)
    path = require(config.model.model_path, "model.model_path", "name the folder of the base model")
    base = dataclasses.replace(spec.base, digest=base_model.digest(path))
    adapter = make_adapter_zero(spec.tensors, spec.training.seed, BlobStore(folder / "blobs"))
    return dataclasses.replace(spec, base=base, adapter=adapter.hex(), salt=salt_of(folder) or secrets.token_hex(32))


def draft_spec(config: Config) -> RunSpec:
    """The spec of a config but for the digests of base model and adapter 0 and the salt, which are zero. Reads the headers
    of the base model's files, and no more. Raises Refused for values that are not possible."""
    from flb import base_model, planner
    from flb import spec as specs
    from flb.types import ZERO_DIGEST
    from flb_cli import deploy_privacy

    path = require(config.model.model_path, "model.model_path", "name the folder of the base model")
    names, tensors = planner.plan_tensors(
        base_model.tensors(path), config.lora.target_modules, config.lora.r, base_model.model_type(path)
    )
    run = config.run
    spec = planner.draft_spec(
        base=specs.BaseSpec(path.name, ZERO_DIGEST.hex(), *base_model.source(path)),
        lora=section(specs.LoraSpec, config.lora, target_modules=names, ranks=config.lora.ranks or ()),
        tensors=tensors,
        adapter=ZERO_DIGEST.hex(),
        training=section(specs.TrainingSpec, config.training),
        rounds=specs.RoundSpec(
            run.steps,
            run.round_seconds,
            run.grace_seconds,
            run.min_nodes,
            run.fraction,
            run.confirmations,
            planner.MAX_COHORT if run.max_cohort == "auto" else int(run.max_cohort),
        ),
        aggregation=section(specs.AggregationSpec, run.aggregation),
        server_optimizer=section(specs.ServerOptimizerSpec, run.server_optimizer),
        scoring=specs.ScoringSpec(run.scoring.rule, str(run.payout.per_round)),
        codec=run.codec,
        down=run.down,
        audit=run.audit,
        value_bound=run.value_bound,
        weight_cap=run.weight_cap,
        norm=None if run.norm_bound == "auto" else int(run.norm_bound),
        open_membership=run.membership == "open",
        salt=ZERO_DIGEST.hex(),
        privacy=deploy_privacy.plan(config, section(specs.TrainingSpec, config.training), tensors),
    )
    return planner.fit_cohort(spec) if run.max_cohort == "auto" else spec


def section(kind: type[Section], settings: object, **derived: object) -> Section:
    """A section of the spec from the settings of the same names; `derived` are fields that no setting holds."""
    names = [item.name for item in dataclasses.fields(kind) if item.name not in derived]  # type: ignore[arg-type]
    return kind(**{name: getattr(settings, name) for name in names}, **derived)


def admitter_of(config: Config, owner: Address) -> Address:
    """Who invites: nobody where membership is open, else `run.admitter` or the owner."""
    from flb.types import ZERO_ADDRESS

    if config.run.membership == "open":
        return ZERO_ADDRESS
    named = config.run.admitter
    return owner if named is None else Address(bytes.fromhex(named[2:]))


def refuse_foreseen_draw(rpc: "Rpc", fraction: float) -> None:
    """Raise Refused for a fraction below 1 on a chain whose prevrandao does not change: everybody could foresee the
    draw, and arrange it.

    Compares the newest blocks but the first, whose value is made up; a chain that is too young is asked to mine.
    """
    from flb.errors import FLBError, Refused

    if fraction >= 1:
        return
    while (newest := rpc.block_number()) < 2:
        try:
            rpc.call("evm_mine")
        except FLBError as error:
            raise Refused("the chain is too young to tell whether its prevrandao changes", "try again later") from error
    seen = {
        (rpc.call("eth_getBlockByNumber", hex(number), False) or {}).get("mixHash")
        for number in range(max(1, newest - COMPARED_BLOCKS + 1), newest + 1)
    }
    if len(seen) < 2:
        raise Refused(
            f"run.fraction is {fraction}, and prevrandao is the same in all blocks of this chain, so that everybody "
            "could foresee which nodes are drawn",
            "set run.fraction: 1.0, or use another chain",
        )


def deploy(
    config: Config,
    owner: bytes,
    aggregator: Address,
    plan: Callable[[Config, Path], RunSpec] = make_spec,
    test_token: int = 0,
    outbox: "Outbox | None" = None,
) -> Deployed:
    """Write the work folder, deploy factory and run, and note where they are; `plan` makes the spec. With `test_token`
    the run pays with a new test token, and holds so much of it. `outbox` holds the owner's transactions, by default in
    memory; a deployment that was killed goes on where it was."""
    from flb import spec as specs
    from flb.chain.deploy import Settings, create_run, deploy_factory
    from flb.chain.outbox import Outbox
    from flb.chain.payout_calls import deploy_test_token
    from flb.chain.rpc import connect
    from flb.chain.sender import Sender
    from flb.errors import NotAllowedHere
    from flb.store import write_atomic
    from flb_cli import deploy_pay
    from flb_cli.deploy_progress import Progress

    folder = config.server.workdir
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / "run.json").exists():
        raise NotAllowedHere(f"{folder} already holds a run", "choose another server.workdir for a new one")
    rpc = connect(config.chain.rpc)
    chain_id = rpc.chain_id()
    pay = deploy_pay.plan(config, rpc, test_token)
    spec = plan(config, folder)
    refuse_foreseen_draw(rpc, spec.rounds.fraction)
    encoded = spec.encode()
    write_atomic(folder / "spec.json", encoded)
    sender = Sender(rpc, owner, outbox=outbox or Outbox())
    progress = Progress(folder, rpc, sender.address)
    if config.chain.factory:
        factory = Address(bytes.fromhex(config.chain.factory[2:]))
    else:
        factory, _ = progress.once("factory", "", lambda: (deploy_factory(sender), {}))
    token = pay.token
    if token is None:
        token, _ = progress.once("token", "", lambda: (deploy_test_token(sender), {}))
    digest = specs.digest_of(encoded)
    settings = Settings(
        digest,
        Digest(bytes.fromhex(spec.adapter)),
        spec.rounds.steps,
        spec.rounds.round_seconds,
        spec.rounds.grace_seconds,
        sender.address,
        aggregator,
        admitter_of(config, sender.address),
        min_round_seconds=pay.min_round_seconds,
        token=token,
        payout_delay_seconds=pay.delay_seconds,
    )

    def create() -> tuple[Address, dict[str, int]]:
        address, mined = create_run(sender, factory, settings)
        return address, {"block": mined.block.number, "gas": mined.gas_used}

    run_address, facts = progress.once("run", f"0x{factory.hex()} {settings}", create)
    deploy_pay.fund(pay, sender, token, run_address, test_token)
    note = {
        "run": "0x" + run_address.hex(),
        "factory": "0x" + factory.hex(),
        "chain_id": chain_id,
        "deploy_block": facts["block"],
        "rpc": config.chain.rpc,
        "spec": digest.hex(),
    }
    write_atomic(folder / "run.json", json.dumps(note, indent=2).encode())
    progress.end()
    return Deployed(run_address, chain_id, facts["block"], spec, digest, facts["gas"], token)
