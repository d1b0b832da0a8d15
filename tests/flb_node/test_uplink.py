# SPDX-License-Identifier: Apache-2.0
"""What an upload leaves behind: a connection that once took one costs the aggregator memory for as long as it is open;
and an answer that says nothing."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import psutil  # type: ignore[import-untyped]
import pytest

from flb.errors import AggregatorUnavailable, Impostor
from flb.membership import Kind, Message, SignedMessage
from flb.types import Address, Seconds
from flb_node.channel import Endpoint, open_channel
from flb_node.uplink import Uplink
from tests.served import Served, serve
from tests.sim import DOMAIN, key_for, manifest_for, signed, small_spec, update_bytes

pytestmark = pytest.mark.e2e

NODE = Address(b"\x07" * 20)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path / "aggregator", small_spec(codec="f32")) as running:
        yield running


@pytest.fixture
def mute(tmp_path: Path) -> Iterator[Uplink]:
    """An uplink to somebody who answers each call with an empty message."""

    class Answers(grpc.GenericRpcHandler):  # type: ignore[misc]
        def service(self, details: Any) -> grpc.RpcMethodHandler:
            return grpc.unary_unary_rpc_method_handler(lambda request, context: b"")

    server = grpc.server(ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((Answers(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    uplink = Uplink(Endpoint(f"http://127.0.0.1:{port}"), DOMAIN, lambda: NODE, NODE, bytes(32))
    yield uplink
    uplink.close()
    server.stop(None).wait()


def test_relay__answer_without_a_result__the_aggregators_fault(mute: Uplink) -> None:
    leave = SignedMessage(Message(Kind.LEAVE, NODE, 1, Seconds(9)), bytes(64))
    with pytest.raises(AggregatorUnavailable, match="answer about a message is malformed: trying again"):
        mute.relay(leave)


def connections(served: Served) -> int:
    """How many the aggregator has open; it runs in this process."""
    port = int(served.address.rpartition(":")[2])
    open_ones = psutil.Process().net_connections("tcp")
    return sum(c.laddr.port == port and c.status == psutil.CONN_ESTABLISHED for c in open_ones)


def deliver(served: Served, uplink: Uplink, folder: Path) -> list[int]:
    """Upload the first node's update; how many connections there were while it went."""
    opened = served.opening()
    member, path, seen = opened.cohort[0], folder / "update", list[int]()
    path.write_bytes(update_bytes(served.spec, opened.step, member, opened.base))
    manifest = manifest_for(served.spec, opened, member, path.read_bytes())
    uplink.deliver(
        manifest, signed(manifest, key_for(member)), path, lambda done, size: seen.append(connections(served))
    )
    assert member.node in served.admitted()
    return seen


def test_deliver__over__has_closed_the_connection_that_it_opened(served: Served, tmp_path: Path) -> None:
    uplink = served.uplink(served.opening().cohort[0])
    uplink.session()
    served.await_true(lambda: connections(served) == 1)
    assert max(deliver(served, uplink, tmp_path)) == 2
    served.await_true(lambda: connections(served) == 1)
    uplink.get_run(served.registry.view().spec)  # and the uplink's own goes on
    uplink.close()


def test_deliver__certificate_that_was_not_named_then__goes_over_the_open_channel(
    served: Served, tmp_path: Path
) -> None:
    assert served.certificates is not None
    uplink = served.uplink(served.opening().cohort[0])
    uplink.session()
    served.certificates.prepare()
    served.certificates.switch()
    with pytest.raises(Impostor):
        open_channel(uplink.endpoint)
    assert set(deliver(served, uplink, tmp_path)) == {1}
    uplink.close()
