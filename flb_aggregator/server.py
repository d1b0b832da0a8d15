# SPDX-License-Identifier: Apache-2.0
"""The gRPC server around the service: address, limits, health and reflection."""

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from flb.errors import ConfigError, NotAllowedHere, PortTaken
from flb.v1 import aggregator_service_pb2 as pb
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


def check_address(listen: str) -> None:
    """Raise ConfigError for no address, NotAllowedHere for one that others can reach."""
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"server.listen is {listen!r}", "give host and port, for example 127.0.0.1:50051")
    if host not in LOOPBACK:
        raise NotAllowedHere(
            f"server.listen is {listen}, which other machines can reach, and this version has no TLS",
            "listen on 127.0.0.1",
        )


def handlers(service: Service) -> dict[str, Any]:
    """The calls by name. Bulk messages pass as bytes: `flb.wire.frames` reads and writes them without copies."""
    single = grpc.unary_unary_rpc_method_handler
    return {
        "GetRun": single(service.GetRun, pb.GetRunRequest.FromString, serialize),
        "OpenSession": single(service.OpenSession, pb.OpenSessionRequest.FromString, serialize),
        "QueryUpload": single(service.QueryUpload, pb.QueryUploadRequest.FromString, serialize),
        "GetRoundAudit": single(service.GetRoundAudit, pb.GetRoundAuditRequest.FromString, serialize),
        "WatchRounds": grpc.unary_stream_rpc_method_handler(
            service.WatchRounds, pb.WatchRoundsRequest.FromString, serialize
        ),
        "UploadUpdate": grpc.stream_unary_rpc_method_handler(service.UploadUpdate, None, serialize),
        "DownloadBlob": grpc.unary_stream_rpc_method_handler(service.DownloadBlob, pb.DownloadBlobRequest.FromString),
    }


def serialize(message: Any) -> bytes:
    """A message of the generated classes as bytes."""
    return bytes(message.SerializeToString())


async def serve(service: Service, listen: str) -> grpc.aio.Server:
    """Start serving. Raises PortTaken."""
    check_address(listen)
    server = grpc.aio.server(options=OPTIONS)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers(service)),))
    state = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    reflection.enable_server_reflection((NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    try:
        bound = server.add_insecure_port(listen)
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
