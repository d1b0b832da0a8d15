# SPDX-License-Identifier: Apache-2.0
"""The node's path, top to bottom: data → train → delta → clip → noise → codec → seal. The uplink streams what this returns.

Nothing leaves the device before it is sealed: written to disk under the digest of its bytes. A sealed update is never
trained again.
"""

import hashlib
import hmac
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flb.adapter_blob import form_of
from flb.admission import Layout, in_file_order, layout_of, update_metadata
from flb.codec import CODINGS, Raw, dither
from flb.codec.dither import Draw
from flb.delta import BLOCK, Float32, check_bound, difference
from flb.errors import AggregatorUnavailable, ConfigError, CorruptStore, Refused
from flb.lora.parts import start_of
from flb.privacy.release import Release
from flb.spec import LoraSpec, RunSpec
from flb.store import BlobStore, write_atomic
from flb.types import Address, Digest, Step, TensorSpec
from flb.wire import container
from flb_node.local_privacy import ON_DEVICE, LocalPrivacy

Tensors = Mapping[str, Float32]
Train = Callable[[Tensors, frozenset[str], int, Step], Tensors]
"""(adapter in its parts, names to train, seed, step) -> the trained part after local training. The parts are
`flb.lora.parts`: what is trained, and what stays frozen beside it under names of its own."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """An update on this node's disk, ready for any round of its step."""

    step: Step
    base: Digest
    digest: Digest
    size: int
    path: Path
    codec_error: float
    """Norm of (update - decoded) over norm of the update; 0 under local and central privacy, where it stays untold."""


def seal_update(
    spec: RunSpec,
    step: Step,
    base: Digest,
    *,
    run: Address,
    node: Address,
    secret: bytes,
    blobs: BlobStore,
    folder: Path,
    train: Train,
    confirm: Callable[[], None] = lambda: None,
    rank: int | None = None,
    privacy: LocalPrivacy | None = None,
) -> Sealed:
    """Train one step from adapter `base` (in `blobs`) and seal the update into `folder`, or find it sealed.

    `confirm` is called between the two: it returns once the step is certain enough to be sealed, or raises. `rank` is
    what this node trains at, None for the run's own; the update is of the trained part alone. Raises ConfigError for a
    rank that the run does not allow. `privacy` holds keys and ledger of a run with local privacy; without it such a run is
    Refused, and so is a step beyond its budget.
    """
    guard = guard_of(spec, privacy)
    private = run if guard is not None else None
    if guard is not None and _note(folder, step, base, private).exists():
        guard.forget(step, base)  # a life before this one sealed, and may have sent: its noise is used up
    sealed = find_sealed(folder, step, base, blobs, private)
    if sealed is not None:
        return sealed
    if guard is not None:
        guard.refuse_beyond_budget(spec, step, base)
    layout = layout_of(spec, step, rank := node_rank(spec.lora, rank))
    before = start_of(spec.lora, spec.training.seed, step, rank, load_adapter(spec, blobs, base))
    examples = spec.privacy.mechanism == "example"
    if guard is not None and examples:
        guard.begin(spec, step, base)
    after = train(before, frozenset(tensor.name for tensor in layout.tensors), training_seed(spec, step, node), step)
    if guard is not None and guard.take() is not None:
        raise Refused("the run has privacy of examples, and this trainer has none", "take part with flb-node")
    confirm()
    release = None
    if guard is not None and not examples:
        release = Release(
            lambda: (difference(after[tensor.name], before[tensor.name]) for tensor in layout.tensors),
            spec.privacy, spec.ring, guard.key(spec, step, base),
        )  # fmt: skip
        if release.dropped:
            guard.log(f"the update is released as noise alone, which only this line says: {release.dropped}")
    loss = CodecLoss(spec)
    with blobs.writer() as out:
        metadata = update_metadata(salt_of(secret, step, base), node, base)
        out.write(container.header_of(layout.entries, metadata))
        draw = dither.stream(dither.key_of(run, step, node))
        for part in encoded(spec, layout, before, after, draw, loss, release):
            out.write(part)
        digest = out.commit()
    lost = 0.0 if guard is not None or spec.privacy.central else loss.ratio
    note = {"step": step, "base": base.hex(), "digest": digest.hex(), "size": layout.size, "codec_error": lost}
    write_atomic(_note(folder, step, base, private), json.dumps(note).encode())
    if guard is not None:
        guard.forget(step, base)
    return Sealed(step, base, digest, layout.size, blobs.path(digest), lost)


def guard_of(spec: RunSpec, privacy: LocalPrivacy | None) -> LocalPrivacy | None:
    """What guards the updates of this run: nothing, or this node's keys and ledger. Raises Refused."""
    if spec.privacy.mechanism not in ON_DEVICE:
        return None
    if privacy is None:
        raise Refused(
            f"the run has {spec.privacy.mechanism} privacy, and this program keeps no ledger for it",
            "take part with flb-node",
        )
    return privacy


