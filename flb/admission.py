# SPDX-License-Identifier: Apache-2.0
"""Who and what gets in: the checks of an update in a fixed order, cheap first, each with its own error.

`check_manifest` needs no byte of the update; `check_update` walks the spooled file in blocks. Nothing is stored
here, and nothing counts until both have passed.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from flb.aggregation.mean import weight_of
from flb.codec import CODINGS, Raw
from flb.delta import BLOCK, Estimate, Float32, NormCheck, check_bound, round_to_ring
from flb.errors import (
    AlreadyAdmitted,
    BadContainer,
    BadMessage,
    BadSignature,
    NoDataset,
    NotInCohort,
    TooLarge,
    UnknownRun,
    WrongBase,
    WrongRound,
)
from flb.identity import manifest_hash, recover
from flb.lora.mode import sent
from flb.lora.shape import at_rank
from flb.spec import RingSpec, RunSpec
from flb.types import ZERO_DIGEST, Admitted, Codec, Digest, Domain, Manifest, Member, Opening, Step, TensorSpec
from flb.wire import container

ReadInto = Callable[[int, memoryview], int]
"""Fill the buffer from an offset of the file; returns the number of bytes read."""


@dataclass(frozen=True, slots=True)
class Layout:
    """The one legal form of an update of a step. `parts` are the entries of each tensor in the codec's order,
    `entries` all of them in file order; `header_size` and `size` are bytes."""

    codec: Codec
    tensors: tuple[TensorSpec, ...]
    parts: tuple[tuple[container.Entry, ...], ...]
    entries: tuple[container.Entry, ...]
    header_size: int
    size: int


def update_metadata(salt: bytes, node: bytes, base: bytes) -> dict[str, str]:
    """Metadata of an update blob: the salt hides the content behind the digest, node and base bind it."""
    return {"salt": salt.hex(), "node": "0x" + node.hex(), "base": "0x" + base.hex()}


def layout_of(spec: RunSpec, step: Step, rank: int | None = None) -> Layout:
    """What an update of step `step` looks like that was trained at `rank`, None for the run's own; its size follows from
    the two, and grows with the rank."""
    at = spec.tensors if rank is None or rank == spec.lora.r else at_rank(spec.tensors, rank)
    tensors = sent(spec.lora_mode, at, step)
    return coded_layout(spec.wire_codec, tensors, update_metadata(bytes(32), bytes(20), bytes(32)))


def sizes_of(spec: RunSpec, step: Step) -> dict[int, int]:
    """Bytes of a legal update of step `step` to the rank that gives them, for each rank that nodes may train at."""
    return {layout_of(spec, step, rank).size: rank for rank in spec.lora.node_ranks}


def rank_of_size(spec: RunSpec, step: Step, size: int) -> int:
    """The rank at which an update of `size` bytes was trained. Raises BadContainer where none gives it."""
    sizes = sizes_of(spec, step)
    if size not in sizes:
        expected = " or ".join(map(str, sizes))
        raise BadContainer(
            f"the update has {size} bytes, the run spec gives {expected}", "send all tensors, at a rank of the run"
        )
    return sizes[size]


def coded_layout(codec: Codec, tensors: tuple[TensorSpec, ...], metadata: Mapping[str, str]) -> Layout:
    """The one legal form of tensors in a codec; of the metadata only the length counts."""
    coding = CODINGS[codec]
    forms = [[(t.name + part.suffix, part.dtype, part.shape(t)) for part in coding.parts] for t in tensors]
    entries = container.pack(chain.from_iterable(forms))
    by_name = {entry.name: entry for entry in entries}
    parts = tuple(tuple(by_name[name] for name, _, _ in form) for form in forms)
    header = len(container.header_of(entries, metadata))
    return Layout(codec, tensors, parts, entries, header, header + entries[-1].end)


def in_file_order(layout: Layout, coded: Callable[[TensorSpec], Sequence[Raw]]) -> Iterator[Raw]:
    """The bytes of every entry in file order; `coded` is called once for each tensor, in order, for its parts."""
    held: dict[str, Raw] = {}
    numbers = {tensor.name: number for number, tensor in enumerate(layout.tensors)}
    for entry in layout.entries:
        if entry.name in numbers:  # a tensor's first entry has its name, and comes before its others
            number = numbers[entry.name]
            parts = zip(layout.parts[number], coded(layout.tensors[number]), strict=True)
            held |= {part.name: raw for part, raw in parts}
        yield held.pop(entry.name)


class BlockReader:
    """Reads blocks of at most `size` elements of an update's tensors as float32, into buffers that it reuses; one for
    each thread."""

    __slots__ = ("_coding", "_layout", "_out", "_raw")

    def __init__(self, layout: Layout, size: int = BLOCK) -> None:
        self._layout, self._coding = layout, CODINGS[layout.codec]
        self._raw = [memoryview(bytearray(part.items(size) * part.item_size)) for part in self._coding.parts]
        self._out = np.empty(size, dtype=np.float32)

    def values(self, read: ReadInto, tensor: int, start: int, count: int) -> Float32:
        """Elements `start` (a multiple of `BLOCK`) to `start + count` of tensor number `tensor`: the caller's scratch
        until the next call. Raises BadContainer where the file ends early or holds what no encoder writes."""
        raw = []
        for part, entry, buffer in zip(self._coding.parts, self._layout.parts[tensor], self._raw, strict=True):
            view = buffer[: part.items(count) * part.item_size]
            fill(read, self._layout.header_size + entry.start + part.items(start) * part.item_size, view)
            raw.append(view)
        return self._coding.decode(raw, self._out[:count])


def check_manifest(
    manifest: Manifest,
    signature: bytes,
    *,
    spec: RunSpec,
    spec_digest: Digest,
    domain: Domain,
    opening: Opening | None,
    admitted: Admitted | None,
) -> Member:
    """Everything that can be said before the first byte. Returns the cohort's member; raises a PeerFault.

    `opening` is the round whose intake is open, `admitted` what this node already has in it.
    """
    if manifest.spec != spec_digest:
        raise UnknownRun("the manifest names another run spec", "join the run whose contract this aggregator serves")
    if opening is None or (manifest.round, manifest.seed) != (opening.round, opening.seed):
        now = "no round is open" if opening is None else f"round {opening.round} is open"
        raise WrongRound(f"the manifest is for round {manifest.round}, {now}", "sign the update for the open round")
    member = next((m for m in opening.cohort if m.node == manifest.node), None)
    if member is None:
        raise NotInCohort(
            f"node 0x{manifest.node.hex()} is not in the cohort of round {opening.round}",
            "join before the round opens, or wait until the node is drawn",
        )
    if recover(domain, manifest_hash(manifest), signature) != member.key:
        raise BadSignature("the manifest is not signed by the key in the round's roster", "sign with the node's key")
    sizes = sizes_of(spec, opening.step)
    if manifest.size > max(sizes):
        expected = " or ".join(map(str, sizes))
        raise TooLarge(
            f"the update has {manifest.size} bytes, the run spec gives {expected}", "send this run's adapter"
        )
    if admitted is not None and admitted.manifest.digest != manifest.digest:
        raise AlreadyAdmitted(
            f"another update of this node was admitted in round {opening.round}", "the first one counts; keep it"
        )
    if manifest.size not in sizes:
        rank_of_size(spec, opening.step, manifest.size)
    if manifest.base != opening.base:
        raise WrongBase("the update starts from another adapter than this round's", "train from the round's adapter")
    if manifest.codec != spec.wire_codec or manifest.tensor_root != ZERO_DIGEST:
        raise BadMessage("codec or tensor root of the manifest differ from the run spec", "use the run's own codec")
    if member.records == 0 or manifest.dataset_root != member.dataset_root:
        raise NoDataset("the manifest names no dataset that counts in this round", "register the dataset, then wait")
    if manifest.examples < 1:
        raise BadMessage("the manifest claims no examples", "train on at least one example")
    return member


def weight(spec: RunSpec, manifest: Manifest, member: Member) -> int:
    """The weight of an admitted update."""
    return weight_of(manifest.examples, member.records, spec.ring.weight_cap)


def check_update(read: ReadInto, manifest: Manifest, spec: RunSpec, step: Step) -> float:
    """Check the bytes of a complete update whose digest is right; returns its norm for reports.

    In order: header (names, shapes, types, metadata), values finite and bounded, norm. Raises a PeerFault.
    """
    rank = sizes_of(spec, step).get(manifest.size, max(spec.lora.node_ranks))  # no rank's size: the header says why
    layout = layout_of(spec, step, rank)
    check_header(read, manifest, layout)
    estimate = surely_admissible(read, layout, spec.ring)
    return estimate if estimate is not None else check_values(read, layout, spec.ring)


def surely_admissible(read: ReadInto, layout: Layout, ring: RingSpec) -> float | None:
    """In a quarter of the time of `check_values`: the norm, about, of values that pass it for sure; None for others."""
    estimate = Estimate()
    for _, values in blocks_of(read, layout, Estimate.SIZE):
        if not estimate.add(values, ring.value_bound):
            return None
    return estimate.norm if estimate.within(ring.norm_bound, ring.fraction_bits) else None


def check_values(read: ReadInto, layout: Layout, ring: RingSpec) -> float:
    """Exactly: values finite and bounded, then the norm, which is returned. Raises a PeerFault."""
    norm = NormCheck(ring.norm_bound, ring.fraction_bits)
    for tensor, values in blocks_of(read, layout, BLOCK):
        check_bound(values, ring.value_bound, tensor.name)
        round_to_ring(values, ring.fraction_bits, out=values)
        norm.add(values)
    return norm.norm


def blocks_of(read: ReadInto, layout: Layout, size: int) -> Iterator[tuple[TensorSpec, Float32]]:
    """Every tensor of an update in blocks of at most `size` elements; the values are scratch until the next block."""
    reader = BlockReader(layout, size)
    for number, tensor in enumerate(layout.tensors):
        for start in range(0, tensor.size, size):
            yield tensor, reader.values(read, number, start, min(size, tensor.size - start))


def check_header(read: ReadInto, manifest: Manifest, layout: Layout) -> None:
    """Compare the header with the one legal header for this node and base."""
    prefix = memoryview(bytearray(container.LENGTH_BYTES))
    fill(read, 0, prefix)
    length = container.header_length(bytes(prefix), layout.header_size)
    text = memoryview(bytearray(length))
    fill(read, container.LENGTH_BYTES, text)
    header = container.decode_header(bytes(text))
    salt = header.metadata.get("salt", "")
    try:
        metadata = update_metadata(bytes.fromhex(salt), manifest.node, manifest.base)
    except ValueError:
        metadata = {}
    if len(salt) != 64 or dict(header.metadata) != metadata:
        raise WrongBase("salt, node or base in the update differ from its manifest", "seal the update again")
    if bytes(prefix) + bytes(text) != container.header_of(layout.entries, metadata):
        raise BadContainer(
            f"the update is not of this step's form: {container.first_difference(header, layout.entries)}",
            "load the adapter that the run spec describes",
        )


def fill(read: ReadInto, offset: int, part: memoryview) -> None:
    """Read exactly `part`. Raises BadContainer where the file ends early."""
    if read(offset, part) != len(part):
        raise BadContainer("the update is shorter than its header says", "send the whole file")
