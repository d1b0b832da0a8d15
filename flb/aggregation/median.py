# SPDX-License-Identifier: Apache-2.0
"""Coordinate-wise median (Yin et al., ICML 2018, arXiv 1803.01498): the middle value of every coordinate.

Holds for f < n/2, kappa ≤ 4(1 + f/(n - 2f))². With an even number of updates it is the mean of the two middle values.
"""

from flb.capabilities import RuleCapabilities

CAPABILITIES = RuleCapabilities(coordinates=True)


def ranks(count: int) -> tuple[int, int]:
    """The kept ranks of `count` values: from the first, to before the second. Their number is the denominator."""
    return (count - 1) // 2, count // 2 + 1
