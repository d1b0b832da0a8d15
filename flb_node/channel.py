# SPDX-License-Identifier: Apache-2.0
"""A channel to the aggregator that the chain names, and to nobody else.

Three forms, by what `setEndpoint` published: `http://` is plaintext on this machine; an address with a certificate
digest is TLS with the one certificate that has it; an address without one is TLS under the system's authorities.
"""

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from flb.errors import AggregatorUnavailable, Impostor, NotAllowedHere
from flb.identity import TLS_NAME, certificate_digest
from flb.roster import RunView
from flb.types import ZERO_DIGEST, Digest

FETCH_SECONDS = 10.0
"""For the handshake that shows the certificate."""
PLAIN = "http://"
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the aggregator listens, by the chain, and the SHA-256 of the certificates that it may show."""

    uri: str
    cert_digest: Digest = ZERO_DIGEST
    next_cert_digest: Digest = ZERO_DIGEST

    @property
    def trusted(self) -> frozenset[Digest]:
        """What a channel may rest on; the zero digest stands for plaintext, or the system's authorities."""
        named = frozenset({self.cert_digest, self.next_cert_digest})
        return named if named == {ZERO_DIGEST} else named - {ZERO_DIGEST}

    def keeps(self, uri: str, digest: Digest) -> bool:
        """Whether an open channel to `uri` that trusts `digest` is still one to this endpoint."""
        return uri == self.uri and digest in self.trusted


def endpoint_of(view: RunView) -> Endpoint:
    """What the chain says now."""
    return Endpoint(view.uri, view.cert_digest, view.next_cert_digest)


def open_channel(endpoint: Endpoint, options: Sequence[tuple[str, Any]] = ()) -> tuple[grpc.Channel, Digest]:
    """The channel, and the digest of the certificate that it trusts (zero for plaintext and public authorities).

    Raises NotAllowedHere for plaintext to another machine and for what is no address, Impostor for a certificate that
    the chain does not name, AggregatorUnavailable where nobody answers.
    """
    plain = endpoint.uri.startswith(PLAIN)
    address = endpoint.uri.removeprefix(PLAIN)
    host, port = split(address)
    if plain:
        if host not in LOOPBACK:
            raise NotAllowedHere(
                f"the aggregator's address {endpoint.uri!r} is plaintext and not on this machine",
                "ask the operator to serve TLS",
            )
        return grpc.insecure_channel(address, options=options), ZERO_DIGEST
    if endpoint.trusted == {ZERO_DIGEST}:
        return grpc.secure_channel(address, grpc.ssl_channel_credentials(authorities()), options=options), ZERO_DIGEST
    pem, seen = fetch(host, port)
    if seen not in endpoint.trusted:
        named = " or ".join(sorted(digest.hex() for digest in endpoint.trusted))
        raise Impostor(
            f"{address} shows the certificate {seen.hex()}, and the chain names {named}", "do not trust this endpoint"
        )
    # one root: two self-signed certificates with one subject in a bundle would fail each other's check
    only = grpc.ssl_channel_credentials(pem.encode())
    pinned = (*options, ("grpc.ssl_target_name_override", TLS_NAME))
    return grpc.secure_channel(address, only, options=pinned), seen


def split(address: str) -> tuple[str, int]:
    """Host, without brackets, and port. Raises NotAllowedHere."""
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536 or "/" in host:
        raise NotAllowedHere(f"the aggregator's address {address!r} is not HOST:PORT", "ask the operator to correct it")
    return host.removeprefix("[").removesuffix("]"), int(port)


def fetch(host: str, port: int) -> tuple[str, Digest]:
    """The certificate that a server shows, PEM, unchecked, and its digest. Raises AggregatorUnavailable."""
    try:
        pem = ssl.get_server_certificate((host, port), timeout=FETCH_SECONDS)
    except (OSError, ValueError) as error:  # ValueError: a certificate of no known form, or a name of no known form
        raise AggregatorUnavailable(
            f"the aggregator at {host}:{port} shows no certificate ({type(error).__name__})",
            "check that it runs; this node tries again",
        ) from error
    return pem, certificate_digest(ssl.PEM_cert_to_DER_cert(pem))


def authorities() -> bytes | None:
    """The system's certificate authorities, PEM; None, where it lists none, stands for gRPC's own list."""
    known = ssl.create_default_context().get_ca_certs(binary_form=True)
    return "".join(map(ssl.DER_cert_to_PEM_cert, known)).encode() or None
