# SPDX-License-Identifier: Apache-2.0
"""The gRPC server around the service: address, certificate, limits, health and reflection."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from flb.config import ServerConfig
from flb.errors import ConfigError, NotAllowedHere, PortTaken
from flb.v1 import aggregator_service_pb2 as pb
from flb_aggregator.certificate import Certificate, Certificates
from flb_aggregator.service import Service

NAME = pb.DESCRIPTOR.services_by_name["AggregatorService"].full_name
STREAMS = 1_000
"""Calls at once on one connection."""
OPTIONS = (
    ("grpc.so_reuseport", 0),  # two aggregators on one port would share its nodes silently
    ("grpc.max_receive_message_length", 4 << 20),
    ("grpc.max_concurrent_streams", STREAMS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    # gRPC's own windows would be the larger part of this process's memory: docs/arithmetic.md, "Memory"
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 1 << 20),
    # a peer that is gone without a word is noticed
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
EVERYWHERE = ("0.0.0.0", "[::]", "")  # noqa: S104 - they are looked for, not bound
"""Addresses to listen on that nobody can call."""


def split(setting: str, address: str) -> tuple[str, int]:
    """Host and port. Raises ConfigError."""
    host, colon, port = address.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise ConfigError(f"{setting} is {address!r}", "give host and port, for example 127.0.0.1:50051")
    return host, int(port)


def endpoint_uri(config: ServerConfig) -> str:
    """What the registry shall name: HOST:PORT for TLS, http://HOST:PORT for plaintext on loopback.

    Without TLS, `advertise` may name a TLS proxy in front that shows a certificate of a public authority. Raises
    ConfigError for what is no address, NotAllowedHere for plaintext on an address that others can reach.
    """
    host, _ = split("server.listen", config.listen)
    if not config.tls and host not in LOOPBACK:
        raise NotAllowedHere(
            f"server.listen is {config.listen}, which other machines can reach, and server.tls is false",
            "set server.tls: true, or listen on 127.0.0.1",
        )
    address = config.advertise or config.listen
    host, _ = split("server.advertise" if config.advertise else "server.listen", address)
    if host in EVERYWHERE:
        raise ConfigError(f"no node can call {address}", "set server.advertise to the address that nodes shall use")
    return address if config.tls or host not in LOOPBACK else f"http://{address}"


def handlers(service: Service) -> dict[str, Any]:
    """The calls by name. Bulk messages pass as bytes: `flb.wire.frames` reads and writes them without copies."""
    single = grpc.unary_unary_rpc_method_handler
    return {
        "GetRun": single(service.GetRun, reader(pb.GetRunRequest), serialize),
        "OpenSession": single(service.OpenSession, reader(pb.OpenSessionRequest), serialize),
        "QueryUpload": single(service.QueryUpload, reader(pb.QueryUploadRequest), serialize),
        "GetRoundAudit": single(service.GetRoundAudit, reader(pb.GetRoundAuditRequest), serialize),
        "Relay": single(service.Relay, reader(pb.RelayRequest), serialize),
        "WatchRounds": grpc.unary_stream_rpc_method_handler(
            service.WatchRounds, reader(pb.WatchRoundsRequest), serialize
        ),
        "UploadUpdate": grpc.stream_unary_rpc_method_handler(service.UploadUpdate, None, serialize),
        "DownloadBlob": grpc.unary_stream_rpc_method_handler(service.DownloadBlob, reader(pb.DownloadBlobRequest)),
    }


def reader(kind: Any) -> Callable[[bytes], Any]:
    """Reads a request of one of the generated classes; None for bytes that are none.

    An error here would pass by the limits, and gRPC would print a traceback for it; `Service.guarded` refuses None.
    """

    def read(raw: bytes) -> Any:
        try:
            return kind.FromString(raw)
        except DecodeError:
            return None

    return read


def serialize(message: Any) -> bytes:
    """A message of the generated classes as bytes."""
    return bytes(message.SerializeToString())


def credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """TLS with whatever certificate is current when a connection is made; open connections keep theirs."""
    known = [certificates.current]

    def fresh() -> "grpc.ServerCertificateConfiguration | None":
        if certificates.current is known[0]:
            return None  # as at the handshake before
        known[0] = certificates.current
        return configuration(known[0])

    return grpc.dynamic_ssl_server_credentials(configuration(known[0]), fresh)


def configuration(certificate: Certificate) -> grpc.ServerCertificateConfiguration:
    """A certificate in gRPC's form."""
    return grpc.ssl_server_certificate_configuration([(certificate.key, certificate.pem)])


async def serve(service: Service, listen: str, certificates: Certificates | None) -> grpc.aio.Server:
    """Start serving: TLS with certificates, plaintext without. Raises PortTaken."""
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers(service)),))
    state = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    reflection.enable_server_reflection((NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        if certificates is None:
            bound = server.add_insecure_port(listen)
        else:
            bound = server.add_secure_port(listen, credentials(certificates))
    except RuntimeError as error:
        raise PortTaken(f"{listen} is taken", "stop what listens there, or change server.listen") from error
    if bound == 0:
        raise PortTaken(f"{listen} is taken", "stop what listens there, or change server.listen")
    await server.start()
    for name in ("", NAME):
        await state.set(name, health_pb2.HealthCheckResponse.SERVING)
    return server


async def stop(server: grpc.aio.Server, seconds: float = 1.0) -> None:
    """Let running calls end, then cut them."""
    await server.stop(seconds)
    await asyncio.sleep(0)
