# SPDX-License-Identifier: Apache-2.0
"""Specs with local privacy for tests."""

from dataclasses import replace

from flb.privacy import local
from flb.spec import RunSpec
from tests.sim import small_spec


def private_spec(epsilon: float | None = None, codec: str = "f32", steps: int = 3) -> RunSpec:
    """Weak noise at a clip norm of 1, or a budget."""
    plain = small_spec(codec=codec, steps=steps)
    count = local.parameters_of(plain.tensors)
    privacy = local.plan(
        training=plain.training, parameters=count, steps=steps, clip_norm=1.0, epsilon=epsilon, delta=1e-5
    )
    return replace(plain, privacy=privacy, ring=local.widened(plain.ring, privacy, count, fixed_norm=False))
