# SPDX-License-Identifier: Apache-2.0
"""Recomputing a run whose steps travel encoded: exact, and every blob and digest that differs is named."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flb import events as chain
from flb import payouts, records
from flb.records import Record
from flb.types import Digest
from flb_cli.replay import Report, replay
from flb_node.download import fetch_adapter
from tests.flb_node.test_download import node, seal
from tests.served import Served, serve
from tests.sim import DOMAIN, small_spec

pytestmark = pytest.mark.e2e


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """Two sealed rounds of a run of three steps."""
    with serve(tmp_path / "aggregator", small_spec(down="mxint8")) as running:
        for _ in range(2):
            seal(running, tmp_path)
        yield running


def replayed(served: Served, hidden: frozenset[Digest] = frozenset()) -> Report:
    blobs = served.daemon.blobs
    return replay(
        served.registry.events, DOMAIN,
        lambda digest: blobs.path(digest) if blobs.has(digest) and digest not in hidden else None,
    )  # fmt: skip


def record(served: Served, number: int) -> Record:
    return records.decode(served.daemon.blobs.get(served.daemon.view.rolls[number - 1].record_digest))


def flip(served: Served, digest: Digest) -> None:
    path = served.daemon.blobs.path(digest)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_replay__a_stack__is_exact_and_its_adapters_grow_and_are_downloaded(tmp_path: Path) -> None:
    spec = small_spec("stack")
    spec = dataclasses.replace(spec, lora=dataclasses.replace(spec.lora, max_rank=18))
    with serve(tmp_path / "aggregator", spec) as running:
        for rank in (6, 12):
            seal(running, tmp_path)
            folder = tmp_path / "aggregator" / "adapters" / f"step-{rank // 6:04d}"
            config = json.loads((folder / "adapter_config.json").read_text())
            assert (config["r"], config["lora_alpha"]) == (rank, 2 * rank)
            uplink, blobs = node(running, tmp_path)
            path = fetch_adapter(uplink, blobs, spec, running.daemon.view.adapter, Digest(bytes(32)), lambda text: None)
            assert path.read_bytes() == (folder / "adapter_model.safetensors").read_bytes()
        assert replayed(running).verdict == "exact"
        flip(running, running.daemon.view.rolls[1].adapter_digest)
        finding = replayed(running).findings[0]
        assert (finding.round, finding.tensor) == (2, spec.tensors[-1].name)


def test_replay__honest_run__is_exact(served: Served) -> None:
    report = replayed(served)
    assert (report.verdict, report.findings, report.unchecked) == ("exact", [], [])
    assert any("2 of 2 adapters were recomputed" in text for text in report.proved)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    ("digest_of", "what"),
    [(lambda made: made.remainder, "remainder"), (lambda made: made.down, "encoded step")],
    ids=["remainder", "step"],
)
def test_replay__one_bit_of_a_published_blob__names_the_round(
    served: Served, number: int, digest_of: Callable[[Record], Digest], what: str
) -> None:
    flip(served, digest_of(record(served, number)))
    report = replayed(served)
    assert report.verdict == "fail"
    assert [(f.round, f.what) for f in report.findings] == [
        (number, f"the published {what}'s bytes differ from the digest in the record")
    ]


@pytest.mark.parametrize(("name", "what"), [("remainder", "remainder"), ("down", "encoded step")])
def test_replay__record_with_another_digest__names_the_round(served: Served, name: str, what: str) -> None:
    """A lying aggregator signs and rolls a record of its own making."""
    made = record(served, 2)
    lie = records.encode(dataclasses.replace(made, **{name: Digest(b"\x05" * 32)}))
    digest = served.daemon.blobs.put(lie)
    events = served.registry.events
    place = next(i for i, e in enumerate(events) if isinstance(e, chain.ChainRoundRolled) and e.round == 2)
    rolled = events[place]
    assert isinstance(rolled, chain.ChainRoundRolled)
    told = dataclasses.replace(rolled, record_digest=digest)
    report = replay(
        [*events[:place], told, *events[place + 1 :]], DOMAIN,
        lambda wanted: served.daemon.blobs.path(wanted) if served.daemon.blobs.has(wanted) else None,
    )  # fmt: skip
    assert (2, f"the {what} in the record is not what the admitted updates make") in [
        (finding.round, finding.what) for finding in report.findings
    ]


def test_replay__round_before_cannot_be_recomputed__takes_its_published_remainder(served: Served) -> None:
    first = record(served, 1)
    update = first.closing.admitted[0].manifest.digest
    report = replayed(served, frozenset({update}))
    # both rounds' updates have salts of their own, so the second one is seen whole
    assert report.findings == [] and report.verdict == "partial"
    assert [bool(line.get("recomputed")) for line in report.rounds] == [False, True]
    report = replayed(served, frozenset({update, first.remainder}))
    assert "round 2: the remainder of the step before cannot be seen, not recomputed" in report.unchecked
    flip(served, first.remainder)
    report = replayed(served, frozenset({update}))
    assert [(f.round, f.what) for f in report.findings] == [
        (2, "the remainder that it starts from differs from the record before")
    ]


def test_replay__record_with_standings_of_its_own__names_the_node(served: Served) -> None:
    """A lying aggregator gives one node more than its score earns, with roots that fit."""
    made = record(served, 2)
    row = made.standings[0]
    lied = dataclasses.replace(row, payout=row.payout + 1)
    table = (lied, *made.standings[1:])
    roots = {"scores_root": payouts.scores_tree(table).root, "payout_root": payouts.payout_root(table, 1)}
    digest = served.daemon.blobs.put(records.encode(dataclasses.replace(made, standings=table, **roots)))
    told = [
        dataclasses.replace(event, record_digest=digest, **roots)
        if isinstance(event, chain.ChainRoundRolled) and event.round == 2
        else event
        for event in served.registry.events
    ]
    blobs = served.daemon.blobs
    report = replay(told, DOMAIN, lambda wanted: blobs.path(wanted) if blobs.has(wanted) else None)
    what = f"its cumulative payout {lied.payout} in the record should be {row.payout}"
    assert (2, row.node, what) in [(finding.round, finding.node, finding.what) for finding in report.findings]
    assert [line["scored"] for line in report.rounds] == [True, False]


def test_replay__record_with_an_update_of_no_rank_s_size__names_the_node(served: Served) -> None:
    """A lying aggregator may name anything in a record: it is a finding, not the end of the verification."""
    made = record(served, 2)
    first, *others = made.closing.admitted
    lied = dataclasses.replace(first, manifest=dataclasses.replace(first.manifest, size=first.manifest.size + 1))
    closing = dataclasses.replace(made.closing, admitted=(lied, *others))
    digest = served.daemon.blobs.put(records.encode(dataclasses.replace(made, closing=closing)))
    told = [
        dataclasses.replace(event, record_digest=digest)
        if isinstance(event, chain.ChainRoundRolled) and event.round == 2
        else event
        for event in served.registry.events
    ]
    blobs = served.daemon.blobs
    report = replay(told, DOMAIN, lambda wanted: blobs.path(wanted) if blobs.has(wanted) else None)
    assert report.verdict == "fail"
    assert (2, first.manifest.node) in [(finding.round, finding.node) for finding in report.findings]


def test_replay__record_before_cannot_be_seen__leaves_scores_unchecked(served: Served) -> None:
    hidden = served.daemon.view.rolls[0].record_digest
    report = replayed(served, frozenset({hidden}))
    assert report.verdict == "partial"
    assert "round 2: the record before cannot be seen, scores and payouts not recomputed" in report.unchecked
