# SPDX-License-Identifier: Apache-2.0
"""Hand-made frames are byte for byte those of the generated classes, and nothing else passes as one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flb.v1 import aggregator_service_pb2 as pb
from flb.wire import frames

pytestmark = pytest.mark.unit


@given(st.binary(min_size=1, max_size=300) | st.integers(1, 1 << 20).map(bytes))
def test_encode__any_chunk__equals_the_generated_classes(data: bytes) -> None:
    assert frames.encode(frames.UPLOAD_DATA, data) == pb.UploadUpdateRequest(data=data).SerializeToString()
    assert frames.encode(frames.DOWNLOAD_DATA, data) == pb.DownloadBlobResponse(data=data).SerializeToString()


@given(st.binary(max_size=300) | st.integers(1, 1 << 20).map(bytes))
def test_decode__own_frame__is_a_view_of_the_data(data: bytes) -> None:
    message = frames.encode(frames.UPLOAD_DATA, data)
    view = frames.decode(frames.UPLOAD_DATA, message)
    assert view is not None and view.obj is message, "no copy is made"
    assert view == data


@given(st.binary(max_size=64))
def test_decode__any_bytes__agrees_with_the_generated_classes_or_abstains(message: bytes) -> None:
    view = frames.decode(frames.UPLOAD_DATA, message)
    if view is not None:
        assert pb.UploadUpdateRequest.FromString(message).data == view


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x12",
        b"\x12\x80",
        b"\x12\x02a",
        b"\x12\x01ab",
        b"\x12" + b"\x80" * 9 + b"\x01",
        pb.UploadUpdateRequest(header=pb.UploadHeader(offset=1)).SerializeToString(),
    ],
    ids=["empty", "tag alone", "open varint", "short", "long", "overlong varint", "header"],
)
def test_decode__no_single_chunk__is_left_to_protobuf(message: bytes) -> None:
    assert frames.decode(frames.UPLOAD_DATA, message) is None


def test_decode__first_download_message_with_size__is_left_to_protobuf() -> None:
    assert frames.decode(frames.DOWNLOAD_DATA, pb.DownloadBlobResponse(data=b"a", size=1).SerializeToString()) is None


def test_tags__are_those_of_the_schema() -> None:
    for message, tag in ((pb.UploadUpdateRequest, frames.UPLOAD_DATA), (pb.DownloadBlobResponse, frames.DOWNLOAD_DATA)):
        assert message.DESCRIPTOR.fields_by_name["data"].number << 3 | 2 == tag
