# SPDX-License-Identifier: Apache-2.0
"""A whole federation on this machine, as separate processes: chain, aggregator and nodes, each with key and config.

It sets up what people set up by hand on several machines, with the same commands and files; nothing here is a
shortcut through the protocol. Its nodes have no coins: they hold invites, and the aggregator relays what they sign. The demo runs it, and so do the end-to-end tests.
"""

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml

from flb import keystore
from flb.chain import local
from flb.chain.events import to_json
from flb.chain.registry import Registry
from flb.chain.rpc import Rpc
from flb.chain.sender import Sender
from flb.config_file import load
from flb.errors import ChildFailed
from flb.membership import invite_to_text, sign_invite
from flb.roster import RunView
from flb.types import Domain, Seconds
from flb_cli import deploy
from flb_cli.deploy import Deployed

PBKDF2_ROUNDS = 100_000
"""Keys of a demo hold test coins and live for minutes."""
INVITE_SECONDS = 86_400
RELAY_SECONDS = 0.5
"""Its nodes come at the same moment: one transaction takes them all."""
POLL_SECONDS = 0.1
START_SECONDS = 180.0


@dataclass(slots=True)
class Child:
    """A process of the federation and where it writes."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def last_line(self) -> str:
        """What it said last."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "nothing"


@dataclass(slots=True)
class Federation:
    """Paths, accounts and processes. Use it in a `with` block: leaving ends every process."""

    folder: Path
    base: Path
    datasets: Sequence[Path]
    settings: dict[str, Any]
    """Sections `lora`, `training` and `run` of config.yaml, the same for everybody."""
    cache: Path
    say: Callable[[str], None] = lambda text: None
    children: dict[str, Child] = field(default_factory=dict)
    chain: local.LocalChain | None = None
    chain_log: IO[bytes] | None = None
    owner: Sender | None = None
    registry: Registry | None = None
    keys: dict[str, bytes] = field(default_factory=dict)
    """Private keys by name, where they must be known beforehand; the others are random."""
    dtype: str = "auto"
    threads: int | None = None
    test_token: int = 0
    """How much test token the run holds to pay its nodes with; 0 for a run without a token."""

    def __enter__(self) -> "Federation":
        self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ------------------------------------------------------------- starting

    def start(self) -> None:
        """Chain, contract, aggregator, nodes; returns when all are members and round 1 is open."""
        self.start_chain()
        self.deploy()
        self.spawn("aggregator")
        for index in range(len(self.datasets)):
            self.spawn(f"node-{index + 1}")
        self.await_members()
        assert self.owner is not None
        self.owner.start()

    def start_chain(self) -> None:
        """The local chain."""
        self.say("starting the chain")
        hardhat = local.install(self.cache, self.say)
        self.chain_log = (self.folder / "chain.log").open("wb")
        self.chain = local.start(hardhat, self.chain_log, tied=True)

    def rpc(self) -> Rpc:
        """The chain's endpoint."""
        assert self.chain is not None
        return Rpc(self.chain.url)

    def account(self, name: str, role: str = "node", coins: bool = True) -> bytes:
        """A new account with its keystore and password file, and coins if it pays for itself; returns its key."""
        key = self.keys.get(name) or secrets.token_bytes(32)
        folder = self.folder / "keys"
        folder.mkdir(exist_ok=True)
        password = folder / f"{name}.password"
        descriptor = os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_hex(16))
        address = keystore.create(folder / f"{name}.json", keystore.read_password(password), key, PBKDF2_ROUNDS, role)
        if coins:
            local.fund(self.rpc(), address)
        return key

    def invite(self, name: str) -> str | None:
        """The owner's invite for an account, as text; None where membership is open."""
        if self.settings.get("run", {}).get("membership") == "open":
            return None
        assert self.owner is not None and self.registry is not None
        node = keystore.stored_address(self.folder / "keys" / f"{name}.json")
        deadline = Seconds(int(time.time()) + INVITE_SECONDS)
        return invite_to_text(sign_invite(self.owner.key, self.registry.domain, node, 0, deadline))

    def deploy(self) -> None:
        """Accounts, config files, and the run on chain."""
        self.say("deploying the run")
        owner, _ = (self.account(name, name) for name in ("owner", "aggregator"))
        for index in range(len(self.datasets)):
            self.account(f"node-{index + 1}", coins=False)
        self.write_config("aggregator", port=local.free_port())
        self.owner = Sender(self.rpc(), owner)
        aggregator = keystore.stored_address(self.folder / "keys" / "aggregator.json")
        deployed = deploy.deploy(load(self.folder / "aggregator.yaml"), owner, aggregator, test_token=self.test_token)
        self.watch(deployed)
        for index, dataset in enumerate(self.datasets):
            self.write_config(f"node-{index + 1}", dataset=dataset, run="0x" + deployed.run.hex())

    def watch(self, deployed: Deployed) -> None:
        """Follow a run that was deployed, as its owner."""
        assert self.owner is not None
        self.owner.run = deployed.run
        self.registry = Registry(self.rpc(), Domain(deployed.chain_id, deployed.run), deployed.deploy_block)

    def write_config(self, name: str, port: int = 0, dataset: Path | None = None, run: str | None = None) -> None:
        """config.yaml of one process; a node's holds its invite."""
        assert self.chain is not None
        own = {
            "keystore": str(Path("keys") / f"{name}.json"),
            "password_file": str(Path("keys") / f"{name}.password"),
            "workdir": name,
        }
        config: dict[str, Any] = {
            "model": {"model_path": str(self.base.absolute()), "dtype": self.dtype},
            "chain": {"rpc": self.chain.url, "run": run},
        }
        if port:
            relay = {"batch_seconds": RELAY_SECONDS}
            config |= {**self.settings, "server": {**own, "listen": f"127.0.0.1:{port}", "relay": relay}}
        else:
            shared = {
                "threads": self.threads,
                "nodes_on_this_machine": len(self.datasets),
                "invite": self.invite(name),
                "privacy_folder": "privacy",
            }
            config |= {"dataset_name": str(dataset.absolute() if dataset else ""), "client": {**own, **shared}}
        (self.folder / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def spawn(self, name: str) -> Child:
        """Start, or start again, one daemon with its config file."""
        package = "flb_aggregator" if name == "aggregator" else "flb_node"
        command = [sys.executable, "-m", package, "--config", str(self.folder / f"{name}.yaml")]
        return self.spawn_command(name, command)

    def spawn_command(self, name: str, command: Sequence[str], **options: Any) -> Child:
        """Start a child in a process group of its own, with a log file."""
        log = self.folder / f"{name}.log"
        with log.open("ab") as file:
            process = subprocess.Popen(
                command,
                **{"stdin": subprocess.DEVNULL, "stdout": file, **options},
                stderr=file,
                process_group=0,  # its own group: it can be ended with whatever it started
            )
        child = Child(name, process, log)
        self.children[name] = child
        return child

    # ------------------------------------------------------------- watching

    def view(self) -> RunView:
        """What the chain says now."""
        assert self.registry is not None
        return self.registry.poll()

    def check(self) -> None:
        """Raise ChildFailed if a child ended that should not have."""
        for child in self.children.values():
            code = child.process.poll()
            if code is not None and code != 0:
                said = child.last_line()
                raise ChildFailed(
                    f"{child.name} ended with exit code {code}; it said: {said}", f"its log is {child.log}"
                )

    def await_members(self) -> None:
        """Wait until every node is a member with a dataset."""
        self.say("waiting for the nodes to join")
        deadline = time.monotonic() + START_SECONDS
        while True:
            members = self.view().members.values()
            if sum(member.records > 0 for member in members) == len(self.datasets):
                return
            self.check()
            if time.monotonic() > deadline:
                raise ChildFailed("the nodes did not join in time", f"look at the logs in {self.folder}")
            time.sleep(POLL_SECONDS)

    def await_view(self, condition: Callable[[RunView], bool], seconds: float = 600.0) -> RunView:
        """Wait until the chain satisfies a condition."""
        deadline = time.monotonic() + seconds
        while True:
            view = self.view()
            if condition(view):
                return view
            self.check()
            if time.monotonic() > deadline:
                raise ChildFailed("the run does not advance", f"look at the logs in {self.folder}")
            time.sleep(POLL_SECONDS)

    def write_events(self) -> Path:
        """The registry's events with their block hashes: a local chain forgets, the folder does not."""
        import json

        assert self.registry is not None
        self.registry.poll()
        path = self.folder / "events.jsonl"
        path.write_text("".join(json.dumps(to_json(event)) + "\n" for event in self.registry.events))
        return path

    # -------------------------------------------------------------- stopping

    def stop(self) -> None:
        """End every child: ask all, then wait, then kill."""
        for child in self.children.values():
            if child.process.poll() is None:
                try:
                    os.killpg(child.process.pid, signal.SIGTERM)
                except ProcessLookupError:
                    continue
        for child in self.children.values():
            if child.process.poll() is None:
                local.end_group(child.process, 6.0)
        if self.chain is not None:
            self.chain.stop()
            self.chain = None
        if self.chain_log is not None:
            self.chain_log.close()
            self.chain_log = None
