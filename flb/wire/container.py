# SPDX-License-Identifier: Apache-2.0
"""safetensors files, written canonically: the same tensors and metadata always give the same bytes.

The library's writer orders metadata by a random hash, so it cannot make digests that others recompute; this writer
sorts names and metadata and packs the data in the order of names. Any safetensors reader reads the result. An update
or adapter of a run has exactly one legal header, so checking one is comparing bytes.
Format: https://github.com/huggingface/safetensors ("Format").
"""

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flb.errors import BadContainer
from flb.types import TensorSpec

ITEM_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
LENGTH_BYTES = 8
HEADER_LIMIT = 100_000_000
"""The format's own limit on the header, in bytes."""
SHOWN = 80
"""Characters of a foreign name or shape that an error quotes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file: type, shape and where its data lie, in bytes after the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed header; `data_start` is the offset of the data in the file."""

    entries: tuple[Entry, ...]
    metadata: Mapping[str, str]
    data_start: int


def pack(forms: Iterable[tuple[str, str, tuple[int, ...]]]) -> tuple[Entry, ...]:
    """Entries of a file from (name, type, shape) of each: in the byte order of names, data without gaps."""
    entries: list[Entry] = []
    for name, dtype, shape in sorted(forms, key=lambda form: form[0].encode()):
        start = entries[-1].end if entries else 0
        entries.append(Entry(name, dtype, shape, start, start + TensorSpec(name, shape).size * ITEM_SIZES[dtype]))
    return tuple(entries)


def header_of(entries: Sequence[Entry], metadata: Mapping[str, str]) -> bytes:
    """Length prefix and JSON of the one legal header for packed entries, padded with spaces to 8 bytes."""
    fields: dict[str, object] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    for entry in entries:
        offsets = [entry.start, entry.end]
        fields[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": offsets}
    text = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def encode_header(tensors: Sequence[TensorSpec], dtype: str, metadata: Mapping[str, str]) -> bytes:
    """The one legal header of a file with one entry of type `dtype` for each tensor."""
    return header_of(pack((tensor.name, dtype, tensor.shape) for tensor in tensors), metadata)


def adapter_header(tensors: Sequence[TensorSpec]) -> bytes:
    """The header of an adapter blob, with the metadata that readers of PEFT adapters expect."""
    return encode_header(tensors, "F32", {"format": "pt"})


def data_size(tensors: Sequence[TensorSpec], dtype: str) -> int:
    """Bytes of data after the header."""
    return sum(tensor.size for tensor in tensors) * ITEM_SIZES[dtype]


def header_length(prefix: bytes, limit: int) -> int:
    """Length of the JSON after the 8-byte `prefix`. Raises BadContainer where it is short or beyond `limit`."""
    if len(prefix) < LENGTH_BYTES:
        raise BadContainer("the file is shorter than a safetensors header", "send the file that was written")
    length = int(struct.unpack("<Q", prefix)[0])
    if length > limit:
        raise BadContainer(f"the safetensors header claims {length} bytes, {limit} are allowed", "send a plain file")
    return length


def decode_header(text: bytes) -> Header:
    """Parse the JSON of a header. Raises BadContainer for anything that is not a well-formed header."""
    try:
        fields = json.loads(text)
        metadata = fields.pop("__metadata__", {})
        entries = []
        for name, field in fields.items():
            start, end = field["data_offsets"]
            shape = tuple(field["shape"])
            dtype = field["dtype"]
            if not all(type(number) is int and number >= 0 for number in (start, end, *shape)):
                raise ValueError(name)
            if end - start != TensorSpec(name, shape).size * ITEM_SIZES[dtype]:
                raise ValueError(name)
            entries.append(Entry(name, dtype, shape, start, end))
        if not all(isinstance(part, str) for item in metadata.items() for part in item):
            raise ValueError("__metadata__")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadContainer("the safetensors header is malformed", "write the file with safetensors or FLB") from error
    return Header(tuple(entries), metadata, LENGTH_BYTES + len(text))


def first_difference(header: Header, entries: Sequence[Entry]) -> str:
    """In words, the first place where a header differs from the legal one with these entries."""
    found = {entry.name: entry for entry in header.entries}
    for legal in entries:
        entry = found.get(legal.name)
        if entry is None:
            return f"tensor {legal.name} is missing"
        if entry.shape != legal.shape:
            shape = str(list(entry.shape))[:SHOWN]
            return f"tensor {legal.name} has shape {shape}, the run spec says {list(legal.shape)}"
        if entry.dtype != legal.dtype:
            return f"tensor {legal.name} is {entry.dtype}, the run's codec is {legal.dtype}"
    extra = sorted(set(found) - {legal.name for legal in entries})
    if extra:
        # the peer chose this name: escaped and cut, since it goes into a log and a gRPC status
        name = extra[0][:SHOWN].encode("unicode_escape").decode()
        return f"tensor {name} is not part of this step"
    return "names and shapes are right, but the header is not in canonical order"
