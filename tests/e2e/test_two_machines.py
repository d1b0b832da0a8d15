# SPDX-License-Identifier: Apache-2.0
"""Two network namespaces for two machines: chain and aggregator in one, a node in the other, TLS on the wire between.

Every step is a command that a person would type, so this is the README's section on two machines, carried out.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from flb.chain.local import end_group
from tests.chains import cache
from tests.e2e.conftest import SETTINGS

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[2]
SERVER, DEVICE = "10.213.77.1", "10.213.77.2"
CHAIN_PORT, AGGREGATOR_PORT = 8600, 50051


@dataclass
class Machine:
    """A network namespace with a folder; it shares nothing else with the other one but what a test copies."""

    name: str
    folder: Path
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def command(self, *arguments: object) -> list[str]:
        return ["ip", "netns", "exec", self.name, sys.executable, "-m", *map(str, arguments)]

    def flb(self, *arguments: object, code: int = 0) -> str:
        """Run `flb` to its end; returns what it printed."""
        done = subprocess.run(
            self.command("flb_cli.main", *arguments), cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr

    def spawn(self, log: str, *arguments: object) -> subprocess.Popen[bytes]:
        """Start a process with a log in the machine's folder."""
        with (self.folder / log).open("wb") as file:
            process = subprocess.Popen(
                self.command(*arguments),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.running.append(process)
        return process

    def account(self, name: str) -> str:
        """A new account; returns its address."""
        password = self.folder / f"{name}.password"
        password.write_text(secrets.token_hex(16))
        said = self.flb("account", "new", self.folder / f"{name}.json", "--password-file", password, "--json")
        return str(json.loads(said)["address"])

    def config(self, name: str, config: dict[str, Any]) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        return path

    def said(self, log: str) -> str:
        return (self.folder / log).read_text(errors="replace")


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[tuple[Machine, Machine]]:
    """Two namespaces joined by a cable. In CI a machine that cannot make them fails, as every skip does there."""
    token = secrets.token_hex(3)
    names = (f"flb-{token}-a", f"flb-{token}-b")
    made: list[Machine] = []
    try:
        if shutil.which("ip") is None:
            pytest.skip("the program ip is not there")
        try:
            for name in names:
                ip("netns", "add", name)
                folder = tmp_path / name[-1]
                folder.mkdir()
                made.append(Machine(name, folder))
            ip("link", "add", f"fa{token}", "netns", names[0], "type", "veth", "peer", f"fb{token}", "netns", names[1])
            for name, link, address in zip(names, (f"fa{token}", f"fb{token}"), (SERVER, DEVICE), strict=True):
                ip("-n", name, "addr", "add", f"{address}/24", "dev", link)
                ip("-n", name, "link", "set", link, "up")
                ip("-n", name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"network namespaces cannot be made here ({error.stderr.decode().strip()})")
        yield made[0], made[1]
    finally:
        for machine in made:
            for process in reversed(machine.running):
                if process.poll() is None:
                    end_group(process, 6.0)
        for machine in made:
            subprocess.run(["ip", "netns", "del", machine.name], check=False, capture_output=True)


def await_line(machine: Machine, log: str, words: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while words not in machine.said(log):
        assert time.monotonic() < deadline, f"{words!r} does not come; {log} says: {machine.said(log)[-1000:]}"
        assert machine.running[-1].poll() in (None, 0), machine.said(log)[-1000:]
        time.sleep(0.1)


def test_round__between_two_machines__ends_with_a_receipt_over_tls(
    machines: tuple[Machine, Machine], base: Path, datasets: list[Path]
) -> None:
    server, device = machines
    filtered = f"http://{SERVER}:{CHAIN_PORT}"
    server.spawn(
        "chain.log", "flb_cli.main", "chain", "up", "--listen", f"{SERVER}:{CHAIN_PORT}", "--cache", cache()
    )  # fmt: skip
    await_line(server, "chain.log", f"other machines: {filtered}", 120)

    owner, aggregator, node = server.account("owner"), server.account("aggregator"), device.account("node")
    assert "does not pass the filter" in device.flb("account", "fund", node, "--rpc", filtered, code=61)
    for address in (owner, aggregator):
        server.flb("account", "fund", address)
    settings = server.config(
        "aggregator",
        {
            **SETTINGS,
            "run": {**SETTINGS["run"], "steps": 1, "min_nodes": 1},
            "model": {"model_path": str(base)},
            "server": {
                "listen": f"0.0.0.0:{AGGREGATOR_PORT}",
                "advertise": f"{SERVER}:{AGGREGATOR_PORT}",
                "keystore": "aggregator.json",
                "password_file": "aggregator.password",
                "workdir": "work",
            },
        },
    )
    owned = ("--keystore", server.folder / "owner.json", "--password-file", server.folder / "owner.password")
    run = server.flb("chain", "deploy", "--config", settings, *owned).strip()
    server.spawn("aggregator.log", "flb_aggregator", "--config", settings)
    await_line(server, "aggregator.log", f"published the endpoint {SERVER}:{AGGREGATOR_PORT}")

    invite = server.flb("chain", "invite", run, node, *owned).strip()
    own = device.config(
        "node",
        {
            "model": {"model_path": str(base), "dtype": "float32"},
            "dataset_name": str(datasets[0]),
            "chain": {"rpc": filtered, "run": run},
            "client": {
                "keystore": "node.json",
                "password_file": "node.password",
                "workdir": "work",
                "threads": 1,
                "invite": invite,
            },
        },
    )
    process = device.spawn("node.log", "flb_node", "--config", own)
    await_line(device, "node.log", "registered a dataset")
    server.flb("chain", "start", run, *owned)
    assert process.wait(120) == 0, device.said("node.log")[-2000:]

    receipts = list((device.folder / "work").glob("receipt-*.json"))
    assert len(receipts) == 1 and json.loads(receipts[0].read_text())["node"] == node.lower()
    endpoint = json.loads(device.flb("chain", "status", run, "--rpc", filtered, "--json"))["endpoint"]
    assert endpoint["uri"] == f"{SERVER}:{AGGREGATOR_PORT}" and int(endpoint["cert_digest"], 16) != 0
    verified = json.loads(
        device.flb("verify", run, "--rpc", filtered, "--cache", device.folder / "verify", "--json")
    )  # fmt: skip
    assert verified["verdict"] in ("exact", "certified"), verified
    assert os.path.exists(server.folder / "work" / "tls" / "current.pem")
