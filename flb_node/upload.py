# SPDX-License-Identifier: Apache-2.0
"""The messages of one upload. Serialized here: `flb.wire.frames` saves the copies of generated code."""

import os
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from flb.v1 import aggregator_service_pb2 as pb
from flb.wire import chunks, frames

SERVICE = pb.DESCRIPTOR.services_by_name["AggregatorService"].full_name


def upload_call(channel: grpc.Channel) -> Any:
    """UploadUpdate over serialized messages."""
    return channel.stream_unary(f"/{SERVICE}/UploadUpdate", response_deserializer=pb.UploadUpdateResponse.FromString)


def parts(
    header: pb.UploadHeader,
    descriptor: int,
    offset: int,
    size: int,
    progress: Callable[[int, int], None],
    turn: Callable[[], None],
) -> Iterator[bytes]:
    """The serialized messages of one upload: header, then chunks from `offset` on, once `turn` returns.

    Chunks that are sent before would wait in the aggregator's memory, a window for each node.
    """
    yield pb.UploadUpdateRequest(header=header).SerializeToString()
    turn()
    sent = offset
    for data in chunks.send(lambda at, count: os.pread(descriptor, count, at), size, offset):
        yield frames.encode(frames.UPLOAD_DATA, data)
        sent += len(data)
        progress(sent, size)
