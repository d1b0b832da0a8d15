# SPDX-License-Identifier: Apache-2.0
"""A federation on paper: a small spec, members, updates and a registry in memory, on the product's own ports."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flb import identity
from flb import spec as specs
from flb.admission import in_file_order, layout_of, update_metadata
from flb.codec import CODINGS, Raw, dither
from flb.memory_registry import AGGREGATOR_KEY as AGGREGATOR_KEY
from flb.memory_registry import MemoryRegistry as MemoryRegistry
from flb.merkle import keccak256
from flb.records import Roll
from flb.rounds import SubmitRoll
from flb.types import (
    ZERO_DIGEST,
    Address,
    Block,
    Digest,
    Domain,
    Manifest,
    Member,
    Opening,
    Round,
    Seconds,
    Step,
    TensorSpec,
)
from flb.wire import container

DOMAIN = Domain(31337, Address(b"\x0f" * 20))
PATH = "base_model.model.model.layers.0.mlp.down_proj"
TENSORS = (TensorSpec(f"{PATH}.lora_A.weight", (2, 40_000)), TensorSpec(f"{PATH}.lora_B.weight", (8, 2)))


def key_of(index: int) -> bytes:
    """Private key of node `index`."""
    return (index + 1).to_bytes(32, "big")


def small_spec(mode: str = "factors", codec: str = "mxint8", down: str = "f32", **rounds: int | float) -> specs.RunSpec:
    """A spec of two tensors; A spans three blocks."""
    settings = {"steps": 3, "round_seconds": 100, "grace_seconds": 50, "min_nodes": 2, "fraction": 1.0}
    return specs.RunSpec(
        version=specs.VERSION,
        base=specs.BaseSpec("tiny", "ab" * 32),
        lora=specs.LoraSpec(mode, 2, 4, 0.0, ("down_proj",)),
        tensors=TENSORS,
        adapter="cd" * 32,
        training=specs.TrainingSpec(2, 2, 0.01, 32, 0),
        ring=specs.RingSpec(32, 4, 65536, 16),
        rounds=specs.RoundSpec(**{**settings, "confirmations": 0, "max_cohort": 4096, **rounds}),  # type: ignore[arg-type]
        aggregation=specs.AggregationSpec(),
        server_optimizer=specs.ServerOptimizerSpec("sgd", 1.0),
        scoring=specs.ScoringSpec("capped_examples", "1000"),
        codec=codec,
        down=down,
        audit="public",
        salt="00" * 32,
    )


def members(count: int, records: int = 100) -> tuple[Member, ...]:
    """Members in order of address, each with a dataset."""
    nodes = [identity.address_of(key_of(index)) for index in range(count)]
    return tuple(sorted((Member(n, n, n, Digest(keccak256(n)), records) for n in nodes), key=lambda m: m.node))


def key_for(member: Member) -> bytes:
    """Private key of a member made by `members`."""
    return next(key_of(index) for index in range(64) if identity.address_of(key_of(index)) == member.key)


def opening(count: int = 3, number: int = 1, step: int = 1, base: Digest = ZERO_DIGEST) -> Opening:
    """An opening whose cohort is everybody."""
    all_members = members(count)
    seed = Digest(keccak256(bytes([number])))
    block = Block(number, Digest(keccak256(b"block" + bytes([number]))))
    return Opening(Round(number), Step(step), seed, Seconds(1000), base, ZERO_DIGEST, block, all_members, all_members)


def update_bytes(spec: specs.RunSpec, step: Step, member: Member, base: Digest, scale: float = 1e-3) -> bytes:
    """A legal update of random values."""
    layout = layout_of(spec, step)
    random = np.random.default_rng(int.from_bytes(member.node[:4], "big"))
    salt = hashlib.sha256(member.node).digest()
    blob = container.header_of(layout.entries, update_metadata(salt, member.node, base))
    draw = dither.stream(dither.key_of(DOMAIN.run, step, member.node))

    def coded(tensor: TensorSpec) -> Sequence[Raw]:
        values = (random.standard_normal(tensor.size) * scale).astype(np.float32)
        return CODINGS[spec.wire_codec].encode(values, draw)

    return blob + b"".join(in_file_order(layout, coded))


def manifest_for(spec: specs.RunSpec, opened: Opening, member: Member, blob: bytes, examples: int = 100) -> Manifest:
    """The manifest of a blob."""
    return Manifest(
        node=member.node,
        round=opened.round,
        seed=opened.seed,
        spec=specs.digest_of(spec.encode()),
        base=opened.base,
        digest=Digest(hashlib.sha256(blob).digest()),
        tensor_root=ZERO_DIGEST,
        dataset_root=member.dataset_root,
        size=len(blob),
        examples=examples,
        codec=spec.wire_codec,
    )


def signed(manifest: Manifest, key: bytes) -> bytes:
    """The node's signature."""
    return identity.sign(key, DOMAIN, identity.manifest_hash(manifest))


def reader(blob: bytes):  # type: ignore[no-untyped-def]
    """A `ReadInto` over bytes."""

    def read(offset: int, part: memoryview) -> int:
        data = blob[offset : offset + len(part)]
        part[: len(data)] = data
        return len(data)

    return read


def write_blob(folder: Path, blob: bytes) -> Path:
    """A file named by its digest."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(blob).hexdigest()
    path.write_bytes(blob)
    return path


def rolls_in(effects: tuple[object, ...]) -> list[Roll]:
    """The rolls that a machine wants sent."""
    return [effect.roll for effect in effects if isinstance(effect, SubmitRoll)]


def random_digest() -> Digest:
    """32 random bytes."""
    return Digest(os.urandom(32))
