# SPDX-License-Identifier: Apache-2.0
"""Whole rounds over a real port: sealing, restarts, reorgs, void rounds, and claims that weigh nothing."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flb import errors
from flb.store import BlobStore
from flb.types import Digest, Round
from flb.v1 import aggregator_service_pb2 as pb
from flb_node.uplink import translated
from tests.flb_aggregator.test_service import deliver, stream, update
from tests.served import Served, serve
from tests.sim import key_for, small_spec

pytestmark = pytest.mark.e2e


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path / "aggregator", small_spec()) as running:
        yield running


def test_run__three_nodes__seals_every_round_and_serves_what_it_left(served: Served, tmp_path: Path) -> None:
    for step in range(1, served.spec.rounds.steps + 1):
        served.await_true(lambda step=step: served.daemon.state.opening and served.daemon.state.opening.step == step)
        for member in served.opening().cohort:
            manifest, blob = update(served, member)
            deliver(served.uplink(member), manifest, blob, tmp_path, key_for(member))
    served.await_true(lambda: served.daemon.view.finished)
    member = served.daemon.view.openings[Round(1)].roster[0]
    uplink = served.uplink(member)
    with translated():
        audit = uplink.stub.GetRoundAudit(pb.GetRoundAuditRequest(round=1), metadata=uplink.session())
    assert len(audit.updates) == 3 and audit.adapter == served.daemon.view.rolls[0].adapter_digest
    for digest in (audit.record, audit.adapter, *audit.updates, served.daemon.view.spec):
        path = uplink.download(Digest(digest), served.daemon.blobs.__class__(tmp_path / "mine"))
        assert path.name == digest.hex()
    assert (served.folder / "adapters" / "step-0003" / "adapter_model.safetensors").exists()
    with pytest.raises(errors.NotListed), translated():
        uplink.stub.GetRoundAudit(pb.GetRoundAuditRequest(round=9), metadata=uplink.session())


def test_restart__receipts_and_offsets__survive(tmp_path: Path) -> None:
    with serve(tmp_path / "aggregator", small_spec()) as first:
        registry, (one, two, _) = first.registry, first.opening().cohort
        manifest, blob = update(first, one)
        receipt = deliver(first.uplink(one), manifest, blob, tmp_path, key_for(one))
        half, other = update(first, two)
        with pytest.raises(errors.Truncated):
            stream(first.uplink(two), half, [other[:50_000]], key_for(two))
        spec = first.spec
    with serve(tmp_path / "aggregator", spec, registry) as second:
        second.opening()
        assert deliver(second.uplink(one), manifest, blob, tmp_path, key_for(one)) == receipt
        uplink = second.uplink(two)
        query = pb.QueryUploadRequest(round=half.round, seed=half.seed)
        assert uplink.stub.QueryUpload(query, metadata=uplink.session()).committed == 50_000


def test_reorg__undone_roll__is_sealed_again_with_the_same_record(served: Served, tmp_path: Path) -> None:
    for member in served.opening().cohort:
        manifest, blob = update(served, member)
        deliver(served.uplink(member), manifest, blob, tmp_path, key_for(member))
    served.await_true(lambda: len(served.daemon.view.rolls) == 1)
    before = served.daemon.view.rolls[0]
    served.registry.undo(1)
    served.await_true(lambda: served.daemon.view.rolls and served.daemon.view.rolls[0].seed != before.seed)
    after = served.daemon.view.rolls[0]
    assert (after.record_digest, after.adapter_digest) == (before.record_digest, before.adapter_digest)


def test_upload__claim_of_ten_times_its_records__weighs_what_was_registered(served: Served, tmp_path: Path) -> None:
    for member in served.opening().cohort:
        manifest, blob = update(served, member, examples=10 * member.records)
        receipt, _ = deliver(served.uplink(member), manifest, blob, tmp_path, key_for(member))
        assert receipt.weight == member.records
    served.await_true(lambda: len(served.daemon.view.rolls) == 1)
    lied = served.daemon.view.rolls[0].adapter_digest
    with serve(tmp_path / "honest", small_spec()) as honest:
        for member in honest.opening().cohort:
            manifest, blob = update(honest, member)
            deliver(honest.uplink(member), manifest, blob, tmp_path, key_for(member))
        honest.await_true(lambda: len(honest.daemon.view.rolls) == 1)
        assert honest.daemon.view.rolls[0].adapter_digest == lied, "not one byte of the result changes"


def test_void_round__update_signed_again__is_not_another_one(served: Served, tmp_path: Path) -> None:
    member = served.opening().cohort[0]
    manifest, blob = update(served, member)
    deliver(served.uplink(member), manifest, blob, tmp_path, key_for(member))
    served.registry.expire(Round(1))
    served.await_true(lambda: served.daemon.state.opening and served.daemon.state.opening.round == 2)
    again, same = update(served, member)
    assert same == blob and again.digest == manifest.digest and again.seed != manifest.seed
    receipt, _ = deliver(served.uplink(member), again, blob, tmp_path, key_for(member))
    assert (receipt.round, receipt.digest) == (2, manifest.digest)
    assert served.opening().step == 1


def test_watch__opening_without_its_confirmations__is_announced_and_its_adapter_is_there(
    served: Served, tmp_path: Path
) -> None:
    """A node may begin at once; intake follows when the block is confirmed."""
    opened = served.opening()
    served.registry.unconfirmed = 1  # what comes now is seen at the head alone
    served.registry.expire(opened.round)
    head = served.registry.head().opening
    assert head is not None and head.round == 2
    uplink = served.uplink(opened.cohort[0])
    told = next(told for told in uplink.watch() if told.round == 2)
    assert (told.seed, told.base, told.cohort) == (head.seed, head.base, frozenset(m.node for m in opened.cohort))
    uplink.download(told.base, BlobStore(tmp_path / "node"))
    assert served.opening().round == 1, "intake goes by confirmed blocks"
    served.registry.unconfirmed = 0
    served.await_true(lambda: served.opening().round == 2)
