# SPDX-License-Identifier: Apache-2.0
"""A daemon under central privacy on a real port: verified from its noised sums, and what a liar's record shows."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flb import events as chain
from flb import records
from flb.errors import NotListed
from flb.records import Record
from flb.types import Digest
from flb_aggregator import retention
from flb_cli.replay import Report, replay
from tests.central_rounds import central_spec
from tests.flb_node.test_download import node, seal
from tests.served import Served, serve
from tests.sim import DOMAIN, TENSORS

pytestmark = pytest.mark.e2e


@pytest.fixture(params=["fixed", "adaptive"])
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    """Two sealed rounds of a run of three steps."""
    spec = central_spec(request.param, clip_norm=0.2, tensors=TENSORS)
    with serve(tmp_path / "aggregator", spec) as running:
        for _ in range(2):
            seal(running, tmp_path)
        yield running


def record(served: Served, number: int) -> Record:
    return records.decode(served.daemon.blobs.get(served.daemon.view.rolls[number - 1].record_digest))


def replayed(served: Served, told: Record | None = None, hidden: frozenset[Digest] = frozenset()) -> Report:
    """Verify as a stranger, who sees no update; `told` is what the second round says in place of its record."""
    blobs, events = served.daemon.blobs, list(served.registry.events)
    updates = {item.manifest.digest for number in (1, 2) for item in record(served, number).closing.admitted}
    if told is not None:
        place = next(i for i, e in enumerate(events) if isinstance(e, chain.ChainRoundRolled) and e.round == 2)
        rolled = events[place]
        assert isinstance(rolled, chain.ChainRoundRolled)
        events[place] = dataclasses.replace(rolled, record_digest=blobs.put(records.encode(told)))

    def fetch(digest: Digest) -> Path | None:
        return blobs.path(digest) if blobs.has(digest) and digest not in updates | hidden else None

    return replay(events, DOMAIN, fetch)


def test_replay__without_any_update__is_exact_and_says_what_rests_on_trust(served: Served) -> None:
    report = replayed(served)
    assert (report.verdict, report.findings, report.unchecked) == ("exact", [], [])
    assert any("2 of 2 adapters were recomputed from their noised sums" in text for text in report.proved)
    assert any("clipped every update" in text and "added noise" in text for text in report.trusted)


def test_replay__one_bit_of_a_noised_sum__names_the_round(served: Served) -> None:
    noise = record(served, 2).noise
    assert noise is not None
    path = served.daemon.blobs.path(noise.noised_sum)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    report = replayed(served)
    assert report.verdict == "fail" and report.findings[0].round == 2
    assert report.findings[0].what == "the noised sum's bytes differ from the digest in the record"


def test_replay__a_noised_sum_that_cannot_be_seen__is_partial(served: Served) -> None:
    noise = record(served, 1).noise
    assert noise is not None
    report = replayed(served, hidden=frozenset({noise.noised_sum}))
    assert report.verdict == "partial" and any("1 of 1 noised sums cannot be seen" in text for text in report.unchecked)


@pytest.mark.parametrize(
    ("changed", "name"),
    [({"clip_norm": 0.1}, "clip_norm"), ({"sigma": 1e-9}, "sigma"), ({"epsilon": 0.5}, "epsilon"),
     ({"epsilon": None}, "epsilon"), ({"delta": 1e-9}, "delta"), ({"releases": 1}, "releases"),
     ({"next_clip_norm": 7.5}, "next_clip_norm")],
)  # fmt: skip
def test_replay__a_record_that_lies_about_its_noise__is_named(
    served: Served, changed: dict[str, Any], name: str
) -> None:
    made = record(served, 2)
    assert made.noise is not None
    report = replayed(served, dataclasses.replace(made, noise=dataclasses.replace(made.noise, **changed)))
    what = f"the {name} of the record's noise does not follow from the spec and the record before"
    assert (2, what) in [(finding.round, finding.what) for finding in report.findings]


def test_replay__a_record_without_its_noise__is_named(served: Served) -> None:
    report = replayed(served, dataclasses.replace(record(served, 2), noise=None))
    assert any("noise does not fit" in finding.what for finding in report.findings)


def test_download__noised_sum__is_open_and_an_update_is_not(served: Served, tmp_path: Path) -> None:
    uplink, blobs = node(served, tmp_path)
    made = record(served, 2)
    assert made.noise is not None
    assert uplink.download(made.noise.noised_sum, blobs).read_bytes()
    with pytest.raises(NotListed):
        uplink.download(made.closing.admitted[0].manifest.digest, blobs)


def test_daemon__log_and_metrics__tell_nothing_of_one_update(served: Served) -> None:
    admitted = [line for line in served.lines if "admitted 0x" in line]
    assert len(admitted) == 6 and not [line for line in admitted if "norm" in line]
    lines = [json.loads(line) for line in (served.folder / "rounds.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and not [line for line in lines if "codec_error" in line]
    assert not (served.folder / "gaps.jsonl").exists()


def test_daemon__each_round__says_what_the_run_spent(served: Served) -> None:
    assert [line for line in served.lines if "the run is at epsilon 4.37" in line and "after 1 releases" in line]
    lines = [json.loads(line) for line in (served.folder / "rounds.jsonl").read_text().splitlines()]
    assert [line["privacy"]["releases"] for line in lines] == [1, 2]


def test_collect__sealed_rounds__keep_noised_sums_and_no_update(served: Served) -> None:
    daemon, made = served.daemon, record(served, 1)
    assert made.noise is not None
    retention.collect(daemon.blobs, daemon.view, daemon.state, {daemon.spec_digest}, None, 2.0**40, True)
    assert daemon.blobs.has(made.noise.noised_sum)
    assert not any(daemon.blobs.has(item.manifest.digest) for item in made.closing.admitted)
    assert replayed(served).verdict == "exact"


def test_serve__again__goes_on_with_the_clip_norm_of_the_record(served: Served, tmp_path: Path) -> None:
    before = record(served, 2).noise
    seal_last(served, tmp_path)
    after = record(served, 3).noise
    assert before is not None and after is not None
    assert after.clip_norm == before.next_clip_norm and after.releases == 3
    served.await_true(lambda: not list((served.folder / "noise").glob("*.key")))


def seal_last(served: Served, folder: Path) -> None:
    """Everybody delivers in the last round."""
    from tests.flb_aggregator.test_service import deliver, update
    from tests.sim import key_for

    for member in served.opening().cohort:
        manifest, blob = update(served, member)
        deliver(served.uplink(member), manifest, blob, folder, key_for(member))
    served.await_true(lambda: len(served.daemon.view.rolls) == 3)
