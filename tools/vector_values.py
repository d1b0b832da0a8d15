# SPDX-License-Identifier: Apache-2.0
"""Cases of proto/vectors that hold values: codecs and whole updates. `entries_of` and `decoded` alone know the codecs."""

import hashlib
from typing import Any

import numpy as np

from flb import identity
from flb import spec as specs
from flb.admission import layout_of, update_metadata
from flb.codec import CODINGS, dither
from flb.codec.dither import Draw
from flb.merkle import keccak256
from flb.types import Address, Codec, Digest, Step, TensorSpec
from flb.wire import container

PATH = "base_model.model.model.layers.0.mlp.down_proj"
COW = bytes(keccak256(b"cow"))
"""The key of EIP-712's own example."""
VALUES = np.array(
    [0.0, -0.0, 1.0, -1.0, 0.1, -0.3, 3.9999998, 1e-45, 1.00390625, 1.01171875, -2.5e-5, 0.33333334]
    + [(index * 37 % 201 - 100) / 4096 for index in range(36)],
    dtype=np.float32,
)
"""Both zeros, a subnormal, ties of bf16 to both sides, and more than one block of 32."""

Case = dict[str, Any]


def text(data: bytes) -> str:
    """Hex with 0x."""
    return "0x" + bytes(data).hex()


def digest(word: str) -> Digest:
    """A digest that a word stands for."""
    return Digest(hashlib.sha256(word.encode()).digest())


def small_spec(mode: str, codec: Codec) -> specs.RunSpec:
    """A run spec of two small tensors."""
    return specs.RunSpec(
        version=specs.VERSION,
        base=specs.BaseSpec("tiny", "ab" * 32),
        lora=specs.LoraSpec(mode, 2, 4, 0.0, ("down_proj",)),
        tensors=(TensorSpec(f"{PATH}.lora_A.weight", (2, 19)), TensorSpec(f"{PATH}.lora_B.weight", (5, 2))),
        adapter=digest("adapter").hex(),
        training=specs.TrainingSpec(2, 2, 0.0002, 32, 0),
        ring=specs.RingSpec(32, 4, 65536, 16),
        rounds=specs.RoundSpec(3, 100, 50, 2, 0.07, 0, 4096),
        aggregation=specs.AggregationSpec(),
        server_optimizer=specs.ServerOptimizerSpec("sgd", 1.0),
        scoring=specs.ScoringSpec("capped_examples", "1000000000000000000"),
        codec=codec.name.lower(),
        down="f32",
        audit="public",
        salt="00" * 32,
    )


# --- values of updates: the part that knows the codecs' interface


def entries_of(codec: Codec, values: np.ndarray[Any, Any], draw: Draw) -> list[Case]:
    """What a tensor of these values becomes: entries whose names are the tensor's with `suffix`."""
    coding, tensor = CODINGS[codec], TensorSpec("", (values.size,))
    return [
        {"suffix": part.suffix, "dtype": part.dtype, "shape": list(part.shape(tensor)), "data": text(bytes(raw))}
        for part, raw in zip(coding.parts, coding.encode(values, draw), strict=True)
    ]


def decoded(codec: Codec, entries: list[Case], size: int) -> np.ndarray[Any, Any]:
    """The inverse."""
    raw = [memoryview(bytes.fromhex(entry["data"][2:])) for entry in entries]
    return CODINGS[codec].decode(raw, np.empty(size, np.float32))


def codecs() -> list[Case]:
    """Values to entries and back, under the dither of one node and step."""
    run, step, node = Address(bytes(digest("run")[:20])), Step(3), identity.address_of(COW)
    key, cases = dither.key_of(run, step, node), []
    for codec in CODINGS:
        entries = entries_of(codec, VALUES, dither.stream(key))
        cases.append({"codec": codec.name.lower(), "number": int(codec), "run": text(run), "step": step,
                      "node": text(node), "dither": text(key), "values": text(VALUES.astype("<f4").tobytes()),
                      "entries": entries,
                      "decoded": text(decoded(codec, entries, VALUES.size).astype("<f4").tobytes())})  # fmt: skip
    return cases


UPDATES = (("factors", Codec.F32, 1), ("alternate", Codec.BF16, 1), ("alternate", Codec.BF16, 2),
           ("factors", Codec.MXINT8, 2), ("alternate", Codec.MXINT4, 1))  # fmt: skip


def update() -> list[Case]:
    """Whole updates, from the run spec to the digest."""
    run, node, base, salt = Address(bytes(digest("run")[:20])), identity.address_of(COW), digest("base"), digest("salt")
    cases = []
    for mode, codec, step in UPDATES:
        spec = small_spec(mode, codec)
        layout, draw = layout_of(spec, Step(step)), dither.stream(dither.key_of(run, Step(step), node))
        values = {tensor.name: VALUES[-tensor.size :] for tensor in layout.tensors}
        blob = container.header_of(layout.entries, update_metadata(salt, node, base))
        for part in values.values():
            blob += b"".join(bytes(raw) for raw in CODINGS[codec].encode(part, draw))
        cases.append({
            "spec": spec.encode().decode(), "step": step, "run": text(run), "node": text(node), "base": text(base),
            "salt": text(salt),
            "values": {name: text(part.astype("<f4").tobytes()) for name, part in values.items()},
            "size": str(layout.size), "blob": text(blob), "sha256": text(hashlib.sha256(blob).digest()),
        })  # fmt: skip
    return cases
