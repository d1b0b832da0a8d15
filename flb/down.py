# SPDX-License-Identifier: Apache-2.0
"""The down codec: instead of the next adapter nodes get the encoded step that makes it from the one they hold.

The step is encoded, not the adapter, since 8 bits on weights would erase it. What the encoding loses is the remainder,
which the aggregator adds to the next step, so over a run nothing is lost (error feedback; Seide et al., Interspeech
2014). Aggregator, nodes and verifier add the same decoded step, so all get the same bytes (docs/arithmetic.md 4).
"""

from dataclasses import dataclass

import numpy as np

from flb.admission import Layout, coded_layout
from flb.codec import CODINGS, Raw, dither
from flb.codec.dither import Draw
from flb.delta import Float32, Float64
from flb.lora.mode import sent
from flb.spec import RunSpec
from flb.types import Address, Codec, Digest, Step
from flb.wire import container

CODING = CODINGS[Codec.MXINT8]


def draw_from(run: Address, step: Step, start: int) -> Draw:
    """The dither of a step from its element number `start` on, in the order of the step blob's tensors."""
    return dither.stream(dither.key_of(run, step, Address(bytes(20)), b"down"), start)


def step_metadata(step: Step, base: Digest) -> dict[str, str]:
    """Metadata of a step blob: the adapter that it starts from, and its number."""
    return {"base": "0x" + base.hex(), "step": str(step)}


def step_layout(spec: RunSpec, step: Step, base: Digest) -> Layout:
    """The one legal form of a step blob: the tensors that the step sends, in mxint8."""
    return coded_layout(Codec.MXINT8, sent(spec.lora_mode, spec.tensors, step), step_metadata(step, base))


def step_header(spec: RunSpec, step: Step, base: Digest) -> bytes:
    """The one legal header of a step blob."""
    return container.header_of(step_layout(spec, step, base).entries, step_metadata(step, base))


def state_header(spec: RunSpec, step: Step) -> bytes:
    """The one legal header of the blob with what is left after `step`: all tensors in float32."""
    return container.encode_header(spec.tensors, "F32", {"step": str(step)})


@dataclass(frozen=True, slots=True)
class Encoded:
    """Elements of a step as they travel: the bytes of each part, the values that those stand for, what is left."""

    parts: tuple[Raw, ...]
    values: Float32
    remainder: Float32


def encode(step: Float64, remainder: Float32, draw: Draw) -> Encoded:
    """Encode flat elements of a step, from a multiple of 32 on, with what the step before left of them.

    y = step + remainder in float64; float32(y) is encoded; what is left is float32(y - decoded).
    """
    y = step + remainder.astype(np.float64)
    parts = CODING.encode(y.astype(np.float32), draw)
    values = CODING.decode([memoryview(part) for part in parts], np.empty(y.size, dtype=np.float32))
    return Encoded(parts, values, (y - values.astype(np.float64)).astype(np.float32))
