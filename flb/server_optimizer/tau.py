# SPDX-License-Identifier: Apache-2.0
"""`tau: auto`: the adaptivity of Adagrad, Adam and Yogi relative to the size of the run's first mean update.

After a short local training the entries of a LoRA update are 1e-4 to 1e-2. The customary τ = 1e-3 is then larger than
√v, and the optimizer becomes SGD with the rate η/τ: 100 for η = 0.1. So τ = `tau_scale` · rms(first mean), once for the
run. The sum of squares is exact, as decisions are (docs/arithmetic.md 2), so it has no order.
"""

import numpy as np

from flb.delta import NORM_BITS, Float64, norm_shift

EXACT = 2**53


def square_sum(mean: Float64, norm_bound: int) -> int:
    """Σ r² of a block of the mean update, exact; r = round-half-even(mean · 2^26 / norm_bound), so that |r| has the unit
    in which `flb.delta.NormCheck` measures updates."""
    reduced = np.multiply(mean, 2.0**NORM_BITS / norm_bound)
    np.rint(reduced, out=reduced)
    return _square_sum(reduced)


def _square_sum(integers: Float64) -> int:
    """Halved until no partial sum can pass 2^53: a mean of admitted updates never is, but not every mean is one."""
    if integers.size == 0:
        return 0
    largest = int(max(-integers.min(), integers.max()))
    if largest * largest * integers.size <= EXACT:
        return int(np.dot(integers, integers))
    if integers.size == 1:
        return largest * largest
    half = integers.size // 2
    return _square_sum(integers[:half]) + _square_sum(integers[half:])


def automatic(squares: int, count: int, tau_scale: float, norm_bound: int, fraction_bits: int) -> float:
    """τ = tau_scale · √(Σ r² / P) · 2^(t - F), rounded half to even to units of 2^-F, one unit at least.

    `squares` is Σ r² over the `count` = P elements of the first mean. Each of conversion, quotient, root and the first
    product rounds once; 2^(t - F) = norm_bound / 2^26. A first mean of zeros must not make τ zero: 0/0 is no step.
    """
    unit = 2.0**-fraction_bits
    scaled = np.float64(tau_scale) * np.sqrt(np.float64(squares) / np.float64(count))
    units = np.rint(scaled * 2.0 ** (norm_shift(norm_bound, fraction_bits) - fraction_bits) * 2.0**fraction_bits)
    return max(float(units) * unit, unit)
