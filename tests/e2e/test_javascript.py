# SPDX-License-Identifier: Apache-2.0
"""The protocol from the outside: a client in JavaScript, written from the documents, against the real aggregator."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flb.admission import layout_of
from flb.chain.local import node_binaries
from flb.identity import address_of
from flb.spec import decode
from flb.types import Digest, Step
from flb.wire.chunks import CHUNK
from flb_cli.federation import Federation
from flb_cli.replay import replay
from tests.chains import cache
from tests.e2e.conftest import KEYS, SETTINGS

pytestmark = pytest.mark.e2e

FOLDER = Path(__file__).resolve().parents[1] / "js"
NODES = ("node-1", "node-2")
CODECS = ["f32", "mxint8"]
"""The plainest and the default; the vectors hold all."""


def node_command(script: str, *arguments: str) -> list[str]:
    """A command line for one of the scripts."""
    assert (FOLDER / "node_modules").exists(), "the client's packages are not installed: run make setup"
    return [str(node_binaries() / "node"), str(FOLDER / script), *arguments]


def test_vectors__recomputed_in_javascript__are_equal() -> None:
    done = subprocess.run(node_command("vectors.mjs"), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    written = {path.stem for path in (FOLDER.parents[1] / "proto" / "vectors").glob("*.json")}
    assert set(counts) == written and min(counts.values()) > 0


@pytest.fixture(params=CODECS)
def federation(request: pytest.FixtureRequest, base: Path, tmp_path: Path) -> Iterator[Federation]:
    """Chain, contract and aggregator of a run of one step, and no node of our own.

    With f32 blobs of several chunks, with the others smaller ones of one factor.
    """
    shape = {"mode": "factors", "r": 512} if request.param == "f32" else {"mode": "alternate", "r": 2}
    run = {"steps": 1, "min_nodes": 2, "audit": "public", "codec": request.param}
    settings = {**SETTINGS, "lora": {**SETTINGS["lora"], **shape}, "run": run}
    with Federation(tmp_path / "run", base, [], settings, cache(), keys=KEYS) as federation:
        federation.start_chain()
        federation.deploy()
        federation.spawn("aggregator")
        yield federation


def spawn_client(federation: Federation, name: str) -> None:
    """Start the client under a funded account; what it prints goes to a file of its own."""
    assert federation.chain is not None and federation.registry is not None
    key = federation.folder / f"{name}.hex"
    key.write_text("0x" + federation.account(name).hex())
    run = "0x" + federation.registry.domain.run.hex()
    invite = federation.invite(name)
    assert invite is not None
    command = node_command(
        "client.mjs", "--rpc", federation.chain.url, "--run", run, "--key", str(key), "--invite", invite
    )  # fmt: skip
    with (federation.folder / f"{name}.out").open("wb") as out:
        federation.spawn_command(name, command, stdout=out)


def printed(federation: Federation, name: str) -> dict[str, Any]:
    """The one line of a client that ended well."""
    child = federation.children[name]
    assert child.process.wait(60) == 0, child.log.read_text()
    answer: dict[str, Any] = json.loads((federation.folder / f"{name}.out").read_text())
    return answer


def test_client__two_in_a_run__have_receipts_and_the_run_replays_exactly(federation: Federation) -> None:
    for name in NODES:
        spawn_client(federation, name)
    federation.await_view(lambda view: sum(m.records > 0 for m in view.members.values()) == len(NODES), 60)
    assert federation.owner is not None and federation.registry is not None
    federation.owner.start()
    answers = {name: printed(federation, name) for name in NODES}
    view = federation.await_view(lambda view: view.finished, 60)

    blobs = federation.folder / "aggregator" / "blobs"
    spec = decode((blobs / view.spec.hex()).read_bytes())
    size = layout_of(spec, Step(1)).size
    for name, answer in answers.items():
        assert answer["receipt"]["node"] == "0x" + address_of(KEYS[name]).hex()
        assert (blobs / answer["receipt"]["digest"][2:]).stat().st_size == size
        assert answer["resumed_from"] == min(CHUNK, (size + 1) // 2), (
            "the second upload went on where the first was broken off"
        )
    assert (view.rolls[0].accepted, view.rolls[0].weight_sum) == (2, 4)

    def fetch(digest: Digest) -> Path | None:
        path = blobs / digest.hex()
        return path if path.exists() else None

    report = replay(federation.registry.events, federation.registry.domain, fetch)
    assert (report.verdict, report.unchecked) == ("exact", []), report.findings
    assert report.rounds[0]["updates"] == 2