def encoded(
    spec: RunSpec, layout: Layout, before: Tensors, after: Tensors, draw: Draw, loss: "CodecLoss",
    release: Release | None = None,
) -> Iterator[Raw]:  # fmt: skip
    """The bytes of every entry in file order, clipped and noised by `release`; what the codec loses is added to `loss`."""
    coding = CODINGS[spec.wire_codec]

    def coded(tensor: TensorSpec) -> Sequence[Raw]:
        update = difference(after[tensor.name], before[tensor.name]).reshape(-1)
        if release is not None:
            update = release.noised(update)
        else:
            check_bound(update, spec.ring.value_bound, tensor.name)
        parts = coding.encode(update, draw)
        loss.add(update, parts)
        return parts

    return in_file_order(layout, coded)


class CodecLoss:
    """What a codec loses over a whole update: norm of (update - decoded) over norm of the update, in float64.

    For the node's report; nothing is decided on it, so the order of additions does not matter.
    """

    def __init__(self, spec: RunSpec) -> None:
        self._coding = CODINGS[spec.wire_codec]
        self._decoded = np.empty(BLOCK, dtype=np.float32)
        self._lost = self._whole = 0.0

    def add(self, update: Float32, parts: Sequence[Raw]) -> None:
        """Take one tensor, flat, and the bytes of its parts."""
        for start in range(0, update.size, BLOCK):
            exact = update[start : start + BLOCK].astype(np.float64)
            raw = [
                memoryview(data)[item.items(start) * item.item_size :][: item.items(exact.size) * item.item_size]
                for item, data in zip(self._coding.parts, parts, strict=True)
            ]
            lost = exact - self._coding.decode(raw, self._decoded[: exact.size])
            self._lost += float(np.dot(lost, lost))
            self._whole += float(np.dot(exact, exact))

    @property
    def ratio(self) -> float:
        """0 for an update of zeros."""
        return math.sqrt(self._lost) / math.sqrt(self._whole) if self._whole else 0.0


def find_sealed(
    folder: Path, step: Step, base: Digest, blobs: BlobStore, private: Address | None = None
) -> Sealed | None:
    """What an earlier life of this node sealed for this step and base; in the run `private`, if it is one with noise.

    Runs that share a work folder may share adapter 0: an update without noise, or with another run's, is not for this one.
    """
    path = _note(folder, step, base, private)
    try:
        note = json.loads(path.read_bytes())
        digest, lost = Digest(bytes.fromhex(note["digest"])), float(note["codec_error"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptStore(f"{path} is damaged", "delete it; the step is trained again") from error
    return Sealed(step, base, digest, note["size"], blobs.path(digest), lost) if blobs.has(digest) else None


def _note(folder: Path, step: Step, base: Digest, private: Address | None) -> Path:
    run = f"-{private.hex()}" if private is not None else ""
    return folder / f"step-{step:04d}-{base.hex()[:16]}{run}.json"


def load_adapter(spec: RunSpec, blobs: BlobStore, digest: Digest) -> dict[str, Float32]:
    """An adapter blob as named arrays, of whatever rank it has. Raises AggregatorUnavailable if it is absent or, deleting it,
    not what it was; BadContainer if it is no adapter of the run.

    Downloads are not flushed: after a power cut a file may stand there with other bytes than arrived.
    """
    path = blobs.path(digest)
    try:
        raw = np.fromfile(path, dtype=np.uint8)
    except FileNotFoundError as error:
        raise AggregatorUnavailable(f"adapter {digest.hex()} is not on this disk", "it is fetched again") from error
    if hashlib.sha256(raw.data).digest() != digest:
        path.unlink()
        raise AggregatorUnavailable(f"adapter {digest.hex()} is damaged on this disk", "it is fetched again")
    with path.open("rb") as file:
        form = form_of(spec, file.read)
    values = raw[len(form.header) :].view("<f4")
    tensors, start = {}, 0
    for tensor in form.tensors:
        tensors[tensor.name] = values[start : start + tensor.size].reshape(tensor.shape)
        start += tensor.size
    return tensors


def node_rank(lora: LoraSpec, wanted: int | None) -> int:
    """The rank that this node trains at: `client.rank`, or the run's own. Raises ConfigError unless the run allows it."""
    rank = lora.r if wanted is None else wanted
    if rank not in lora.node_ranks:
        what = f"client.rank is {wanted}" if wanted is not None else f"client.rank is not set, lora.r is {rank}"
        known = " or ".join(map(str, lora.node_ranks))
        raise ConfigError(f"{what}, and nodes of this run train at rank {known}", f"set client.rank to {known}")
    return rank


def training_seed(spec: RunSpec, step: Step, node: Address) -> int:
    """Seed of data order and dropout: from the spec's seed, the step and the node, never from the round's seed."""
    fields = spec.training.seed.to_bytes(8, "big") + step.to_bytes(4, "big") + node
    return int.from_bytes(hashlib.sha256(b"flb training" + fields).digest()[:4], "big")


def salt_of(secret: bytes, step: Step, base: Digest) -> bytes:
    """The update's salt: from the node's own secret, so that a crash before the seal gives the same bytes again."""
    return hmac.new(secret, b"flb update" + step.to_bytes(4, "big") + base, hashlib.sha256).digest()
