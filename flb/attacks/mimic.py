# SPDX-License-Identifier: Apache-2.0
"""Mimic: all attackers send what one honest node sends. No value is an outlier, and that node's data count many times.

Source: Karimireddy, He and Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022 (arXiv
2006.09365). It breaks rules that select, where data differ between nodes.
"""

from collections.abc import Mapping, Sequence

from flb.delta import Float32


def attack(honest: Sequence[Mapping[str, Float32]], which: int) -> dict[str, Float32]:
    """A copy of honest update number `which`, counted from 0 and around the end."""
    return {name: value.copy() for name, value in honest[which % len(honest)].items()}
