# SPDX-License-Identifier: Apache-2.0
"""Bucketing (Karimireddy et al., ICLR 2022, arXiv 2006.09365): before a rule, average random groups of s updates.

It divides the variance between honest nodes by s, and multiplies the share of wrong ones by up to s: f < n/(2s). The
groups are public and anybody can repeat them. A last group of fewer updates stays exact through a common denominator.
"""

import hashlib
import math

import numpy as np

from flb.aggregation.mixture import Mixture
from flb.capabilities import MixingCapabilities
from flb.types import Step

CAPABILITIES = MixingCapabilities(needs_distances=False, settings=("bucket",))

LARGEST = 64
"""The largest group: with any last group the denominator stays within `mixture.LARGEST`."""


def group_count(count: int, size: int) -> int:
    """How many groups `count` updates make."""
    return -(-count // size)


def least_updates(groups: int, size: int) -> int:
    """The fewest updates that make so many groups."""
    return (groups - 1) * size + 1


def order(salt: bytes, step: Step, count: int) -> list[int]:
    """0 to `count` - 1 in the order of SHA-256("flb bucketing" ‖ run salt ‖ step ‖ index), numbers as 4 bytes big
    endian."""
    prefix = hashlib.sha256(b"flb bucketing" + salt + step.to_bytes(4, "big"))

    def rank(index: int) -> bytes:
        hashed = prefix.copy()
        hashed.update(index.to_bytes(4, "big"))
        return hashed.digest()

    return sorted(range(count), key=rank)


def mixture(permuted: list[int], size: int) -> Mixture:
    """Groups of `size` in the given order of the updates; the last one has what is left."""
    groups = [permuted[start : start + size] for start in range(0, len(permuted), size)]
    denominator = math.lcm(*(len(group) for group in groups))
    matrix = np.zeros((len(groups), len(permuted)), dtype=np.int64)
    for row, group in zip(matrix, groups, strict=True):
        row[group] = denominator // len(group)
    return Mixture(matrix, denominator)
