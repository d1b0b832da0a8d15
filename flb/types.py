# SPDX-License-Identifier: Apache-2.0
"""The words of FLB as frozen values; nothing here computes or does I/O.

Inside the program addresses are 20 bytes, digests 32 bytes, signatures 65 bytes; hex lives at the edges (config,
JSON, terminal). Rounds count openings, steps count sealed rounds: see docs/architecture.md, "Words".
"""

import enum
from dataclasses import dataclass
from typing import NewType

Address = NewType("Address", bytes)
"""20 bytes: a node, an aggregator, a contract."""

Digest = NewType("Digest", bytes)
"""32 bytes: SHA-256 of a blob, or keccak-256 where the chain computes it."""

Round = NewType("Round", int)
"""An opening, counted from 1."""

Step = NewType("Step", int)
"""Number of sealed rounds before, plus one. Keys training, codec, turn of `alternate` and sealed update."""

Seconds = NewType("Seconds", int)
"""Unix time or a length of time, in whole seconds, as the chain has it."""

ZERO_DIGEST = Digest(bytes(32))
ZERO_ADDRESS = Address(bytes(20))


class Codec(enum.IntEnum):
    """How the values of an update are written; the numbers are signed and never reused."""

    F32 = 1
    BF16 = 2
    MXINT8 = 3
    MXINT4 = 4


class LoraMode(enum.StrEnum):
    """Which LoRA factors a round trains, sends and averages."""

    FACTORS = "factors"
    ALTERNATE = "alternate"
    FREEZE_A = "freeze_a"
    PRODUCT = "product"
    STACK = "stack"


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name and shape of one adapter tensor; the file order of a blob is the byte order of names."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        size = 1
        for extent in self.shape:
            size *= extent
        return size


@dataclass(frozen=True, slots=True)
class Domain:
    """EIP-712 domain of a run: chain id and contract address."""

    chain_id: int
    run: Address


@dataclass(frozen=True, slots=True)
class Manifest:
    """The header of an update, signed by the node's key. `size` in bytes, `examples` as the node claims them."""

    node: Address
    round: Round
    seed: Digest
    spec: Digest
    base: Digest
    digest: Digest
    tensor_root: Digest
    dataset_root: Digest
    size: int
    examples: int
    codec: Codec


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the aggregator signs: it holds and admitted exactly this update. `manifest` is its EIP-712 struct hash."""

    node: Address
    round: Round
    seed: Digest
    spec: Digest
    digest: Digest
    tensor_root: Digest
    dataset_root: Digest
    weight: int
    manifest: Digest


@dataclass(frozen=True, slots=True)
class Session:
    """What a member signs to read: the challenge's nonce, the certificate it sees, and when the challenge ends."""

    node: Address
    nonce: Digest
    cert_digest: Digest
    expires: Seconds


@dataclass(frozen=True, slots=True)
class Member:
    """A node of the roster. `records` is what its newest dataset declares, 0 before any."""

    node: Address
    key: Address
    payee: Address
    dataset_root: Digest = ZERO_DIGEST
    records: int = 0


@dataclass(frozen=True, slots=True)
class Block:
    """A place in the chain. Both fields are kept, so that a reorg is seen."""

    number: int
    hash: Digest


@dataclass(frozen=True, slots=True)
class Opening:
    """An open round as the chain announced it: `base` is the adapter that its updates start from."""

    round: Round
    step: Step
    seed: Digest
    deadline: Seconds
    base: Digest
    previous: Digest
    """Record hash of the round before, zero for round 1."""
    block: Block
    cohort: tuple[Member, ...]
    """In order of node address."""
    roster: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Admitted:
    """An update that passed every check: what its receipt says, and the signed manifest behind it."""

    manifest: Manifest
    signature: bytes
    weight: int
    receipt: bytes
    """The aggregator's signature of the receipt."""

    @property
    def node(self) -> Address:
        """Whose update it is."""
        return self.manifest.node
