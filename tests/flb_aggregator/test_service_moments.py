# SPDX-License-Identifier: Apache-2.0
"""A run with a server optimizer over a real port: void rounds, restarts and reorgs change nothing, members get the moments,
and `flb verify` recomputes them."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from flb import events as chain
from flb import moments, records
from flb.errors import NotListed
from flb.records import Record
from flb.spec import RunSpec, ServerOptimizerSpec
from flb.store import BlobStore
from flb.types import ZERO_DIGEST, Digest, Step
from flb_cli.replay import Report, replay
from tests.flb_node.test_download import seal, sealed
from tests.served import Served, serve
from tests.sim import DOMAIN, small_spec

pytestmark = pytest.mark.e2e


def spec_of(name: str = "adam", mode: str = "factors", down: str = "f32") -> RunSpec:
    return dataclasses.replace(small_spec(mode, down=down, steps=4), server_optimizer=ServerOptimizerSpec(name, 1e-3))


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Two sealed rounds of a run of four steps."""
    with serve(tmp_path / "aggregator", spec_of()) as running:
        for _ in range(2):
            seal(running, tmp_path)
        yield running


def record(served: Served, number: int) -> Record:
    return records.decode(served.daemon.blobs.get(served.daemon.view.rolls[number - 1].record_digest))


def replayed(
    served: Served, hidden: frozenset[Digest] = frozenset(), events: list[chain.ChainEvent] | None = None
) -> Report:
    blobs = served.daemon.blobs
    return replay(
        events or served.registry.events, DOMAIN,
        lambda digest: blobs.path(digest) if blobs.has(digest) and digest not in hidden else None,
    )  # fmt: skip


def left(made: Record) -> tuple[Digest, Digest, Digest, Digest]:
    return made.adapter, made.optimizer_state, made.down, made.remainder


@pytest.mark.parametrize(
    ("name", "mode", "down"),
    [("adam", "factors", "f32"), ("yogi", "alternate", "mxint8"), ("nesterov", "factors", "mxint8")],
)
def test_run__void_round_and_restart_between_steps__makes_the_same_blobs(
    name: str, mode: str, down: str, tmp_path: Path
) -> None:
    found = []
    for way in ("plain", "troubled"):
        folder = tmp_path / way
        folder.mkdir()
        with serve(folder / "aggregator", spec_of(name, mode, down)) as first:
            first.registry.now = type(first.registry.now)(2_000_000_000)
            seal(first, folder)
            if way == "plain":
                seal(first, folder)
                found.append(left(sealed(first)))
                continue
            number = first.opening().round
            first.registry.expire(number)
            first.await_true(lambda: first.opening().round == number + 1)  # noqa: B023
        with serve(folder / "aggregator", first.spec, first.registry) as second:
            second.opening()
            seal(second, folder)
            assert sealed(second).round == 3 and sealed(second).step == 2
            found.append(left(sealed(second)))
    assert found[0] == found[1] and found[0][1] != ZERO_DIGEST


def test_run__roll_undone_by_a_reorg__goes_on_from_the_same_moments(served: Served, tmp_path: Path) -> None:
    before = left(record(served, 2))
    served.registry.undo(1)

    def settled() -> bool:
        on_chain, ours = served.registry.view(), served.daemon.state.opening
        return len(on_chain.rolls) == 2 and ours is not None and ours.seed == on_chain.opening.seed  # type: ignore[union-attr]

    served.await_true(settled)
    assert left(record(served, 2)) == before
    seal(served, tmp_path)
    assert sealed(served).step == 3 and replayed(served).verdict == "exact"


def test_download__moments__are_for_members(served: Served, tmp_path: Path) -> None:
    made = sealed(served)
    uplink, blobs = served.uplink(served.opening().cohort[0]), BlobStore(tmp_path / "node")
    held = uplink.download(made.optimizer_state, blobs).read_bytes()
    assert moments.read_header(held[: moments.header_size(served.spec, Step(2))], served.spec, Step(2)) > 0
    with pytest.raises(NotListed):
        uplink.download(served.daemon.blobs.put(b"something else"), blobs)


def test_replay__honest_run__is_exact(served: Served) -> None:
    report = replayed(served)
    assert (report.verdict, report.findings, report.unchecked) == ("exact", [], [])


@pytest.mark.parametrize("number", [1, 2])
def test_replay__one_bit_of_the_published_moments__names_the_round(served: Served, number: int) -> None:
    path = served.daemon.blobs.path(record(served, number).optimizer_state)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    report = replayed(served)
    assert report.verdict == "fail"
    assert [(f.round, f.what) for f in report.findings] == [
        (number, "the published optimizer state's bytes differ from the digest in the record")
    ]


@pytest.mark.parametrize(
    ("lie", "what"),
    [
        (Digest(b"\x05" * 32), "the optimizer state in the record is not what the admitted updates make"),
        (ZERO_DIGEST, "the record's optimizer_state does not fit the server optimizer adam"),
    ],
    ids=["another", "none"],
)
def test_replay__record_with_another_digest__names_the_round(served: Served, lie: Digest, what: str) -> None:
    """A lying aggregator signs and rolls a record of its own making."""
    blob = records.encode(dataclasses.replace(record(served, 2), optimizer_state=lie))
    digest = served.daemon.blobs.put(blob)
    told = [
        dataclasses.replace(event, record_digest=digest)
        if isinstance(event, chain.ChainRoundRolled) and event.round == 2
        else event
        for event in served.registry.events
    ]
    assert (2, what) in [(finding.round, finding.what) for finding in replayed(served, events=told).findings]


def test_replay__round_before_cannot_be_recomputed__takes_its_published_moments(served: Served) -> None:
    first = record(served, 1)
    update = first.closing.admitted[0].manifest.digest
    report = replayed(served, frozenset({update}))
    assert report.findings == [] and report.verdict == "partial"
    assert [bool(line.get("recomputed")) for line in report.rounds] == [False, True]
    report = replayed(served, frozenset({update, first.optimizer_state}))
    assert "round 2: the optimizer state of the step before cannot be seen, not recomputed" in report.unchecked
