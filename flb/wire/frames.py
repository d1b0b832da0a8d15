# SPDX-License-Identifier: Apache-2.0
"""Chunks in and out of protobuf messages without the copies of the generated classes.

A bulk message is one bytes field: tag, length, data (https://protobuf.dev/programming-guides/encoding/). Reading it is
a slice of what gRPC delivered; writing it is one concatenation, where the generated classes copy twice each way. The
bytes are those of the generated classes, so neither side can tell; whatever is not exactly one bytes field is left to
them.
"""

UPLOAD_DATA = 0x12
"""Tag of `UploadUpdateRequest.data`: field 2, length-delimited."""
DOWNLOAD_DATA = 0x0A
"""Tag of `DownloadBlobResponse.data`: field 1, length-delimited."""
LONGEST_VARINT = 5
"""Bytes of a varint below 2^35; a chunk is shorter."""


def encode(tag: int, data: bytes) -> bytes:
    """The message whose only field is `tag`, with `data` in it."""
    length, prefix = len(data), bytearray((tag,))
    while length > 0x7F:
        prefix.append(length & 0x7F | 0x80)
        length >>= 7
    prefix.append(length)
    return b"".join((prefix, data))


def decode(tag: int, message: bytes) -> memoryview | None:
    """The data of a message whose only field is `tag`, as a view; None for any other message."""
    if not message or message[0] != tag:
        return None
    length = shift = 0
    for at in range(1, min(len(message), 1 + LONGEST_VARINT)):
        byte = message[at]
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            start = at + 1
            return memoryview(message)[start:] if len(message) - start == length else None
    return None
