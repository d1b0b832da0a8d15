# SPDX-License-Identifier: Apache-2.0
"""An adapter by its step over a real port: fewer bytes, the same digest, and the whole adapter where that fails."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flb import records
from flb.adapter_blob import largest_size
from flb.errors import NotListed
from flb.records import Record
from flb.store import BlobStore
from flb.types import ZERO_DIGEST, Digest
from flb_node.download import fetch_adapter, record_of
from flb_node.uplink import Uplink
from tests.flb_aggregator.test_service import deliver, update
from tests.served import Served, serve
from tests.sim import key_for, random_digest, small_spec

pytestmark = pytest.mark.e2e


@pytest.fixture(params=["factors", "alternate"])
def served(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    """With one sealed round."""
    with serve(tmp_path / "aggregator", small_spec(request.param, down="mxint8")) as running:
        seal(running, tmp_path)
        yield running


def seal(served: Served, folder: Path) -> None:
    """Everybody delivers in the open round."""
    number = served.opening().round
    for member in served.opening().cohort:
        manifest, blob = update(served, member)
        deliver(served.uplink(member), manifest, blob, folder, key_for(member))
    served.await_true(lambda: served.daemon.state.opening and served.daemon.state.opening.round == number + 1)


def sealed(served: Served) -> Record:
    """The record of the newest sealed round."""
    return records.decode(served.daemon.blobs.get(served.daemon.view.rolls[-1].record_digest))


def node(served: Served, folder: Path, held: Digest | None = None) -> tuple[Uplink, BlobStore]:
    """A node with an adapter, or a newcomer."""
    blobs = BlobStore(folder / "node")
    if held is not None:
        blobs.put(served.daemon.blobs.get(held))
    return served.uplink(served.opening().cohort[0]), blobs


def fetch(served: Served, uplink: Uplink, blobs: BlobStore) -> tuple[int, list[str]]:
    """Bring the newest adapter here; bytes that left the aggregator for it, and what the node said."""
    lines = list[str]()
    figure = served.daemon.metrics.figure(served.opening().round)
    before, adapter = figure["bytes_down"], served.daemon.view.adapter
    path = fetch_adapter(
        uplink, blobs, served.spec, adapter, record_of(adapter, served.daemon.view, None), lines.append
    )
    assert path == blobs.path(adapter) and blobs.get(adapter) == served.daemon.blobs.get(adapter)
    return figure["bytes_down"] - before, lines


def test_fetch_adapter__adapter_before_it_is_here__takes_the_step_and_gets_the_same_bytes(
    served: Served, tmp_path: Path
) -> None:
    record = sealed(served)
    uplink, blobs = node(served, tmp_path, record.base)
    count, lines = fetch(served, uplink, blobs)
    size = served.daemon.blobs.path(record.down).stat().st_size
    parts = [served.daemon.view.rolls[-1].record_digest, record.down]
    assert count == sum(served.daemon.blobs.path(digest).stat().st_size for digest in parts)
    assert (lines, blobs.has(record.down)) == ([], True)
    assert count < largest_size(served.spec) / 3 and size < largest_size(served.spec) / 3.8


def test_fetch_adapter__two_rounds_in_a_row__follows_by_steps_alone(served: Served, tmp_path: Path) -> None:
    uplink, blobs = node(served, tmp_path, sealed(served).base)
    first, _ = fetch(served, uplink, blobs)
    seal(served, tmp_path)
    second, lines = fetch(served, uplink, blobs)
    assert max(first, second) < largest_size(served.spec) / 3 and lines == []


def test_fetch_adapter__newcomer__takes_the_whole(served: Served, tmp_path: Path) -> None:
    uplink, blobs = node(served, tmp_path)
    count, lines = fetch(served, uplink, blobs)
    assert count >= largest_size(served.spec) and lines == []


@pytest.mark.parametrize("where", [0, -1])
def test_fetch_adapter__tampered_step__falls_back_to_the_whole(served: Served, tmp_path: Path, where: int) -> None:
    record = sealed(served)
    path = served.daemon.blobs.path(record.down)
    data = bytearray(path.read_bytes())
    data[where] ^= 1
    path.write_bytes(data)
    uplink, blobs = node(served, tmp_path, record.base)
    count, lines = fetch(served, uplink, blobs)
    assert count > largest_size(served.spec) and len(lines) == 1
    assert lines[0].startswith("the encoded step cannot be used (") and not blobs.has(record.down)


def test_fetch_adapter__step_is_gone__falls_back_to_the_whole(served: Served, tmp_path: Path) -> None:
    record = sealed(served)
    served.daemon.blobs.path(record.down).unlink()
    uplink, blobs = node(served, tmp_path, record.base)
    _, lines = fetch(served, uplink, blobs)
    assert len(lines) == 1 and "no such blob for this caller" in lines[0]


def test_fetch_adapter__damaged_adapter_on_this_disk__falls_back_to_the_whole(served: Served, tmp_path: Path) -> None:
    record = sealed(served)
    uplink, blobs = node(served, tmp_path, record.base)
    data = bytearray(blobs.get(record.base))
    data[-1] ^= 0x40  # a zero of B becomes 2: less would vanish in the sum
    blobs.path(record.base).write_bytes(data)
    _, lines = fetch(served, uplink, blobs)
    assert len(lines) == 1 and "makes another adapter" in lines[0]


def test_fetch_adapter__record_of_another_round__takes_the_whole(served: Served, tmp_path: Path) -> None:
    """A false announcement names some record: only bytes of the right digest are taken."""
    other = sealed(served)
    seal(served, tmp_path)
    uplink, blobs = node(served, tmp_path, other.base)
    adapter, lines = served.daemon.view.adapter, list[str]()
    record = served.daemon.view.rolls[0].record_digest
    fetch_adapter(uplink, blobs, served.spec, adapter, record, lines.append)
    assert blobs.get(adapter) == served.daemon.blobs.get(adapter)


def test_watch__sealed_round__announces_the_record_that_made_the_base(served: Served) -> None:
    told = next(served.uplink(served.opening().cohort[0]).watch())
    rolled = served.daemon.view.rolls[-1]
    assert (told.base, told.record) == (rolled.adapter_digest, rolled.record_digest)
    assert record_of(told.base, served.registry.view(), None) == told.record
    assert record_of(random_digest(), served.registry.view(), told) == ZERO_DIGEST


def test_watch__opening_without_its_confirmations__lists_the_step_to_it(served: Served, tmp_path: Path) -> None:
    base = served.daemon.view.adapter
    confirmed = served.registry.view()
    served.registry.view = lambda: confirmed  # type: ignore[method-assign]
    uplink, blobs = node(served, tmp_path, base)
    for member in served.opening().cohort:
        manifest, blob = update(served, member)
        deliver(served.uplink(member), manifest, blob, tmp_path, key_for(member))
    told = next(told for told in uplink.watch() if told.round == 3)
    assert record_of(told.base, served.daemon.view, told) == told.record != ZERO_DIGEST
    lines = list[str]()
    path = fetch_adapter(uplink, blobs, served.spec, told.base, told.record, lines.append)
    record = records.decode(blobs.get(told.record))
    assert lines == [] and path.exists() and blobs.has(record.down) and record.base == base


def test_download__remainder__is_open_like_a_record_and_others_are_not(served: Served, tmp_path: Path) -> None:
    uplink, blobs = node(served, tmp_path)
    state = sealed(served).remainder
    assert uplink.download(state, blobs).name == state.hex()
    hidden = served.daemon.blobs.put(b"something else")
    with pytest.raises(NotListed):
        uplink.download(hidden, blobs)


def test_restart__between_two_steps__goes_on_with_the_remainder(tmp_path: Path) -> None:
    found = []
    for name, restart in (("one", False), ("two", True)):
        folder = tmp_path / name
        folder.mkdir()
        with serve(folder / "aggregator", small_spec(down="mxint8")) as first:
            first.registry.now = type(first.registry.now)(2_000_000_000)
            seal(first, folder)
            if not restart:
                seal(first, folder)
                found.append(sealed(first))
        if restart:
            with serve(folder / "aggregator", first.spec, first.registry) as second:
                second.opening()
                seal(second, folder)
                found.append(sealed(second))
    one, two = found
    assert (one.adapter, one.remainder, one.down) == (two.adapter, two.remainder, two.down)
