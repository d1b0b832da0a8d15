# SPDX-License-Identifier: Apache-2.0
"""Trimmed mean (Yin et al., ICML 2018, arXiv 1803.01498): of every coordinate drop the f lowest and the f highest values.

Holds for f < n/2, kappa ≤ 6f/(n - 2f)·(1 + f/(n - 2f)). With f = 0 it is the mean.
"""

from flb.capabilities import RuleCapabilities

CAPABILITIES = RuleCapabilities(coordinates=True)


def ranks(count: int, byzantine: int) -> tuple[int, int]:
    """The kept ranks of `count` values: from the first, to before the second. Their number is the denominator."""
    return byzantine, count - byzantine
