# SPDX-License-Identifier: Apache-2.0
"""What mxint8 and mxint4 share: blocks of 32 elements, each integer times one power of two, rounded by dither.

Block format: OCP Microscaling Formats (MX) v1.0, with one difference. OCP takes the scale from floor(log2(max)) and
lets the largest values saturate, which would bias stochastic rounding; here E is the least scale that holds the
maximum (docs/arithmetic.md 3). Everything is float32 on blocks that stay in the second-level cache.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flb.codec.dither import Draw
from flb.delta import BLOCK, Float32
from flb.errors import BadContainer

GROUP = 32
"""Elements that share one scale."""

Int8 = NDArray[np.int8]
UInt8 = NDArray[np.uint8]

_STARTS = np.arange(0, BLOCK, GROUP)

REMEDY = "encode the update with FLB's codec"


@dataclass(frozen=True, slots=True)
class Grid:
    """Integers m in -`limit`..`limit` (a power of two less one) stand for m · 2^(E - `unit`)."""

    limit: int
    unit: int
    scales: Float32 = field(init=False, repr=False)
    """2^(E - unit) for each E; exact, also where it is subnormal. 255 is illegal and stands for 0."""

    def __post_init__(self) -> None:
        scales = np.zeros(256, dtype=np.float32)
        scales[:255] = np.ldexp(np.float32(1), np.arange(255) - self.unit)
        object.__setattr__(self, "scales", scales)

    def exponents(self, largest: NDArray[np.uint32]) -> UInt8:
        """Least E with max|x| ≤ limit · 2^(E - unit), from the bits of each group's max|x|.

        With max = (1 + f/2^23) · 2^(e-127) and limit = 2^k - 1 the least E is e while f is at most that of
        limit / 2^(k-1), else e + 1: an addition that carries into the exponent. Subnormals share the exponent of
        E = 0 without its leading 1, so they have a limit of their own.
        """
        top = (self.limit + 1) // 2
        fraction = (self.limit - top) * (1 << 23) // top
        exponents = (largest + np.uint32(0x7FFFFF - fraction)) >> np.uint32(23)
        exponents[largest <= np.uint32(self.limit << (149 - self.unit))] = 0
        return exponents.astype(np.uint8)

    def encode(self, values: Float32, draw: Draw) -> Iterator[tuple[Int8, UInt8]]:
        """m and E of flat `values`, block by block of at most `BLOCK` elements; m is valid until the next one.

        m = floor(fl32(x · 2^(unit - E)) + u) in float32, u = (2k + 1) / 2^17 for the stream's next k. The sum never
        reaches limit + 1: at limit = 127 floats lie 2^-17 apart, so 127 + u ≤ 128 - 2^-17 is exact, and rounding is
        monotone; m ≥ -limit since u is above 0.
        """
        scaled, dither = np.empty(BLOCK, dtype=np.float32), np.empty(BLOCK, dtype=np.float32)
        whole = np.empty(BLOCK, dtype=np.int8)
        for start in range(0, values.size, BLOCK):
            count = min(BLOCK, values.size - start)
            padded = -(-count // GROUP) * GROUP
            x, u = scaled[:padded], dither[:count]  # at first u is scratch
            x[:count] = values[start : start + count]
            x[count:] = 0
            exponents = self.exponents(_largest(x, dither[:padded]))
            self._scale(x.reshape(-1, GROUP), exponents)
            np.copyto(u, draw(count))
            np.multiply(u, np.float32(2.0**-16), out=u)
            np.add(u, np.float32(2.0**-17), out=u)
            np.add(u, x[:count], out=u)
            np.floor(u, out=u)
            np.copyto(whole[:count], u, casting="unsafe")
            yield whole[:count], exponents

    def _scale(self, groups: Float32, exponents: UInt8) -> None:
        """Multiply by 2^(unit - E) in place; where that is beyond float32 the product of two powers is exact too."""
        wanted = self.unit + 127 - exponents.astype(np.int32)
        first = np.minimum(wanted, 254)
        groups *= (first << 23).astype(np.int32).view(np.float32)[:, None]
        if wanted.max() > 254:
            groups *= np.ldexp(np.float32(1), wanted - first)[:, None]

    def decode(self, whole: Int8, exponents: UInt8, out: Float32) -> Float32:
        """Write m · 2^(E - unit) to `out`: exact for every legal E. Raises BadContainer for what no encoder writes."""
        if int(exponents.max()) == 255:
            raise BadContainer("a scale of the update is 255, which stands for no number", REMEDY)
        if int(whole.min()) < -self.limit:
            raise BadContainer(f"the update holds the integer {-self.limit - 1}, which no encoder writes", REMEDY)
        full = whole.size // GROUP * GROUP
        scale = self.scales[exponents]
        np.multiply(whole[:full].reshape(-1, GROUP), scale[: full // GROUP, None], out=out[:full].reshape(-1, GROUP))
        if full < whole.size:
            np.multiply(whole[full:], scale[-1], out=out[full:])
        zero = ~_any_set(whole)
        if zero.any() and exponents[zero].any():
            raise BadContainer("a block of zeros in the update has a scale other than 0", REMEDY)
        return out


def _largest(values: Float32, scratch: Float32) -> NDArray[np.uint32]:
    """Bits of max|x| of each group: without the sign, float32 sorts like its bits."""
    bits = np.bitwise_and(values.view(np.uint32), np.uint32(0x7FFFFFFF), out=scratch.view(np.uint32))
    return np.maximum.reduceat(bits, _STARTS[: values.size // GROUP])


def _any_set(whole: Int8) -> NDArray[np.bool_]:
    """Whether each group has an integer other than 0; the last group may be short."""
    if whole.size % GROUP:
        padded = np.zeros(-(-whole.size // GROUP) * GROUP, dtype=np.int8)
        padded[: whole.size] = whole
        whole = padded
    words = whole.view(np.uint64).reshape(-1, GROUP // 8)
    found: NDArray[np.bool_] = (words[:, 0] | words[:, 1] | words[:, 2] | words[:, 3]) != 0
    return found
