# SPDX-License-Identifier: Apache-2.0
"""Channels against a real aggregator: the certificate that the chain names, and no other."""

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from flb.errors import AggregatorUnavailable, BadSignature, ClockSkew, Impostor, NotAllowedHere, UnknownRun
from flb.types import ZERO_DIGEST, Address, Digest, Domain
from flb.v1 import aggregator_service_pb2 as pb
from flb_aggregator import certificate
from flb_node import channel
from flb_node.channel import Endpoint, open_channel
from flb_node.uplink import Uplink
from tests.served import Served, serve
from tests.sim import DOMAIN, small_spec

pytestmark = pytest.mark.e2e

OTHER = Digest(b"\x77" * 32)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path / "aggregator", small_spec()) as running:
        yield running


def uplink(served: Served) -> Uplink:
    return served.uplink(served.opening().cohort[0])


def test_open__current_or_next_digest__connects_and_says_which(served: Served) -> None:
    assert served.certificates is not None
    own = served.certificates.current.digest
    for endpoint in (Endpoint(served.address, own), Endpoint(served.address, OTHER, own)):
        opened, digest = open_channel(endpoint)
        grpc.channel_ready_future(opened).result(10)
        assert digest == own
        opened.close()


def test_open__another_certificate__is_an_impostor_with_both_digests(served: Served) -> None:
    assert served.certificates is not None
    following = Digest(b"\x78" * 32)
    with pytest.raises(Impostor) as caught:
        open_channel(Endpoint(served.address, OTHER, following))
    for digest in (served.certificates.current.digest, OTHER, following):
        assert digest.hex() in str(caught.value)
    with pytest.raises(Impostor):
        open_channel(Endpoint(served.address, OTHER))


def test_channel__server_changes_behind_it__does_not_take_another_certificate(served: Served) -> None:
    """Between fetching and connecting an impostor may take the place: the handshake itself must refuse it."""
    assert served.certificates is not None
    trusted = certificate.make()
    only = grpc.ssl_channel_credentials(trusted.pem)
    options = (("grpc.ssl_target_name_override", "flb-aggregator"),)
    with grpc.secure_channel(served.address, only, options=options) as opened:
        call = opened.unary_unary("/flb.v1.AggregatorService/GetRun")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_rotation__open_channel_goes_on__and_a_new_one_compares_again(served: Served) -> None:
    assert served.certificates is not None
    old = uplink(served)
    before = served.endpoint()
    old.session()
    served.certificates.prepare()
    following = served.certificates.next_digest
    served.registry.set_endpoint(before.uri, before.cert_digest, following)
    served.await_true(lambda: served.daemon.view.next_cert_digest == following)
    served.certificates.switch()
    assert served.certificates.current.digest == following

    old.stub.GetRun(pb.GetRunRequest(), timeout=10)
    old.token = ""
    old.session()  # the chain still names the old certificate
    again, digest = open_channel(Endpoint(before.uri, before.cert_digest, following))
    grpc.channel_ready_future(again).result(10)
    assert digest == following
    again.close()

    served.registry.set_endpoint(before.uri, following, ZERO_DIGEST)
    served.await_true(lambda: served.daemon.view.cert_digest == following)
    old.stub.GetRun(pb.GetRunRequest(), timeout=10)
    old.token = ""
    with pytest.raises(BadSignature, match="names a certificate that is not this aggregator's"):
        old.session()
    uplink(served).session()
    with pytest.raises(Impostor):
        open_channel(before)


def test_session__certificate_of_another__is_refused_by_name(served: Served) -> None:
    made = uplink(served)
    for digest in (OTHER, ZERO_DIGEST):
        made.cert_digest = digest
        with pytest.raises(BadSignature, match="names a certificate that is not this aggregator's"):
            made.session()


def test_session__another_registry__is_refused_with_both(served: Served) -> None:
    made = uplink(served)
    for domain in (Domain(1, DOMAIN.run), Domain(DOMAIN.chain_id, Address(b"\x05" * 20))):
        made.domain = domain
        with pytest.raises(UnknownRun) as caught:
            made.session()
        for shown in (domain, DOMAIN):
            assert f"run 0x{shown.run.hex()} on chain {shown.chain_id}" in str(caught.value)
    with pytest.raises(grpc.RpcError) as missing:
        made.stub.OpenSession(pb.OpenSessionRequest(node=made.node), timeout=10)
    assert missing.value.code() is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize(("off", "words"), [(400, "ended 3[34]. seconds ago"), (-700, "ends 7[56]. seconds from now")])
def test_session__clocks_apart__names_the_difference(served: Served, off: int, words: str) -> None:
    made = uplink(served)
    right = made.now
    made.now = lambda: right() + off
    with pytest.raises(ClockSkew, match=words):
        made.session()
    made.now = lambda: right() + 30
    made.session()


def test_plaintext__on_this_machine__serves_with_the_zero_digest(tmp_path: Path) -> None:
    with serve(tmp_path / "aggregator", small_spec(), tls=False) as plain:
        made = uplink(plain)
        assert made.endpoint.uri == f"http://{plain.address}" and made.cert_digest == ZERO_DIGEST
        made.session()
        with pytest.raises(AggregatorUnavailable, match="shows no certificate"):
            open_channel(Endpoint(plain.address, OTHER))


@pytest.mark.parametrize(
    "uri", ["http://192.0.2.1:50051", "http://example.org:50051", "http://127.0.0.1.example.org:1"]
)
def test_plaintext__to_another_machine__is_refused(uri: str) -> None:
    for digest in (ZERO_DIGEST, OTHER):
        with pytest.raises(NotAllowedHere, match="plaintext and not on this machine"):
            open_channel(Endpoint(uri, digest))


@pytest.mark.parametrize("uri", ["here", ":1", "127.0.0.1:", "127.0.0.1:0", "https://example.org:443", "a/b:1"])
def test_open__no_address__is_refused(uri: str) -> None:
    with pytest.raises(NotAllowedHere, match="not HOST:PORT"):
        open_channel(Endpoint(uri, OTHER))


def test_authorities__no_digest_on_chain__builds_and_refuses_a_self_signed_certificate(served: Served) -> None:
    opened, digest = open_channel(Endpoint(served.address))
    assert digest == ZERO_DIGEST
    known = channel.authorities()
    assert known is None or b"BEGIN CERTIFICATE" in known
    with opened, pytest.raises(grpc.RpcError) as caught:
        opened.unary_unary("/flb.v1.AggregatorService/GetRun")(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


def test_open__nobody_or_a_mute_listener__is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(AggregatorUnavailable, match="ConnectionRefusedError"):
            open_channel(Endpoint(address, OTHER))
        bound.listen()
        monkeypatch.setattr(channel, "FETCH_SECONDS", 0.2)
        with pytest.raises(AggregatorUnavailable, match="TimeoutError"):
            open_channel(Endpoint(address, OTHER))


def test_open__certificate_of_an_authority_unknown__fits_no_digest(tmp_path: Path) -> None:
    """A TLS server that is no aggregator at all."""
    made = certificate.make()
    path = tmp_path / "pair.pem"
    path.write_bytes(made.key + made.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def once() -> None:
            peer, _ = listener.accept()
            with context.wrap_socket(peer, server_side=True):
                pass

        thread = threading.Thread(target=once)
        thread.start()
        with pytest.raises(Impostor, match=made.digest.hex()):
            open_channel(Endpoint(f"127.0.0.1:{listener.getsockname()[1]}", OTHER))
        thread.join()
